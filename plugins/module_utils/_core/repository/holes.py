# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Holes of files: where they are when a file is captured, and again in its restored copy.

restic writes zeros where a hole was (before 0.15). Where the listing tells the holes they are dug right there, which
reads only them; a file with very many is looked through as a whole.
"""

from __future__ import annotations

import os
import stat
import subprocess

from ..capture.copying import dig, next_data
from .inside import Inside, changed
from .listing import Entry

_DIG_FROM = 65536  # bytes; less is not worth it, and file systems count differently
_AT_ONCE = 4  # files that are looked through
_CHUNK = 1 << 20
_NOTHING = bytes(_CHUNK)


class NotZeroError(Exception):
    """Where the listing has a hole the restored file has data."""


class Digging:
    """Makes holes in files that had some. On leaving all is done; the files in later want their metadata once more."""

    def __init__(self, tree: Inside):
        self._tree = tree
        self._running: list[tuple[subprocess.Popen[bytes], int]] = []
        self.later: list[Entry] = []

    def __enter__(self) -> Digging:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._running:
            self._end_first()

    def begin(self, entry: Entry) -> bool:
        """Whether the file needs it; raises OSError, and NotZeroError where nothing may be dug."""
        about = os.lstat(self._tree.place(entry.path))
        few = about.st_blocks * 512 <= entry.allocated + _DIG_FROM
        if entry.allocated < 0 or not stat.S_ISREG(about.st_mode) or few:
            return False
        handle = self._tree.open(entry.path, os.O_RDWR)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise changed(entry.path)
            if entry.holes:
                _dig_known(handle, entry)
            else:
                self._look_through(handle, entry)
                handle = -1
        finally:
            if handle >= 0:
                os.close(handle)
        return True

    def _look_through(self, handle: int, entry: Entry) -> None:
        """Takes the handle over."""
        if len(self._running) >= _AT_ONCE:
            self._end_first()
        command = ["fallocate", "--dig-holes", "--", f"/proc/self/fd/{handle}"]
        nothing = subprocess.DEVNULL
        started = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, pass_fds=[handle])
        self._running.append((started, handle))
        self.later.append(entry)

    def _end_first(self) -> None:
        started, handle = self._running.pop(0)
        started.wait()
        os.close(handle)


def _dig_known(handle: int, entry: Entry) -> None:
    size = os.fstat(handle).st_size
    for begin, length in entry.holes:
        end = min(begin + length, size)
        if not _is_zero(handle, begin, end):
            raise NotZeroError
        if begin < end:
            dig(handle, begin, end - begin)


def _is_zero(handle: int, begin: int, end: int) -> bool:
    """Whether nothing but zeros is read there; what is a hole already is not read."""
    buffer = bytearray(_CHUNK)
    while begin < end:
        begin, data_end = next_data(handle, begin, end)
        while begin < data_end:
            count = os.preadv(handle, [memoryview(buffer)[: min(_CHUNK, data_end - begin)]], begin)
            if not count or buffer[:count] != _NOTHING[:count]:
                return False
            begin += count
    return True
