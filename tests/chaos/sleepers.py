# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that sleep, here or on a host of the lab, and what becomes of them. All are named omguard."""

from __future__ import annotations

import fcntl
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sleep_image import make_image

PREFIX = "omguard"
IMAGE = "omguard/sleep"
DIRECTORY = "/var/tmp/omguard"
PROMISED_S = 5.0  # within this, whatever dies, paused containers run again
REPOSITORY = Path(__file__).resolve().parents[2]
MAKE_IMAGE = make_image(IMAGE)


@contextmanager
def image() -> Iterator[None]:
    """Their image on this machine. Names are fixed, so two runs wait for each other."""
    with open("/var/tmp/omguard.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Sleepers().sh(MAKE_IMAGE)
        yield
        Sleepers().sh(f"docker rmi {IMAGE}")


class Sleepers:
    """Shell commands through a prefix: [] for this machine, or ssh and its options for another."""

    def __init__(self, prefix: Sequence[str] = ()):
        self.prefix = list(prefix)
        # a host of the lab shows its processes to this machine, so its directory has another name
        self.directory = f"{DIRECTORY}-lab" if prefix else DIRECTORY
        self.collections = f"{self.directory}/collections" if prefix else str(REPOSITORY / ".collections")
        self.python = "python3" if prefix else str(REPOSITORY / ".venv/bin/python")
        self.script = f"{self.directory}/freeze_child.py" if prefix else str(REPOSITORY / "tests/chaos/freeze_child.py")

    def sh(self, command: str) -> str:
        run = subprocess.run(
            [*self.prefix, command] if self.prefix else ["sh", "-c", command],
            capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert run.returncode == 0, f"{command}: {run.stdout}{run.stderr}"
        return run.stdout

    def start(self, *names: str, options: str = "") -> None:
        for name in names:
            # KILL as the stop signal: a shell of PID 1 that ignores TERM would make every stop last ten seconds
            named = f"--name {PREFIX}-{name} --network none --stop-signal KILL {options}"
            self.sh(f"docker run -d {named} {IMAGE} /bin/sleep 900")

    def states(self) -> dict[str, str]:
        """running, paused or exited, by the name without the prefix."""
        lines = self.sh(f"docker ps -a --filter name=^/{PREFIX}- --format '{{{{.Names}}}} {{{{.State}}}}'").splitlines()
        return {line.split()[0][len(PREFIX) + 1 :]: line.split()[1] for line in lines}

    def wait(self, wanted: Mapping[str, str], seconds: float) -> dict[str, str]:
        """The states, as soon as they are as wanted, or when seconds have passed."""
        until = time.monotonic() + seconds
        while True:
            asked = time.monotonic()
            states = self.states()
            if states == wanted or asked > until:
                return states
            time.sleep(0.05)

    def guards(self, seconds: float) -> str:
        """The guards that are still there after so many seconds at most; empty if none is."""
        until = time.monotonic() + seconds
        found = "first"
        while found and time.monotonic() < until:
            found = self.sh(f"pgrep -af '{self.directory[:-1]}[{self.directory[-1]}]/.*guard[.]py' || true")
            time.sleep(0.1)
        return found

    def child(
        self, asked: Mapping[str, Any], ssh_options: Sequence[str] = (), wrapper: str = "exec"
    ) -> subprocess.Popen[str]:
        """Start a freeze in a process of its own (in a session of its own), and wait until it says where it is."""
        text = json.dumps({"state_dir": f"{self.directory}/state", "runtime_dir": f"{self.directory}/run", **asked})
        command = f"{wrapper} env PYTHONPATH={self.collections} {self.python} {self.script} '{text}'"
        prefix = [*self.prefix[:1], *ssh_options, *self.prefix[1:]]
        return subprocess.Popen(
            [*prefix, command] if self.prefix else ["sh", "-c", command],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip

    def freeze(
        self, at: str, *names: str, ssh_options: Sequence[str] = (), wrapper: str = "exec", **asked: Any
    ) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """A child that stays at a phase, and what it says: its pid on its host, the freezers of the containers."""
        pause = [f"{PREFIX}-{name}" for name in names]
        process = self.child({"at": at, "pause": pause, **asked}, ssh_options, wrapper)
        assert process.stdout is not None
        said: dict[str, Any] = json.loads(process.stdout.readline() or "{}")
        assert said.get("at") == at, f"the child ended: {process.wait()}"
        return process, said

    def recover(self) -> list[str]:
        process = self.child({"recover": True})
        said: list[str] = json.loads(process.communicate(timeout=60)[0])
        return said

    def clean(self) -> None:
        self.sh(
            f"docker ps -aq --filter name=^/{PREFIX}- | xargs -r docker rm -f >/dev/null; "
            f"rm -rf {self.directory}/state {self.directory}/run"
        )
