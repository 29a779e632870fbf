# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way a capture goes, and what is said where a way or the room for it is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import way as ways
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.plan import PlannedVolume
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.staging import Staging
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.way import Way, check_space, choose
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.sizes import Size

MIB = 1 << 20
SHARED_MEMORY = Path("/dev/shm")  # a tmpfs on every Linux: it shares no blocks
FITS = int(0.3 * ways.COPY_RATE)  # bytes that one copy within 0.3 s may have


def volume(path: Path, allocated: int = 0, quiesce: str = "pause") -> PlannedVolume:
    path.mkdir(exist_ok=True)
    size = Size(allocated, allocated, 1)
    about: Any = f"om_{path.name}", str(path), "managed", "local", {}, {}, "ext4", "files", None
    return PlannedVolume(path.name, *about, quiesce, size)


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    made = Staging(str(tmp_path / "staging"))
    made.prepare([])
    return made


@pytest.fixture
def cloneable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of volumes that are said to share blocks with staging."""
    names: set[str] = set()
    monkeypatch.setattr(ways, "can_clone", lambda path, _staging: os.path.basename(path) in names)
    return names


@pytest.fixture
def no_reflink() -> Iterator[Path]:
    place = SHARED_MEMORY / f"omway-{os.getpid()}"
    place.mkdir()
    yield place
    for path in (*sorted(place.rglob("*"), reverse=True), place):
        path.rmdir() if path.is_dir() else path.unlink()


def test_reflink_that_cannot_be_is_refused(no_reflink: Path) -> None:
    """Really tried: on a tmpfs, and from one file system to another."""
    near, far = Staging(str(no_reflink / "staging")), Staging(str(no_reflink / "far"))
    near.prepare([])
    far.prepare([])
    one = volume(no_reflink / "one")
    with pytest.raises(StackError) as raised:
        choose("reflink", [one], near, 0.3)
    assert str(raised.value) == (
        f"capture is reflink, but the volume om_one (ext4 at {no_reflink}/one) and staging at {no_reflink}/staging do "
        "not share blocks (one XFS or btrfs); set staging_dir, or capture: auto."
    )
    assert choose("auto", [one], near, 0.3) == Way("single", {"one": False})


def test_reflink_names_the_first_volume_that_cannot(tmp_path: Path, staging: Staging, cloneable: set[str]) -> None:
    cloneable.add("a")
    with pytest.raises(StackError, match=r"the volume om_b \(ext4 at .*/b\)"):
        choose("reflink", [volume(tmp_path / name) for name in "abc"], staging, 0.3)


def test_reflink_goes_where_only_what_is_not_frozen_cannot(
    tmp_path: Path, staging: Staging, cloneable: set[str]
) -> None:
    cloneable.add("a")
    both = [volume(tmp_path / "a", 10 * FITS), volume(tmp_path / "logs", 10 * FITS, quiesce="none")]
    for asked in ("reflink", "auto"):
        assert choose(asked, both, staging, 0.3) == Way("reflink", {"a": True, "logs": False})


@pytest.mark.parametrize("asked", ["single", "two_pass"])
def test_what_is_asked_for_is_taken(tmp_path: Path, staging: Staging, cloneable: set[str], asked: str) -> None:
    """However large it is; and what can share blocks does so all the same."""
    cloneable.add("a")
    found = choose(asked, [volume(tmp_path / "a"), volume(tmp_path / "b", 100 * FITS)], staging, 0.3)
    assert found == Way(asked, {"a": True, "b": False})


@pytest.mark.parametrize(
    ("name", "sizes", "able", "budget"),
    [
        ("reflink", {"a": 10 * FITS, "b": 10 * FITS}, "ab", 0.3),
        ("single", {"a": FITS - 1, "b": 1}, "", 0.3),
        ("two_pass", {"a": FITS, "b": 1}, "", 0.3),
        ("single", {"a": FITS, "b": 1}, "", 0.4),  # who gives more time
        ("single", {"a": 10 * FITS, "b": FITS}, "a", 0.3),  # what shares blocks takes no time
        ("two_pass", {"a": 1, "b": FITS + 1}, "a", 0.3),
        ("single", {"a": 0}, "", 0.001),
    ],
)
def test_auto_picks_the_first_that_fits(
    tmp_path: Path,
    staging: Staging,
    cloneable: set[str],
    name: str,
    sizes: dict[str, int],
    able: Collection[str],
    budget: float,
) -> None:
    cloneable |= {*able}
    volumes = [volume(tmp_path / key, size) for key, size in sizes.items()]
    assert choose("auto", volumes, staging, budget).name == name


def test_auto_does_not_count_what_is_copied_outside_of_the_window(
    tmp_path: Path, staging: Staging, cloneable: set[str]
) -> None:
    volumes = [volume(tmp_path / "a", 1), volume(tmp_path / "logs", 10 * FITS, quiesce="none")]
    assert choose("auto", volumes, staging, 0.3).name == "single"
    assert choose("auto", volumes[1:], staging, 0.3).name == "single"  # nothing is frozen, so nothing is in a hurry


def free(patch: pytest.MonkeyPatch, amount: int | None) -> None:
    patch.setattr(ways, "free_and_total", lambda _path: (amount, None))


def test_how_much_room_is_missing_is_said(tmp_path: Path, staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [volume(tmp_path / "a", 100 * MIB), volume(tmp_path / "b", 512 * 1024)]
    way = Way("single", {"a": False, "b": False})
    free(monkeypatch, 100 * MIB)
    with pytest.raises(StackError) as raised:
        check_space(volumes, staging, way)
    assert str(raised.value) == (
        f"There is no room for staging at {staging.root}: needed 164.5 MiB, free 100 MiB, missing 64.5 MiB; make room "
        "or set staging_dir. Nothing was backed up."
    )
    free(monkeypatch, 164 * MIB + 512 * 1024)
    check_space(volumes, staging, way)
    free(monkeypatch, 164 * MIB + 512 * 1024 - 1)
    with pytest.raises(StackError, match=r"missing 1 bytes?; make room"):
        check_space(volumes, staging, way)


def test_what_shares_blocks_and_what_is_there_needs_no_room(
    tmp_path: Path, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(staging.volume("b"))
    copy.mkdir()
    (copy / "file").write_bytes(os.urandom(3 * MIB))
    volumes = [volume(tmp_path / "a", 1000 * MIB), volume(tmp_path / "b", 5 * MIB), volume(tmp_path / "c", 0)]
    free(monkeypatch, 66 * MIB)
    check_space(volumes, staging, Way("single", {"a": True, "b": False, "c": False}))  # 64 MiB, and 2 of b
    free(monkeypatch, 66 * MIB - 1)
    with pytest.raises(StackError, match=r"needed 66 MiB"):
        check_space(volumes, staging, Way("single", {"a": True, "b": False, "c": False}))
    with pytest.raises(StackError, match=r"needed 1 GiB, free 66 MiB"):
        check_space(volumes, staging, Way("single", {"a": False, "b": False, "c": False}))
    free(monkeypatch, 64 * MIB - 1)
    volumes[1] = volume(tmp_path / "b", MIB)  # it has shrunk, which gives the others no room
    with pytest.raises(StackError, match=r"needed 64 MiB"):
        check_space(volumes, staging, Way("two_pass", {"a": True, "b": False, "c": False}))


def test_room_that_cannot_be_asked_for_is_not_refused(
    tmp_path: Path, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, None)
    check_space([volume(tmp_path / "a", 1 << 60)], staging, Way("single", {"a": False}))


def test_the_room_is_that_of_the_file_system_of_staging(no_reflink: Path) -> None:
    """Really asked: more than any of them has."""
    staging = Staging(str(no_reflink / "staging"))
    staging.prepare([])
    with pytest.raises(StackError) as raised:
        check_space([volume(no_reflink / "a", 1 << 50)], staging, Way("single", {"a": False}))
    figures = os.statvfs(no_reflink)
    assert "needed 1024 TiB" in str(raised.value)
    gib = figures.f_bavail * figures.f_frsize / (1 << 30)
    found = re.search(r"free ([0-9.]+) GiB, missing ([0-9.]+) TiB", str(raised.value))
    assert found
    assert abs(float(found[1]) - gib) < 1
