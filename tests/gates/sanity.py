"""Runs ansible-test sanity on what git would commit, in a clone of its own as ansible-test demands.

Nothing is skipped and there is no ignore file. The tools that ansible-test installs stay in build/sanity/home, so that
only the first run pays for them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "sanity" / "home"
# ansible-test fetches this file from a site of its own; what it is for comes with Python.
BOOTSTRAP = "import ensurepip\n\nensurepip.bootstrap(upgrade=True)\n"
PIP_NOISE = (" ", "Collecting ", "Installing ", "Looking in ", "Processing ", "Successfully ", "Using cached ")


def copy_tracked(to: Path) -> None:
    """Copy what git tracks, or would, links as links."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)


def main() -> int:
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:  # two runs at once would take each other's clone away
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sanity()


def sanity() -> int:
    clone = ROOT / "build" / "sanity" / "ansible_collections" / "openmemory" / "stack"
    shutil.rmtree(clone, ignore_errors=True)
    clone.mkdir(parents=True)
    copy_tracked(clone)
    for command in (["init", "-q"], ["add", "-A"]):  # ansible-test asks git which files there are
        subprocess.run(["git", *command], cwd=clone, check=True)
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "get_pip_24_2.py").write_text(BOOTSTRAP)
    # Other Pythons of this machine are not ours to test with: only .venv's and the system's are on the path.
    path = f"{ROOT / '.venv/bin'}:/usr/bin:/bin"
    env = {**os.environ, "HOME": str(HOME), "PATH": path, "LC_ALL": "C.UTF-8"}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["ansible-test", "sanity", "--color", "no", "--python", version, *sys.argv[1:]]
    done = subprocess.run(
        command, cwd=clone, env=env, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print("\n".join(line for line in done.stdout.splitlines() if not line.startswith(PIP_NOISE)))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
