# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where an open file and an older clone of it lie on other blocks of their file system, so that only that is cloned.

Whoever writes to a block that a clone shares gets another one, so blocks that are the same hold the same bytes. What
is cloned leaves the page cache: a clone of all would have to be read from the disk again by whoever reads it next.
"""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

TELLING = ("xfs", "btrfs")
"""File systems where blocks with one address hold the same bytes. CIFS clones as well, and tells its offsets twice."""

_FIEMAP = 0xC020660B  # linux/fs.h
_HEADER = struct.Struct("=QQIIII")  # start, length, flags, mapped extents, room for extents, reserved: linux/fiemap.h
_EXTENT = struct.Struct("=QQQ16xI12x")  # logical, physical, length (bytes), flags
_ROOM = 1024
_SYNC = 0x1
_LAST, _UNWRITTEN = 0x1, 0x800
_HARMLESS = _LAST | _UNWRITTEN | 0x1000 | 0x2000  # FIEMAP_EXTENT_MERGED, FIEMAP_EXTENT_SHARED
MOST = 200_000  # extents of a file, some 40 MB here; a whole clone needs none
NEAR = 1 << 20  # bytes: ranges that are nearer to each other than this are one; each costs some 0.05 ms


class Extent(NamedTuple):
    """A range of a file in bytes, and how far away it lies on the disk."""

    begin: int
    end: int
    away: int


Range = tuple[int, int]


def extents(file: int, size: int) -> list[Extent] | None:
    """Where the data of an open file below size (bytes) lies once it is written out; None where that tells nothing of
    its contents, or is too much.

    Holes and what is allocated and not written are left out: both are zeros. Raises OSError where the file system does
    not tell.
    """
    found: list[Extent] = []
    begin, flags = 0, _SYNC
    buffer = bytearray(_HEADER.size + _ROOM * _EXTENT.size)
    while begin < size:
        _HEADER.pack_into(buffer, 0, begin, size - begin, flags, 0, _ROOM, 0)
        fcntl.ioctl(file, _FIEMAP, buffer, True)
        count, flags = _HEADER.unpack_from(buffer)[3], 0
        for number in range(count):
            logical, physical, length, flag = _EXTENT.unpack_from(buffer, _HEADER.size + number * _EXTENT.size)
            if flag & ~_HARMLESS:  # compressed, inline, or not on the disk yet
                return None
            begin = logical + length
            if not flag & _UNWRITTEN:
                found.append(Extent(logical, begin, physical - logical))
            if flag & _LAST:
                return found
        if not count:
            break
        if len(found) > MOST:
            return None
    return found


def differing(ours: Sequence[Extent], theirs: Sequence[Extent], size: int) -> list[Range]:
    """The ranges below size in which two files do not lie on the same blocks, with what is NEAR between them."""
    found: list[Range] = []
    bounds = sorted({0, size, *(bound for one in (*ours, *theirs) for bound in one[:2] if bound < size)})
    for (begin, end), our, their in zip(zip(bounds, bounds[1:]), _at(ours, bounds), _at(theirs, bounds)):
        if our == their:
            continue
        if found and begin - found[-1][1] < NEAR:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def _at(extents_of: Sequence[Extent], bounds: Sequence[int]) -> Iterator[int | None]:
    """For each range between two bounds how far away it lies, None for a hole."""
    rest = iter(extents_of)
    one = next(rest, None)
    for begin in bounds[:-1]:
        while one is not None and one.end <= begin:
            one = next(rest, None)
        yield one.away if one is not None and one.begin <= begin else None
