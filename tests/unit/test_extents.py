# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where two files do not lie on the same blocks. Real clones under writers are in tests/chaos/test_byte_truth.py."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import extents as under_test
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.extents import Extent, differing, extents

BLOCK = 4096


def lie(number: random.Random, blocks: int) -> list[int | None]:
    """On which block each block of a file lies; None is a hole."""
    where: list[int | None] = []
    while len(where) < blocks:
        run, at = number.randrange(1, 6), number.choice([None, number.randrange(40)])
        where += [None if at is None else at + step for step in range(run)]
    return where[:blocks]


def described(where: list[int | None], number: random.Random) -> list[Extent]:
    """The same as extents, which the file system may cut where it likes."""
    found: list[Extent] = []
    for index, block in enumerate(where):
        if block is None:
            continue
        away = (block - index) * BLOCK
        if found and found[-1].end == index * BLOCK and found[-1].away == away and number.random() < 0.8:
            found[-1] = found[-1]._replace(end=(index + 1) * BLOCK)
        else:
            found.append(Extent(index * BLOCK, (index + 1) * BLOCK, away))
    return found


@pytest.mark.parametrize("seed", range(200))
def test_every_block_that_lies_elsewhere_is_in_a_range(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    number = random.Random(seed)
    monkeypatch.setattr(under_test, "NEAR", near := number.choice([0, 1, 3 * BLOCK]))
    blocks = number.randrange(1, 60)
    ours = lie(number, blocks)
    theirs = [other if number.random() < 0.2 else our for our, other in zip(ours, lie(number, blocks), strict=True)]
    size = blocks * BLOCK - number.choice([0, 1, BLOCK - 1])
    found = differing(described(ours, number), described(theirs, number), size)
    inside = {block for begin, end in found for block in range(begin // BLOCK, -(-end // BLOCK))}
    wrong = {block for block in range(blocks) if ours[block] != theirs[block]}
    assert wrong <= inside
    assert all(begin % BLOCK == 0 and (end % BLOCK == 0 or end == size) and begin < end <= size for begin, end in found)
    assert all(other[0] - one[1] >= near for one, other in pairwise(found))
    if near == 0:
        assert inside == wrong


def test_a_shorter_copy_differs_to_the_end() -> None:
    assert differing([Extent(0, 8 << 20, 7)], [Extent(0, 4 << 20, 7)], (8 << 20) - 5) == [(4 << 20, (8 << 20) - 5)]


def test_the_file_system_tells_what_is_data(tmp_path: Path) -> None:
    """Also what was written just now, and not what is only allocated."""
    with (tmp_path / "file").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, 1 << 20)
        for offset in (256 << 10, 768 << 10):
            os.pwrite(stream.fileno(), bytes([7]) * (128 << 10), offset)
        os.ftruncate(stream.fileno(), 64 << 20)
        found = extents(stream.fileno(), 64 << 20)
    assert found is not None, "the file system of the tests does not tell; on ext4, XFS and btrfs it does"
    covered = {block for one in found for block in range(one.begin // BLOCK, one.end // BLOCK)}
    assert covered == {offset // BLOCK + block for offset in (256 << 10, 768 << 10) for block in range(32)}


def test_many_extents_take_several_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_ROOM", 3)
    with (tmp_path / "file").open("wb") as stream:
        for number in range(20):
            os.pwrite(stream.fileno(), bytes([7]) * BLOCK, number * 10 * BLOCK)
        found = extents(stream.fileno(), 191 * BLOCK)
        below = extents(stream.fileno(), 50 * BLOCK)
        monkeypatch.setattr(under_test, "MOST", 10)
        assert extents(stream.fileno(), 191 * BLOCK) is None
    assert found is not None, "the file system of the tests does not tell; on ext4, XFS and btrfs it does"
    assert [one.begin for one in found] == [number * 10 * BLOCK for number in range(20)]
    assert below == found[:5]


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as stream:
        assert extents(stream.fileno(), 0) == []
