# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One pass over a tree: what may have changed is read again, all else is left alone."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ..errors import StackError
from .copying import clone_data, copy_data, copy_metadata, copy_special, same_data
from .durable import Flush, write_out
from .index import Directory, Signature, signature
from .tree import Place, open_directory, open_file, opened, shown

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # ELOOP: a link by now; ENXIO: a socket
_TIMES = {"st_size": "size", "st_mtime_ns": "mtime", "st_ctime_ns": "ctime"}


@dataclass
class PassReport:
    """files and bytes_total: what the tree holds (apparent bytes); bytes_read: data read, holes left out.

    bytes_shared: data that nobody read, as its blocks became the copy's too.
    """

    files: int = 0
    files_read: int = 0
    bytes_read: int = 0
    bytes_shared: int = 0
    bytes_total: int = 0
    files_removed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Rules:
    """How a pass goes. frozen: nothing may vanish or change; deadline: a time.monotonic() at which it gives up.

    clone shares blocks, and with ranges only those that are not shared yet. compare: also what the signatures would
    skip is compared. flush: the last one, if any. trash: a directory on the copy's file system that takes what is
    removed, since freeing large files takes long.
    """

    source: str
    device: int
    clone: bool
    ranges: bool
    compare: bool
    frozen: bool
    flush: Flush | None
    deadline: float
    trash: str
    excluded: frozenset[str]
    on_bytes: Callable[[int], None] | None


class _VanishedError(Exception):
    """What the scan saw is no longer there, or is something else by now."""


