# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for the repository as a whole: links, sizes, names, locks and what the built collection leaves out."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_LINES = 400
VAGUE_NAMES = {"common", "helper", "helpers", "misc", "util", "utils"}
LOCKS = ("requirements.txt", "LICENSE")
SKIPS = re.compile(r"#\s*(noqa|type:\s*ignore|pragma: no cover|pylint:\s*disable)|mark\.(skip|xfail)|pytest\.skip\(")


def tracked() -> list[Path]:
    """Every file that git has or would take, links left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout.decode().split("\0")
    paths = [REPOSITORY / name for name in names if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def modules() -> list[str]:
    return sorted(path.name for path in (REPOSITORY / "plugins/modules").glob("*.py") if path.name != "__init__.py")


def test_library_has_one_link_per_module() -> None:
    links = {path.name: path for path in (REPOSITORY / "library").iterdir()}
    assert sorted(links) == modules()
    assert {name: str(path.readlink()) for name, path in links.items()} == {
        name: f"../plugins/modules/{name}" for name in modules()
    }


def test_the_action_group_has_every_module_that_takes_its_defaults() -> None:
    """One more, and defaults such as timeout would make its tasks fail; one less, and it would ask another engine."""
    runtime = yaml.safe_load((REPOSITORY / "meta/runtime.yml").read_text())
    texts = {name: (REPOSITORY / "plugins/modules" / name).read_text() for name in modules()}
    takes = [name for name, text in texts.items() if "\n  - openmemory.stack.docker\n" in text]
    assert sorted(f"{name}.py" for name in runtime["action_groups"]["stack"]) == takes


def test_every_module_that_changes_has_an_info_twin() -> None:
    names = {name.removesuffix(".py") for name in modules()}
    assert {name for name in names if not name.endswith("_info") and f"{name}_info" not in names} == set()


def test_no_file_is_too_long() -> None:
    lengths = {
        path: path.read_bytes().count(b"\n") for path in tracked() if path.name not in LOCKS and not is_lock(path)
    }
    assert {str(path): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def is_lock(path: Path) -> bool:
    return path.name.startswith("requirements") and "--hash=" in path.read_text(errors="replace")


def test_no_file_has_a_vague_name() -> None:
    assert [str(path) for path in tracked() if path.stem.lstrip("_") in VAGUE_NAMES] == []


def test_nothing_is_skipped_or_silenced() -> None:
    code = [path for path in tracked() if path.suffix == ".py" and path != Path(__file__)]
    assert [str(path) for path in code if SKIPS.search(path.read_text())] == []
    assert list((REPOSITORY / "tests").glob("sanity/ignore-*.txt")) == []
    assert "skip_list" not in (REPOSITORY / ".ansible-lint").read_text()
    assert "warn_list" not in (REPOSITORY / ".ansible-lint").read_text()


@pytest.mark.parametrize("lock", [path for path in tracked() if is_lock(path)], ids=lambda path: path.name)
def test_locks_hold_versions_and_hashes_only(lock: Path) -> None:
    text = lock.read_text()
    assert re.findall(r"https?://|--(?:extra-)?index-url|--find-links", text) == []
    for entry in re.split(r"\n(?=\S)", text.replace("\\\n", " ").strip()):
        assert entry.startswith("#") or re.match(r"[\w.-]+==\S+.*--hash=sha256:", entry), entry


def test_every_direct_dependency_has_its_reason() -> None:
    reasons = (REPOSITORY / "docs/dependencies.md").read_text()
    direct = re.findall(r"^([\w.-]+)==", (REPOSITORY / "requirements.in").read_text(), re.MULTILINE)
    assert direct
    assert [name for name in direct if f"| `{name}` |" not in reasons] == []


def test_every_package_that_the_setup_installs_has_its_reason() -> None:
    reasons = (REPOSITORY / "docs/dependencies.md").read_text()
    pairs = re.findall(
        r"[\w.-]+:([\w.-]+)", re.findall(r"APT_ALL=\(([^)]*)\)", (REPOSITORY / "tests/setup.sh").read_text())[0]
    )
    assert pairs
    assert [name for name in pairs if f"`{name}`" not in reasons] == []


def test_collection_version_is_the_one_pinned_for_users() -> None:
    galaxy = yaml.safe_load((REPOSITORY / "galaxy.yml").read_text())
    pinned = yaml.safe_load((REPOSITORY / "requirements.yml").read_text())["collections"]
    assert [entry["name"] for entry in pinned] == list(galaxy["dependencies"])
    assert all(f">={entry['version']}," in galaxy["dependencies"][entry["name"]] for entry in pinned)


@pytest.mark.parametrize("name", [".venv", ".collections", "build", ".git", "x.tar.gz"])
def test_the_built_collection_leaves_out(name: str) -> None:
    ignored = yaml.safe_load((REPOSITORY / "galaxy.yml").read_text())["build_ignore"]
    assert any(fnmatch.fnmatch(name, pattern) for pattern in ignored)
