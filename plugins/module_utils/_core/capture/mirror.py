# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory tree and its copy: made while the tree lives, made exact while it is frozen.

The rule: an entry may be skipped only if its inode, size, mtime and ctime are those of when it was last read, AND both
times are older (2 s) than the start of a flush that was complete before it was read. A store through a shared mmap to a
page that is dirty already moves no time; the flush makes pages clean, so that any later store moves them.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..errors import StackError
from ..filesystem import MountTable, real_path
from ..sizes import measure
from . import index
from .copying import clone_data, copy_data, copy_metadata, copy_special, same_data
from .durable import KNOWN, Flush
from .index import Directory, Signature, signature
from .tree import Place, differences, open_directory, open_file, opened, shown

_MEASURE_S = 600.0
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # ELOOP: a link by now; ENXIO: a socket
_FILE_TIMES = ("st_size", "st_mtime_ns", "st_ctime_ns")


@dataclass
class PassReport:
    """files and bytes_total: what the tree holds (apparent bytes); bytes_read: data read, holes left out."""

    files: int = 0
    files_read: int = 0
    bytes_read: int = 0
    bytes_total: int = 0
    files_removed: int = 0
    seconds: float = 0.0


class _VanishedError(Exception):
    """What the scan saw is no longer there, or is something else by now."""


