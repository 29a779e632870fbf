"""Two ways of using the project from another repository, on a lab host: as an installed collection, and vendored."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sanity import copy_tracked

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "build" / "lab" / "inventory.yml"
HOST = "lab1"
SECRETS = {"GOOGLE_API_KEY": "infra-key", "NEO4J_PASSWORD": "infra-password"}

VENDORED = """
- hosts: openmemory
  gather_facts: false
  vars:
    made:
      - {name: om_vendored_a, labels: {purpose: test}}
      - {name: om_vendored_b}
  tasks:
    - volume:
        volumes: "{{ made }}"
    - volume_info:
        names: "{{ made | map(attribute='name') }}"
      register: found
    - ansible.builtin.assert:
        that: found.volumes | map(attribute='name') == ['om_vendored_a', 'om_vendored_b']
    - volume:
        volumes: "{{ made }}"
        state: absent
"""


def run(*command: str, cwd: Path) -> str:
    """Run a command in a repository as its owner would: its own ansible.cfg, a home of its own, .venv's Ansible."""
    env = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "HOME": str(cwd), "LC_ALL": "C.UTF-8", **SECRETS}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def changed(output: str) -> int:
    """How many tasks the recap says changed something on the host."""
    return int(re.findall(rf"^{HOST}\s.*changed=(\d+)", output, re.MULTILINE)[0])


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty place with a short path: SSH's control socket lies below it, and a socket's path has a limit."""
    with tempfile.TemporaryDirectory(prefix="om") as folder:
        yield Path(folder)


@pytest.fixture
def repository(place: Path) -> Path:
    """The small infrastructure repository in an empty place, with the built collection in dist/."""
    place = place / "infra"
    shutil.copytree(ROOT / "tests" / "infra_repo", place)
    dist = place / "dist"
    run("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(dist), cwd=place)
    next(dist.glob("*.tar.gz")).rename(dist / "openmemory-stack.tar.gz")
    return place


def test_deploys_from_requirements_and_full_names_only(repository: Path) -> None:
    run(
        "ansible-galaxy",
        "collection",
        "install",
        "-r",
        "requirements.yml",
        "-p",
        "collections",
        "--offline",
        cwd=repository,
    )
    assert (repository / "collections/ansible_collections/openmemory/stack/MANIFEST.json").exists()
    play = ("ansible-playbook", "-i", str(INVENTORY), "--limit", HOST, "site.yml")
    try:
        first = run(*play, cwd=repository)
        assert changed(first) > 0
        assert "om_infra_qdrant_storage in /srv/om_infra/qdrant_storage" in first
        assert SECRETS["NEO4J_PASSWORD"] not in first
        assert changed(run(*play, cwd=repository)) == 0
    finally:
        run(
            *play[:-1], str(ROOT / "tests" / "gates" / "remove.yml"), "-e", "@group_vars/openmemory.yml", cwd=repository
        )


def test_vendored_library_works_by_short_names(place: Path) -> None:
    """A repository that holds this one as a submodule, and names its library/ and its place as a collection."""
    clone = place / "collections" / "ansible_collections" / "openmemory" / "stack"
    clone.mkdir(parents=True)
    copy_tracked(clone)
    (place / "ansible.cfg").write_text(
        f"[defaults]\ncollections_path = collections\nlibrary = {clone.relative_to(place)}/library\n"
    )
    (place / "site.yml").write_text(VENDORED)
    output = run("ansible-playbook", "-i", str(INVENTORY), "--limit", HOST, "site.yml", cwd=place)
    assert changed(output) == 2
