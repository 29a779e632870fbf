# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic has fetched is written out while it fetches the rest, and does not wait in memory for the end.

The kernel begins by itself only after half a minute or with a tenth of the memory. This is a head start and no proof:
what it misses (volumes on mounts of their own have no listing yet) is left to the flush of the whole file system, which
comes before anything is put in place.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

from ..capture.durable import begin_writing
from ..errors import StackError
from ..operation.beside import beside
from ..repository import listing
from ..repository.inside import Inside
from ..stores.plain_file import plain

_EVERY_S = 0.2
_LEAST = 1 << 20  # bytes in one piece; less may wait
_AT_ONCE = 16 << 20  # bytes; where the disk's queue is full the call waits, and at the end nobody shall wait for it
_MOST_LISTED = 4 << 20  # bytes of a listing, some 25,000 entries: reading more of them costs more than is gained
_TAIL = 64  # bytes in which the last line of a listing ends
_LOST = (errno.EIO, errno.ENOSPC, errno.EDQUOT)  # the kernel may have thrown away what it could not write
Pieces = list[tuple[int, int]]


class Writeback:
    """Goes on while the context is entered. volumes is the directory that gets a tree for each key, if not yet there.

    Holes stay untouched: restic has written zeros there, which are dug out of memory afterwards. Raises StackError on
    leaving where the disk refused what was to be written.
    """

    def __init__(self, listing_file: str, volumes: str):
        self._listing = listing_file
        self._volumes = volumes
        self._files: dict[str, list[tuple[str, Pieces]]] = {}  # by key
        self._seen: dict[tuple[str, str], int] = {}
        self._refused: StackError | None = None
        self._over = threading.Event()
        self._work: Future[None] | None = None

    def __enter__(self) -> Writeback:
        with suppress(RuntimeError):  # no thread can be had
            self._work = beside(self._run)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._work is not None and kind is None:
            self._work.result()
            if self._refused is not None:
                raise self._refused

    def _run(self) -> None:
        while not self._over.wait(_EVERY_S):
            with suppress(Exception):  # whatever is odd in there is for the comparison with the listing to say
                self._round()

    def _round(self) -> None:
        if not self._files:
            if not _is_whole(self._listing):
                return
            self._files = {key: list(_large(self._listing, key, self._over)) for key in os.listdir(self._volumes)}
        for key, files in self._files.items():
            with Inside(os.path.join(self._volumes, key)) as tree:
                for path, pieces in files:
                    if self._over.is_set():
                        return
                    with suppress(OSError):
                        self._begin(tree, key, path, pieces)

    def _begin(self, tree: Inside, key: str, path: str, pieces: Pieces) -> None:
        about = os.lstat(tree.place(path))
        if not stat.S_ISREG(about.st_mode) or self._seen.get((key, path)) == about.st_mtime_ns:
            return
        handle = tree.open(path)
        try:
            for offset, length in pieces:
                for at in range(offset, offset + length, _AT_ONCE):
                    if self._over.is_set():
                        return
                    begin_writing(handle, at, min(_AT_ONCE, offset + length - at))
        except OSError as error:
            if error.errno in _LOST:
                self._refused = StackError(
                    f"What was fetched of {key} cannot be written out ({listing.show(path)}: {error.strerror}); check "
                    "its disk, or make room. Nothing was put in place."
                )
            raise
        finally:
            os.close(handle)
        self._seen[key, path] = about.st_mtime_ns


def _is_whole(file: str) -> bool:
    """Whether a listing has come to its end; raises OSError where there is none yet."""
    with open(file, "rb", opener=plain) as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - _TAIL))
        _lines, begin, rest = stream.read(_TAIL).rpartition(b'\n{"entries"')
        return size <= _MOST_LISTED and bool(begin) and rest.endswith(b"}\n")


def _large(file: str, key: str, over: threading.Event) -> Iterator[tuple[str, Pieces]]:
    """(path, pieces of data) of each file that has such; raises StackError where the middle has not come yet."""
    for entry in listing.read(file, key):
        if over.is_set():
            return
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
