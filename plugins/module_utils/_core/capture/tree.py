# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory tree by descriptors: opened without following links, removed, and compared with its copy."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from .copying import attributes, same_data

AS_ROOT = os.geteuid() == 0
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOATIME if AS_ROOT else 0)


def shown(path: str) -> str:
    """A path as one line of text, whatever bytes are in it."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def open_file(name: str, directory: int) -> int:
    """Open a file of a directory for reading, without following a link or waiting for a pipe."""
    return os.open(name, _READ, dir_fd=directory)


def open_directory(name: str, directory: int | None = None) -> int:
    """Open a directory of a directory (or by path) for reading, without following a link."""
    return os.open(name, _READ | os.O_DIRECTORY, dir_fd=directory)


@contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Place:
    """A directory of the copy, opened only when something in it has to change."""

    __slots__ = ("_descriptor", "name", "parent", "touched")

    def __init__(self, name: str, parent: Place | None = None):
        self.name = name
        self.parent = parent
        self.touched = False
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        if self._descriptor < 0:
            above = None if self.parent is None else self.parent.descriptor
            self._descriptor = open_directory(self.name, above)
        return self._descriptor

    def path(self, name: str) -> str:
        """The path of an entry, from the copy's root path on."""
        place: Place | None = self
        parts = [name]
        while place is not None:
            parts.append(place.name)
            place = place.parent
        return "/".join(reversed(parts))

    def clear(self, name: str, trash: str = "") -> None:
        """Remove an entry, whatever it is, with all that is in it; into the directory trash where that can be had."""
        with suppress(FileNotFoundError):
            if trash:
                with suppress(OSError):
                    os.rename(name, f"{trash}/{time.monotonic_ns()}", src_dir_fd=self.descriptor)
                    return
            remove(name, self.descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def remove(name: str, directory: int) -> None:
    """Remove an entry of a directory, with all that is in it; never follows a link."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    with opened(open_directory(name, directory)) as inside:
        for entry in os.listdir(inside):
            remove(entry, inside)
    os.rmdir(name, dir_fd=directory)


def differences(source: str, target: str, excluded: Sequence[str] = ()) -> list[str]:
    """The relative paths at which two trees differ that nobody writes to: in entries, contents, metadata, links."""
    found: list[str] = []
    links: dict[tuple[str, int], int] = {}
    with opened(open_directory(source)) as first, opened(open_directory(target)) as second:
        _compare(first, second, "", frozenset(excluded), found, links)
    return found


def _compare(
    source: int, target: int, path: str, excluded: frozenset[str], found: list[str], links: dict[tuple[str, int], int]
) -> None:
    if _facts(os.fstat(source)) != _facts(os.fstat(target)) or attributes(source) != attributes(target):
        found.append(path or ".")
    ours, theirs = set(os.listdir(source)) - excluded, set(os.listdir(target))
    found += [os.path.join(path, name) for name in sorted(ours ^ theirs)]
    for name in sorted(ours & theirs):
        here = os.path.join(path, name)
        one, two = os.lstat(name, dir_fd=source), os.lstat(name, dir_fd=target)
        if stat.S_IFMT(one.st_mode) != stat.S_IFMT(two.st_mode):
            found.append(here)
        elif stat.S_ISDIR(one.st_mode):
            with opened(open_directory(name, source)) as first, opened(open_directory(name, target)) as second:
                _compare(first, second, here, frozenset(), found, links)
        elif not _partners(links, one, two) or not _same(source, target, name, one, two):
            found.append(here)


def _partners(links: dict[tuple[str, int], int], one: os.stat_result, two: os.stat_result) -> bool:
    """Whether the names of one file are those of one file in the copy; names outside of the tree do not count."""
    pairs = (("source", one.st_ino, two.st_ino), ("target", two.st_ino, one.st_ino))
    return all(links.setdefault((side, inode), partner) == partner for side, inode, partner in pairs)


def _facts(about: os.stat_result) -> tuple[int, ...]:
    return (about.st_mode, about.st_uid, about.st_gid, about.st_mtime_ns)


def _same(source: int, target: int, name: str, one: os.stat_result, two: os.stat_result) -> bool:
    if _facts(one) != _facts(two) or one.st_rdev != two.st_rdev:
        return False
    if stat.S_ISREG(one.st_mode):
        with opened(open_file(name, source)) as first, opened(open_file(name, target)) as second:
            return attributes(first) == attributes(second) and same_data(first, second, lambda count: None)
    if stat.S_ISLNK(one.st_mode) and os.readlink(name, dir_fd=source) != os.readlink(name, dir_fd=target):
        return False
    return attributes(f"/proc/self/fd/{source}/{name}") == attributes(f"/proc/self/fd/{target}/{name}")
