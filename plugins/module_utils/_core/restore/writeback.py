# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic has fetched is written out while it fetches the rest, and does not wait in memory for the end.

The kernel begins by itself only after half a minute or with a tenth of the memory. This is a head start and no proof:
what it misses (volumes on mounts of their own have no listing yet), and what fails, is left to the flush of the whole
file system, which comes before anything is put in place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

from ..capture.durable import begin_writing
from ..errors import StackError
from ..operation.beside import beside
from ..repository import listing
from ..repository.inside import Inside

_EVERY_S = 0.2
_LEAST = 1 << 20  # bytes in one piece; less may wait
_MOST_LISTED = 4 << 20  # bytes of a listing, some 25,000 entries: reading more of them costs more than is gained
_TAIL = 64  # bytes in which the last line of a listing ends
Pieces = list[tuple[int, int]]


class Writeback:
    """Goes on while the context is entered. volumes: the directory of the trees of keys; none need be there yet.

    Holes stay untouched: restic has written zeros there, which are dug out of memory afterwards.
    """

    def __init__(self, listing: str, volumes: str, keys: Sequence[str]):
        self._listing = listing
        self._roots = {key: os.path.join(volumes, key) for key in keys}
        self._files: dict[str, list[tuple[str, Pieces]]] = {}  # by key
        self._seen: dict[tuple[str, str], int] = {}
        self._over = threading.Event()
        self._work: Future[None] | None = None

    def __enter__(self) -> Writeback:
        self._work = beside(self._run)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._work is not None and kind is None:
            self._work.result()

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            for key in self._roots:
                with suppress(OSError, StackError):
                    self._round(key)

    def _round(self, key: str) -> None:
        if key not in self._files:
            if not _is_whole(self._listing):
                return
            self._files[key] = list(_large(self._listing, key))
        with Inside(self._roots[key]) as tree:
            for path, pieces in self._files[key]:
                with suppress(OSError):
                    self._begin(tree, key, path, pieces)

    def _begin(self, tree: Inside, key: str, path: str, pieces: Pieces) -> None:
        written = os.lstat(tree.place(path)).st_mtime_ns
        if self._over.is_set() or self._seen.get((key, path)) == written:
            return
        handle = tree.open(path)
        try:
            for offset, length in pieces:
                begin_writing(handle, offset, length)
        finally:
            os.close(handle)
        self._seen[key, path] = written


def _is_whole(file: str) -> bool:
    """Whether a listing has come to its end; raises OSError where there is none yet."""
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - _TAIL))
        return size <= _MOST_LISTED and stream.read().rpartition(b'\n{"entries"')[2].endswith(b"}\n")


def _large(file: str, key: str) -> Iterator[tuple[str, Pieces]]:
    """(path, pieces of data) of each file that has such; raises StackError where the middle has not come yet."""
    for entry in listing.read(file, key):
        if entry.kind == "file" and (entry.allocated < 0 or entry.holes):
            pieces = [(offset, length) for offset, length in data_pieces(entry) if length >= _LEAST]
            if pieces:
                yield entry.path, pieces


def data_pieces(entry: listing.Entry) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of what lies between the holes of a file, which are known."""
    at = 0
    for offset, length in [*entry.holes, (entry.size, 0)]:
        if offset > at:
            yield at, offset - at
        at = offset + length
