# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holes of a captured file are holes of the restored one again, whatever restic wrote there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import listing
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repairing import repair

MIB = 1 << 20


class Scene:
    """A volume "v" with a file that has holes, its listing, and a copy as restic 0.14 restores it: without any."""

    def __init__(self, root: Path, *data: tuple[int, bytes], size: int = 8 * MIB):
        self.captured, self.restored = root / "volumes/v", root / "new"
        self.listing = str(root / "listing")
        self.captured.mkdir(parents=True)
        with open(self.captured / "file", "wb") as file:
            for offset, what in data:
                file.seek(offset)
                file.write(what)
            file.truncate(size)
        listing.write(str(root / "volumes"), ["v"], self.listing)
        self.restored.mkdir()
        (self.restored / "file").write_bytes((self.captured / "file").read_bytes())

    @property
    def copy(self) -> Path:
        return self.restored / "file"

    def holes(self) -> list[tuple[int, int]]:
        return listing.holes_of(str(self.copy))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Data at 2 MiB, zeros that are none of the holes at 4 MiB."""
    return Scene(tmp_path, (2 * MIB, b"x" * MIB), (4 * MIB, bytes(MIB)))


def test_they_are_where_they_were_and_nowhere_else(scene: Scene) -> None:
    told = next(entry for entry in listing.read(scene.listing, "v") if entry.path == "file")
    assert told.holes == [(0, 2 * MIB), (3 * MIB, MIB), (5 * MIB, 3 * MIB)]
    assert scene.holes() == []
    contents = scene.copy.read_bytes()
    assert "file: holes" in repair(str(scene.restored), scene.listing, "v")
    assert scene.holes() == told.holes
    assert scene.copy.read_bytes() == contents
    assert scene.copy.stat().st_mtime_ns == (scene.captured / "file").stat().st_mtime_ns


@pytest.mark.parametrize("at", [0, 2 * MIB - 1, 3 * MIB, 8 * MIB - 1])
def test_data_where_a_hole_was_is_refused_and_left(scene: Scene, at: int) -> None:
    with open(scene.copy, "r+b") as file:
        file.seek(at)
        file.write(b"y")
    before = scene.copy.read_bytes()
    with pytest.raises(StackError, match="v is not what was captured: file: data where a hole was"):
        repair(str(scene.restored), scene.listing, "v")
    assert scene.copy.read_bytes() == before


def test_a_file_that_is_shorter_by_now_does_not_grow(scene: Scene) -> None:
    os.truncate(scene.copy, 7 * MIB)
    with pytest.raises(StackError, match="size"):
        repair(str(scene.restored), scene.listing, "v")
    assert scene.copy.stat().st_size == 7 * MIB


def test_of_very_many_holes_none_is_told_and_all_are_found(tmp_path: Path) -> None:
    block = 65536
    scene = Scene(tmp_path, *((number * 2 * block, b"x" * block) for number in range(1100)), size=2200 * block)
    told = next(entry for entry in listing.read(scene.listing, "v") if entry.path == "file")
    assert told.holes == []
    assert told.allocated < 1200 * block  # and a little for the list of its extents
    repair(str(scene.restored), scene.listing, "v")
    assert scene.copy.stat().st_blocks * 512 < 1200 * block
    assert scene.copy.read_bytes() == (scene.captured / "file").read_bytes()


def test_holes_that_cannot_be_are_damage(scene: Scene) -> None:
    text = Path(scene.listing).read_text()
    Path(scene.listing).write_text(text.replace("[[0,", "[[-4096,"))
    with pytest.raises(StackError, match="cut off or damaged"):
        list(listing.read(scene.listing))