class Pass:
    """One pass, which keeps known true at every moment: what is about to change is not vouched for."""

    def __init__(self, rules: Rules):
        self.report = PassReport()
        self._rules = rules
        self._links: dict[int, str] = {}

    def run(self, top: Place, known: Directory) -> None:
        """Bring the copy at top, of which known is known, up to date. Raises StackError; OSError for the root."""
        with opened(open_directory(self._rules.source)) as source:
            self._directory(source, os.fstat(source), top, known, "")

    def settle(self, top: Place, known: Directory) -> None:
        """Vouch for files that had just changed when they were read, and whose copies are right: these are left alone.

        The repository would read again what was written again, even if it is the same. Raises as run() does.
        """
        with opened(open_directory(self._rules.source)) as source:
            self._settle(source, top, known, "")

    def _settle(self, source: int, place: Place, known: Directory, path: str) -> None:
        for name, was in list(known.read.items()):
            with suppress(FileNotFoundError, _VanishedError):
                found = os.lstat(name, dir_fd=source)
                if signature(found) == was and self._vouch(found):
                    self._attempt(self._compare, source, place, known, name, found, f"{path}{name}")
        for name, child in known.children.items():
            if not child.has_read():
                continue
            try:
                descriptor = open_directory(name, source)
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            with opened(descriptor):
                below = Place(name, place)
                try:
                    self._settle(descriptor, below, child, f"{path}{name}/")
                finally:
                    below.close()

    def _compare(
        self, source: int, place: Place, known: Directory, name: str, found: os.stat_result, path: str
    ) -> None:
        """One file of settle(), whose times are old enough by now."""
        try:
            copy = open_file(name, place.descriptor)
        except OSError:  # the pass makes it again
            return
        with opened(copy) as theirs, opened(_open_source(name, source)) as ours:
            if not stat.S_ISREG(os.fstat(ours).st_mode):
                return
            self._write_out(ours)
            if os.fstat(theirs).st_nlink == 1 and same_data(ours, theirs, self._tell):
                copy_metadata(ours, theirs, found)
                known.entries[name] = signature(found)
                del known.read[name]

    def _write_out(self, ours: int) -> None:
        """Before a file is read, where the flush is one of each file."""
        if self._rules.flush and self._rules.flush.each and not self._rules.frozen:
            write_out(ours)

    def _directory(self, source: int, about: os.stat_result, place: Place, known: Directory, path: str) -> None:
        """Everything in a directory, then its own metadata, which changes with what is in it."""
        entries, compare = known.entries, self._rules.compare
        excluded = frozenset[str]() if path else self._rules.excluded
        inside, changed, seen = [], [], set()
        files = size = 0
        with os.scandir(source) as listing:
            for entry in listing:
                name = entry.name
                if name in excluded:
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    self._vanished(f"{path}{name}")
                    continue
                seen.add(name)
                if stat.S_ISDIR(found.st_mode):  # not entry.is_dir(): that may be of what had the name before
                    inside.append((name, found))
                    continue
                files += 1
                size += found.st_size
                if (
                    entries.get(name) != (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                    or found.st_nlink > 1
                    or compare
                ):
                    changed.append((name, found))
        self.report.files += files
        self.report.bytes_total += size
        for name in entries.keys() - seen:
            self._drop(name, place, known)
            self.report.files_removed += 1
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
        self._in_time()
        try:
            action(source, place, known, name, found, path)
        except _VanishedError:
            self._vanished(path)
            self._drop(name, place, known)
        except OSError as error:
            copy = shown(place.path(name))
            raise StackError(
                f"{shown(path)} in {self._rules.source} could not be copied to {copy}: {error.strerror}."
            ) from None

    def _vanished(self, path: str) -> None:
        if self._rules.frozen:
            raise StackError(
                f"{shown(path)} in {self._rules.source} vanished while it was read: "
                "something writes that was not paused."
            )

    def _subdirectory(
        self, source: int, place: Place, known: Directory, name: str, found: os.stat_result, path: str
    ) -> None:
        if found.st_dev != self._rules.device:
            raise mounted(os.path.join(self._rules.source, path))
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
            known.entries[name] = self._vouch(found) if self._is_flushed() else None
            return
        if known.entries.get(name) != signature(found) or (
            self._rules.compare and stat.S_ISREG(found.st_mode) and not self._equal(source, place, name)
        ):
            self.report.files_read += 1
            if stat.S_ISREG(found.st_mode):
                found = self._regular(source, place, known, name, path)
            else:
                self._special(source, place, known, name, found)
            known.entries[name] = self._vouch(found) if self._is_flushed() else None
            known.read.pop(name, None)
            if known.entries[name] is None and stat.S_ISREG(found.st_mode):
                known.read[name] = signature(found)
        if linked:
            self._links[found.st_ino] = place.path(name)

    def _special(self, source: int, place: Place, known: Directory, name: str, found: os.stat_result) -> None:
        self._drop(name, place, known)
        _add(name, place, known)
        try:
            copy_special(source, place.descriptor, name, found)
        except OSError:
            if not _is_still(
                found, name, source
            ):  # a link that is a file by now cannot be read, nor a pipe have its attributes
                raise _VanishedError from None
            raise

    def _regular(self, source: int, place: Place, known: Directory, name: str, path: str) -> os.stat_result:
        """Copy a file; returns its stat result from before it was read."""
        with opened(_open_source(name, source)) as ours:
            about = os.fstat(ours)
            if not stat.S_ISREG(about.st_mode):
                raise _VanishedError
            self._write_out(ours)
            with opened(self._open_target(place, known, name)) as theirs:
                if self._rules.clone:
                    self.report.bytes_shared += clone_data(ours, theirs, about, os.fstat(theirs), self._rules.ranges)
                else:
                    self.report.bytes_read += copy_data(ours, theirs, about, os.fstat(theirs), self._tell)
                copy_metadata(ours, theirs, about)
            after = os.fstat(ours)
        if self._rules.frozen and signature(after) != signature(about):
            moved = ", ".join(word for part, word in _TIMES.items() if getattr(after, part) != getattr(about, part))
            raise StackError(
                f"{shown(path)} in {self._rules.source} changed while it was read ({moved}): "
                "something writes that was not paused."
            )
        return about

    def _open_target(self, place: Place, known: Directory, name: str) -> int:
        """The copy's file, open for writing: the one that is there if it has no other name, else a new one.

        Writing over the old blocks is several times faster than making a new file or emptying the old one first.
        """
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
        if name in known.entries:
            _add(name, place, known)
            known.children.pop(name, None)
            place.clear(name, self._rules.trash)
            del known.entries[name]
            known.read.pop(name, None)

    def _vouch(self, about: os.stat_result) -> Signature | None:
        flush = self._rules.flush
        return signature(about) if flush and flush.covers(about) else None

    def _is_flushed(self) -> bool:
        """Whether what has just been read was flushed before: not where each file has to be, and the window is open."""
        return not (self._rules.frozen and self._rules.flush and self._rules.flush.each)

    def _in_time(self) -> None:
        if time.monotonic() > self._rules.deadline:
            raise StackError(
                f"The copy of {self._rules.source} takes longer than it may while frozen: choose another way."
            )

    def _tell(self, count: int) -> None:
        self._in_time()
        if self._rules.on_bytes is not None:
            self._rules.on_bytes(count)


def mounted(point: str) -> StackError:
    """What is raised where another file system begins inside the tree."""
    return StackError(
        f"Another file system is mounted at {shown(point)}, inside the volume: unmount it or back it up by itself."
    )


def _add(name: str, place: Place, known: Directory) -> None:
    """An entry of the copy is about to be made or removed: neither it nor its directory is vouched for any longer."""
    place.touched = True
    known.own = known.entries[name] = None


def _is_still(found: os.stat_result, name: str, directory: int) -> bool:
    """Whether the name is what it was: the same inode, of the same type."""
    try:
        now = os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return os.path.samestat(now, found) and stat.S_IFMT(now.st_mode) == stat.S_IFMT(found.st_mode)


def _open_source(name: str, directory: int) -> int:
    try:
        return open_file(name, directory)
    except OSError as error:
        if error.errno in _GONE:
            raise _VanishedError from None
        raise
