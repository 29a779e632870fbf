"""The collection builds, installs into an empty place without any network, and documents itself completely there."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
SHIPPED = {"CHANGELOG.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "requirements.yml"}
SHIPPED |= {"docs", "meta", "playbooks", "plugins", "roles"}


def ansible(*command: str, cwd: Path, home: Path) -> str:
    """Run a command of .venv with a home of its own and no ansible.cfg; its output, or a failure that shows it."""
    env = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("build")
    ansible("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(place), cwd=place, home=place)
    return next(place.glob("openmemory-stack-*.tar.gz"))


@pytest.fixture(scope="module")
def home(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home into whose default place the collection was installed, offline."""
    empty = tmp_path_factory.mktemp("home")
    ansible("ansible-galaxy", "collection", "install", str(tarball), "--offline", cwd=empty, home=empty)
    return empty


def test_the_tarball_holds_what_users_need_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = {member.name.split("/")[0] for member in archive.getmembers()}
    assert names == SHIPPED


def test_the_installed_collection_lists_its_modules_and_roles(home: Path) -> None:
    listed = json.loads(ansible("ansible-doc", "--list", "--json", "openmemory.stack", cwd=home, home=home))
    assert sorted(listed) == [f"openmemory.stack.{name}" for name in MODULES]
    roles = json.loads(
        ansible("ansible-doc", "-t", "role", "--list", "--json", "openmemory.stack", cwd=home, home=home)
    )
    assert {"openmemory.stack.docker_host", "openmemory.stack.stack"} <= set(roles)


def incomplete(options: dict[str, Any]) -> list[str]:
    """The names of options or return values that lack a description or a type, at any depth."""
    missing = [name for name, option in options.items() if not option.get("description") or not option.get("type")]
    for name, option in options.items():
        nested = option.get("suboptions") or option.get("contains") or {}
        missing += [f"{name}.{inner}" for inner in incomplete(nested)]
    return missing


@pytest.mark.parametrize("module", MODULES)
def test_documentation_is_complete_in_the_installed_collection(home: Path, module: str) -> None:
    name = f"openmemory.stack.{module}"
    check_documentation(json.loads(ansible("ansible-doc", "--json", name, cwd=home, home=home))[name])


@pytest.mark.parametrize("module", MODULES)
def test_documentation_is_complete_from_library(tmp_path: Path, module: str) -> None:
    """As a person types it in the repository: ansible-doc -M library volume."""
    listed = json.loads(ansible("ansible-doc", "--json", "-M", "library", module, cwd=ROOT, home=tmp_path))
    check_documentation(next(iter(listed.values())))


def check_documentation(found: dict[str, Any]) -> None:
    doc = found["doc"]
    assert doc["short_description"]
    assert doc["description"]
    assert incomplete(doc["options"]) == []
    assert {"check_mode", "diff_mode", "idempotent"} <= set(doc["attributes"])
    assert "openmemory.stack." in found["examples"]
    assert incomplete(found["return"]) == []
    assert found["return"]
