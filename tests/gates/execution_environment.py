"""Builds the collection and the context of its execution environment in build/execution-environment, and checks both.

`ansible-builder create` needs neither a network nor a container engine. What is checked: the definition by
ansible-builder's own schema, the pins against those that everything here is tested with, what ansible-builder reads of
the collection as it would be installed, and that every file the Containerfile names is there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "execution-environment"
TARBALL = PLACE / "openmemory-stack.tar.gz"
CONTEXT = PLACE / "context"
DEFINITION = ROOT / "execution-environment.yml"


def run(*command: str) -> str:
    """Run one of .venv's tools; its output, or the end of the program with what it says."""
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(PLACE / "home"), "LC_ALL": "C.UTF-8"}
    # Not in the repository, by whose ansible.cfg the collection is there already.
    done = subprocess.run(command, cwd=PLACE, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def pins() -> dict[str, str]:
    """The versions that the gates and tests run with."""
    locked = re.search(r"^ansible-core==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    listed = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    return {"ansible-core": locked[1] if locked else ""} | {entry["name"]: entry["version"] for entry in listed}


def wrong_pins(definition: dict[str, Any]) -> list[str]:
    """A sentence for each version in the definition that is not the tested one."""
    wanted = definition["dependencies"]
    found = {entry["name"]: entry.get("version", "") for entry in wanted["galaxy"]["collections"]}
    found["ansible-core"] = wanted["ansible_core"]["package_pip"].partition("==")[2]
    return [
        f"execution-environment.yml has {name} {found.get(name) or 'without a version'}, and the tests have {version}; "
        "make them the same."
        for name, version in pins().items()
        if found.get(name) != version
    ]


def build_collection() -> None:
    run("ansible-galaxy", "collection", "build", "--force", "--output-path", str(PLACE), str(ROOT))
    built = next(PLACE.glob("openmemory-stack-*.tar.gz"))
    built.rename(TARBALL)


def introspected() -> dict[str, Any]:
    """What ansible-builder reads of the installed collection."""
    installed = PLACE / "installed"
    run("ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", str(installed), str(TARBALL))
    said = run("ansible-builder", "introspect", str(installed))
    return dict(yaml.safe_load(said.split("---", 1)[1]))


def missing_files() -> list[str]:
    """What the Containerfile copies from the context and is not in it."""
    named = re.findall(r"^(?:ADD|COPY) (?!--from)(\S+) ", (CONTEXT / "Containerfile").read_text(), re.MULTILINE)
    listed = yaml.safe_load((CONTEXT / "_build" / "requirements.yml").read_text())["collections"]
    named += [f"_build/{entry['name']}" for entry in listed if entry.get("type") == "file"]
    return [name for name in named if not (CONTEXT / name).exists()]


def main() -> int:
    shutil.rmtree(PLACE, ignore_errors=True)
    (PLACE / "home").mkdir(parents=True)
    build_collection()
    run(
        *("ansible-builder", "create", "--file", str(DEFINITION)),
        *("--context", str(CONTEXT), "--output-filename", "Containerfile"),
    )
    problems = wrong_pins(yaml.safe_load(DEFINITION.read_text()))
    problems += [f"The Containerfile needs {name}, which is not in the context." for name in missing_files()]
    system = introspected()["system"]
    if "openssh-clients" not in str(system):
        problems.append(f"ansible-builder does not read openssh-clients from the collection: it has {system}.")
    for problem in problems:
        print(problem)
    if not problems:
        print(
            "The context is build/execution-environment/context: docker build -f Containerfile there makes the image."
        )
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