class Mirror:
    """source is copied to target (made if it is missing); index_file keeps what is known from one run to the next.

    clone shares blocks instead of copying (FICLONE); compare reads in the frozen pass also what the rule would skip, as
    does a source on a file system for which the rule is not known to hold. excluded are names in the source's own
    directory that are left out. on_bytes gets the bytes of each step of copying.
    """

    def __init__(
        self,
        source: str,
        target: str,
        index_file: str,
        *,
        clone: bool = False,
        compare: bool = False,
        excluded: Sequence[str] = (),
        on_bytes: Callable[[int], None] | None = None,
    ):
        self._mounts = MountTable.read()
        self.source = real_path(os.path.abspath(source), self._mounts)
        self.target = target
        self._index_file = index_file
        self._clone = clone
        self._compare = compare or self._mounts.of(self.source).type not in KNOWN
        self._excluded = frozenset(excluded)
        self._on_bytes = on_bytes
        self._root: Directory | None = None
        self._flush: Flush | None = None
        self._device = -1
        self._links: dict[int, str] = {}
        self._report = PassReport()
        self._frozen = False
        self._deadline = float("inf")

    def flush(self) -> None:
        """Load the index, look through the copy, and write the source's dirty pages out: the work before a freeze.

        Raises StackError for a source that is no directory or has something mounted inside.
        """
        self._prepare()
        self._flush = Flush(self.source)

    def live_pass(self) -> PassReport:
        """Flush, then copy what may have changed while others write; what vanishes or changes is left to later.

        Raises StackError naming a file that cannot be read or written for another reason.
        """
        self.flush()
        return self._pass(frozen=False, budget=None)

    def frozen_pass(self, budget: float | None = None) -> PassReport:
        """Make the copy exact, while nothing writes to the source. budget: seconds after which it gives up.

        Raises StackError naming a file that could not be read, or that changed while it was read.
        """
        self._prepare()
        return self._pass(frozen=True, budget=budget)

    def verify(self) -> list[str]:
        """The relative paths at which copy and source differ in any byte or metadata; only while nothing writes."""
        return differences(self.source, self.target, tuple(self._excluded))

    def save(self) -> None:
        """Write the index, outside of the freeze; true as well after a pass that failed."""
        if self._root is not None:
            index.save(self._index_file, index.Bond.of(self.source, self.target), self._root, time.time_ns())

    def _prepare(self) -> None:
        if self._root is not None:
            return
        try:
            self._device = os.stat(self.source, follow_symlinks=False).st_dev
            for point in self._mounts.below(self.source):
                if os.path.relpath(point, self.source).split("/")[0] not in self._excluded:
                    raise _mounted(point)
            os.makedirs(self.target, mode=0o700, exist_ok=True)
            self._root = index.load(self._index_file, index.Bond.of(self.source, self.target), self.target)
            # From here on the copy changes: until save(), no index may vouch for it, whatever happens to us.
            with suppress(FileNotFoundError):
                os.unlink(self._index_file)
        except OSError as error:
            raise self._cannot(error, error.filename or self.source) from None

    def _pass(self, frozen: bool, budget: float | None) -> PassReport:
        begun = time.monotonic()
        assert self._root is not None
        self._frozen, self._links, self._report = frozen, {}, PassReport()
        self._deadline = float("inf") if budget is None else begun + budget
        top = Place(self.target)
        try:
            with opened(open_directory(self.source)) as source:
                self._directory(source, os.fstat(source), top, self._root, "")
        except OSError as error:
            raise self._cannot(error, self.source) from None
        except RecursionError:
            raise StackError(f"{self.source} holds directories that are nested too deeply to be copied.") from None
        finally:
            top.close()
        self._report.seconds = time.monotonic() - begun
        return self._report

    def _directory(self, source: int, about: os.stat_result, place: Place, known: Directory, path: str) -> None:
        """Everything in a directory, then its own metadata, which changes with what is in it."""
        inside, changed, seen = [], [], set()
        entries, report, compare = known.entries, self._report, self._compare and self._frozen
        excluded = frozenset[str]() if path else self._excluded
        with os.scandir(source) as listing:
            for entry in listing:
                name = entry.name
                if name in excluded:
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    if self._frozen:
                        raise
                    continue
                seen.add(name)
                if entry.is_dir(follow_symlinks=False):
                    inside.append((name, found))
                    continue
                report.files += 1
                report.bytes_total += found.st_size
                if (
                    entries.get(name) != (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                    or found.st_nlink > 1
                    or compare
                ):
                    changed.append((name, found))
        for name in entries.keys() - seen:
            self._drop(name, place, known)
            report.files_removed += 1
        for name, found in changed:
            self._attempt(self._entry, source, place, known, name, found, f"{path}{name}")
        for name, found in inside:
            self._attempt(self._subdirectory, source, place, known, name, found, f"{path}{name}")
        if place.touched or known.own != signature(about):
            known.own = None
            copy_metadata(source, place.descriptor, about)
            known.own = self._vouch(about)

    def _attempt(
        self,
        action: Callable[[int, Place, Directory, str, os.stat_result, str], None],
        source: int,
        place: Place,
        known: Directory,
        name: str,
        found: os.stat_result,
        path: str,
    ) -> None:
        try:
            self._in_time()
            action(source, place, known, name, found, path)
        except _VanishedError:
            if self._frozen:
                raise StackError(
                    f"{shown(path)} in {self.source} vanished while it was read: something writes that was not paused."
                ) from None
            self._drop(name, place, known)
        except OSError as error:
            raise self._cannot(error, path) from None

    def _subdirectory(
        self, source: int, place: Place, known: Directory, name: str, found: os.stat_result, path: str
    ) -> None:
        if found.st_dev != self._device:
            raise _mounted(os.path.join(self.source, path))
        try:
            descriptor = open_directory(name, source)
        except OSError as error:
            if error.errno in _GONE:
                raise _VanishedError from None
            raise
        with opened(descriptor):
            child = known.children.get(name)
            if child is None:
                self._drop(name, place, known)
                _add(name, place, known)
                os.mkdir(name, 0o700, dir_fd=place.descriptor)
                known.children[name] = child = Directory()
            below = Place(name, place)
            try:
                self._directory(descriptor, os.fstat(descriptor), below, child, f"{path}/")
            finally:
                below.close()

    def _entry(self, source: int, place: Place, known: Directory, name: str, found: os.stat_result, path: str) -> None:
        """An entry that is no directory, and that is new, may have changed, or has several names."""
        linked = found.st_nlink > 1
        if linked and self._link(self._links.get(found.st_ino), place, known, name):
            known.entries[name] = self._vouch(found)
            return
        if known.entries.get(name) != signature(found) or (
            self._compare and self._frozen and stat.S_ISREG(found.st_mode) and not self._equal(source, place, name)
        ):
            known.entries[name] = self._read(source, place, known, name, found, path)
        if linked:
            self._links[found.st_ino] = place.path(name)

    def _read(
        self, source: int, place: Place, known: Directory, name: str, found: os.stat_result, path: str
    ) -> Signature | None:
        self._report.files_read += 1
        if stat.S_ISREG(found.st_mode):
            return self._vouch(self._regular(source, place, known, name, path))
        self._drop(name, place, known)
        _add(name, place, known)
        try:
            copy_special(source, place.descriptor, name, found)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # EINVAL: no symbolic link any more
                raise _VanishedError from None
            raise
        return self._vouch(found)

    def _regular(self, source: int, place: Place, known: Directory, name: str, path: str) -> os.stat_result:
        with opened(_open_source(name, source)) as ours:
            about = os.fstat(ours)
            if not stat.S_ISREG(about.st_mode):
                raise _VanishedError
            with opened(self._open_target(place, known, name)) as theirs:
                old = os.fstat(theirs)
                if self._clone:
                    clone_data(ours, theirs, about, old)
                else:
                    self._report.bytes_read += copy_data(ours, theirs, about, old, self._tell)
                copy_metadata(ours, theirs, about)
            after = os.fstat(ours)
        if self._frozen and signature(after) != signature(about):
            changes = ", ".join(part[3:] for part in _FILE_TIMES if getattr(after, part) != getattr(about, part))
            raise StackError(
                f"{shown(path)} in {self.source} changed while it was read ({changes}): "
                "something writes that was not paused."
            )
        return about

    def _open_target(self, place: Place, known: Directory, name: str) -> int:
        """The copy's file, open for writing: the one that is there if it has no other name, else a new one."""
        if name in known.entries:
            known.entries[name] = None
            about = None
            with suppress(FileNotFoundError):
                about = os.lstat(name, dir_fd=place.descriptor)
            if about and stat.S_ISREG(about.st_mode) and about.st_nlink == 1:
                with suppress(PermissionError):
                    return os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.descriptor)
            self._drop(name, place, known)
        _add(name, place, known)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=place.descriptor)

    def _link(self, first: str | None, place: Place, known: Directory, name: str) -> bool:
        """Make the copy's entry another name of the file at first; False where there is none yet."""
        if first is None:
            return False
        try:
            wanted = os.lstat(first)
        except FileNotFoundError:
            return False
        if name in known.entries:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(name, dir_fd=place.descriptor), wanted):
                    return True
            self._drop(name, place, known)
        _add(name, place, known)
        os.link(first, name, dst_dir_fd=place.descriptor, follow_symlinks=False)
        return True

    def _equal(self, source: int, place: Place, name: str) -> bool:
        with opened(_open_source(name, source)) as ours, opened(open_file(name, place.descriptor)) as theirs:
            return same_data(ours, theirs, self._tell)

    def _drop(self, name: str, place: Place, known: Directory) -> None:
        """Remove an entry from the copy, and all that is known about it."""
        if name not in known.entries:
            return
        _add(name, place, known)
        known.children.pop(name, None)
        place.clear(name)
        del known.entries[name]

    def _vouch(self, about: os.stat_result) -> Signature | None:
        return signature(about) if self._flush and self._flush.covers(about) else None

    def _in_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise StackError(f"The copy of {self.source} takes longer than it may while frozen: choose another way.")

    def _tell(self, count: int) -> None:
        self._in_time()
        if self._on_bytes is not None:
            self._on_bytes(count)

    def _cannot(self, error: OSError, path: str) -> StackError:
        where = shown(path) if path == self.source else f"{shown(path)} in {self.source}"
        return StackError(f"{where} could not be copied to {self.target}: {error.strerror}. Nothing was backed up.")


def needed(source: str) -> tuple[int, int]:
    """(allocated bytes, apparent bytes) of the tree: what its copy takes on disk, and would without holes."""
    size = measure(source, time.monotonic() + _MEASURE_S)
    return size.allocated_bytes, size.bytes


def _open_source(name: str, directory: int) -> int:
    try:
        return open_file(name, directory)
    except OSError as error:
        if error.errno in _GONE:
            raise _VanishedError from None
        raise


def _add(name: str, place: Place, known: Directory) -> None:
    """An entry of the copy is about to be made or changed: neither it nor its directory is vouched for any longer."""
    place.touched = True
    known.own = known.entries[name] = None


def _mounted(point: str) -> StackError:
    return StackError(
        f"Another file system is mounted at {shown(point)}, inside the volume: unmount it or back it up by itself."
    )
