# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file and its copy: contents and holes, over whatever the copy held before, with the kernel's help and without."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import copying
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.durable import FICLONE
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.extents import Extent

KIB = 1024
# What is data, as (offset, length) in KiB; and the size in KiB.
FILES: dict[str, tuple[list[tuple[int, int]], int]] = {
    "empty": ([], 0),
    "one hole": ([], 900),
    "full": ([(0, 700)], 700),
    "data, hole": ([(0, 64)], 800),
    "hole, data": ([(512, 100)], 612),
    "many": ([(64, 4), (128, 64), (512, 8), (800, 3)], 1000),
    "odd end": ([(0, 5), (256, 1)], 257),
}


def refuse(*arguments: Any) -> int:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


KERNELS = {"helps": None, "refuses": refuse, "copies nothing": lambda *arguments: 0}


def make(path: Path, kind: str, seed: int) -> int:
    """A file with those ranges of data; a descriptor of it."""
    ranges, size = FILES[kind]
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, size * KIB)
    for offset, length in ranges:
        os.pwrite(file, random.Random(seed).randbytes(length * KIB), offset * KIB)
    return file


def copy(source: int, target: int) -> int:
    told: list[int] = []
    copied = copying.copy_data(source, target, os.fstat(source), os.fstat(target), told.append)
    assert sum(told) == copied
    return copied


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("before", FILES)
@pytest.mark.parametrize("kind", FILES)
def test_contents_and_holes(
    kind: str, before: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if KERNELS[kernel]:
        monkeypatch.setattr(os, "copy_file_range", KERNELS[kernel])
    source, target = make(tmp_path / "source", kind, 1), make(tmp_path / "target", before, 2)
    copied = copy(source, target)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()
    assert copying.same_data(source, target, lambda count: None)
    data = sum(length for offset, length in FILES[kind][0]) * KIB
    assert data <= copied <= data + 4 * 4096
    assert os.fstat(target).st_blocks * 512 <= data + 8 * 4096
    os.close(source)
    os.close(target)


def test_space_allocated_ahead_stays_out_of_the_copy(tmp_path: Path) -> None:
    source, target = make(tmp_path / "source", "empty", 1), make(tmp_path / "target", "full", 2)
    os.posix_fallocate(source, 0, 8 << 20)
    os.pwrite(source, b"head", 1 << 20)
    assert copy(source, target) < 100 * KIB
    assert os.fstat(target).st_blocks * 512 < 100 * KIB < 8 << 20 <= os.fstat(source).st_blocks * 512
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_a_file_that_is_cut_off_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK", 64 * KIB)
    source, target = make(tmp_path / "source", "full", 1), make(tmp_path / "target", "full", 2)
    about = os.fstat(source)
    copying.copy_data(source, target, about, os.fstat(target), lambda count: os.ftruncate(source, 100 * KIB))
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


def test_other_errors_are_not_taken_for_a_kernel_that_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    source, target = make(tmp_path / "source", "full", 1), make(tmp_path / "target", "empty", 2)
    with pytest.raises(OSError, match="No space left"):
        copy(source, target)


DIFFERENT = {
    "last byte": lambda file: os.pwrite(file, b"!", 1000 * KIB - 1),
    "first byte": lambda file: os.pwrite(file, b"!", 0),
    "in a hole of the other": lambda file: os.pwrite(file, b"!", 300 * KIB),
    "longer": lambda file: os.ftruncate(file, 1001 * KIB),
    "shorter": lambda file: os.ftruncate(file, 999 * KIB),
}


@pytest.mark.parametrize("case", DIFFERENT)
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_difference_is_seen(case: str, side: str, tmp_path: Path) -> None:
    files = {name: make(tmp_path / name, "many", 1) for name in ("source", "target")}
    assert copying.same_data(*files.values(), lambda count: None)
    DIFFERENT[case](files[side])
    assert not copying.same_data(*files.values(), lambda count: None)


class Asked:
    """What is asked of the file system for a clone of 5,000 bytes onto an older one of 9,000."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, told: int = 0):
        self.log: list[str] = []
        for name, size in (("source", 5000), ("target", 9000)):
            (root / name).write_bytes(b"x" * size)

        def extents(_file: int, size: int) -> list[Extent]:
            self.log.append(f"extents below {size}")
            if told:
                raise OSError(told, os.strerror(told))
            return []

        def ioctl(_target: int, number: int, given: Any) -> None:
            whole = number == FICLONE
            self.log.append("whole" if whole else "{1}, {2}".format(*struct.unpack("=qQQQ", given)))

        monkeypatch.setattr(copying, "extents", extents)
        monkeypatch.setattr(copying.fcntl, "ioctl", ioctl)
        self.root = root

    def clone(self, ranges: bool = True) -> list[str]:
        with (self.root / "source").open("rb") as source, (self.root / "target").open("r+b") as target:
            ends = source.fileno(), target.fileno()
            self.shared = copying.clone_data(*ends, *[os.fstat(file) for file in ends], ranges)
        return self.log


@pytest.mark.parametrize("told", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADR])
def test_where_the_file_system_tells_nothing_all_is_cloned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    asked = Asked(tmp_path, monkeypatch, told)
    assert (asked.clone()[-1], asked.shared) == ("whole", 5000)


@pytest.mark.parametrize("told", [errno.EIO, errno.ENOSPC])
def test_what_a_write_has_failed_with_is_not_taken_for_a_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    """It may be told only once."""
    asked = Asked(tmp_path, monkeypatch, told)
    with pytest.raises(OSError, match=os.strerror(told)):
        asked.clone()
    assert "whole" not in asked.log


def test_direct_io_under_way_is_waited_for_before_blocks_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new blocks come when it is done, and its times moved when it began; a clone of any range waits for it."""
    block = os.statvfs(tmp_path).f_bsize
    asked = Asked(tmp_path, monkeypatch)
    assert asked.clone() == [f"0, {block}", "extents below 5000", "extents below 5000"]
    assert asked.shared == 0  # nothing lies elsewhere


def test_a_file_system_that_was_not_looked_at_gets_whole_clones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Asked(tmp_path, monkeypatch).clone(ranges=False) == ["whole"]
