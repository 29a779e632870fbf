# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the copy is known to hold: the source's inode, size and times of each entry as it was last read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, Optional

from .tree import open_directory, opened

FORMAT = 2
BOOT_ID = "/proc/sys/kernel/random/boot_id"

Signature = tuple[int, int, int, int]  # inode, size in bytes, mtime and ctime in ns, all of the source


def signature(about: os.stat_result) -> Signature:
    return (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


class Directory:
    """A directory of the copy: a signature for what is vouched for, None for what is there but has to be read again.

    read: signatures of the files that were read and are not vouched for, since they had just changed.
    """

    __slots__ = ("children", "entries", "own", "read")

    def __init__(self, own: Signature | None = None) -> None:
        self.own = own
        self.entries: dict[str, Signature | None] = {}
        self.read: dict[str, Signature] = {}
        self.children: dict[str, Directory] = {}

    def is_known(self) -> bool:
        """Whether anything in it is vouched for."""
        return any(self.entries.values()) or any(child.is_known() for child in self.children.values())

    def has_read(self) -> bool:
        """Whether it, or a directory below, has files of read."""
        return bool(self.read) or any(child.has_read() for child in self.children.values())


class Bond(NamedTuple):
    """What an index holds for; another boot counts as another copy, since the copy is not flushed after each pass."""

    source: str
    device: int
    target: str
    boot: str

    @classmethod
    def of(cls, source: str, target: str) -> Bond:
        with open(BOOT_ID, encoding="ascii") as boot:
            return cls(source, os.stat(source).st_dev, target, boot.read().strip())


def save(file: str, bond: Bond, root: Directory, now_ns: int) -> None:
    """Write the index (mode 0600) in one step: a line about itself, one per directory, a last one that closes it."""
    os.makedirs(os.path.dirname(file) or ".", mode=0o700, exist_ok=True)
    temporary = f"{file}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as out:
        out.write(json.dumps([FORMAT, *bond, now_ns]) + "\n")
        for path, directory in _walk("", root):
            known = {name: entry for name, entry in directory.entries.items() if entry}
            line = [path, directory.own, known, directory.read]
            out.write(json.dumps(line, separators=(",", ":")) + "\n")
        out.write('"end"\n')
    os.replace(temporary, file)


def _walk(path: str, directory: Directory) -> Iterator[tuple[str, Directory]]:
    yield path, directory
    for name, child in directory.children.items():
        yield from _walk(f"{path}/{name}", child)


def load(file: str, bond: Bond, target: str) -> Directory:
    """What is in target, vouched for where the index does and nothing changed there since.

    An index that is missing, damaged or about something else vouches for nothing.
    """
    known: _Known = {}
    saved_ns = 0
    with suppress(OSError, ValueError, TypeError, KeyError, IndexError):
        saved_ns, known = _read(file, bond)
    root = Directory()
    with opened(open_directory(target)) as descriptor:
        _look(descriptor, "", root, known, saved_ns)
    return root


_Known = dict[str, tuple[Optional[Signature], dict[str, Signature], dict[str, Signature]]]


def _read(file: str, bond: Bond) -> tuple[int, _Known]:
    known: _Known = {}
    with open(file, encoding="ascii") as lines:
        head = json.loads(next(lines, ""))
        if head[:-1] != [FORMAT, *bond]:
            return 0, {}
        line: Any = None
        for line in map(json.loads, lines):
            if line != "end":
                path, own, entries, read = line
                known[path] = _signature(own), _signatures(entries), _signatures(read)
        if line != "end":
            return 0, {}
    return int(head[-1]), known


def _signature(found: Any) -> Signature | None:
    return tuple(found) if found else None


def _signatures(found: Any) -> dict[str, Signature]:
    return {
        name: (int(inode), int(size), int(mtime), int(ctime)) for name, (inode, size, mtime, ctime) in found.items()
    }


def _look(descriptor: int, path: str, directory: Directory, known: _Known, saved_ns: int) -> None:
    own, vouched, read = known.pop(path, (None, {}, {}))
    if own and _untouched(os.fstat(descriptor), own, saved_ns):
        directory.own = own
    inside = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inside.append(entry.name)
                directory.entries[entry.name] = None
                continue
            wanted = vouched.get(entry.name)
            if wanted and not _untouched(entry.stat(follow_symlinks=False), wanted, saved_ns):
                wanted = None
            directory.entries[entry.name] = wanted
            if wanted is None and entry.name in read:  # compared with the source before it is believed
                directory.read[entry.name] = read[entry.name]
    for name in inside:
        directory.children[name] = child = Directory()
        with opened(open_directory(name, descriptor)) as below:
            _look(below, f"{path}/{name}", child, known, saved_ns)


def _untouched(about: os.stat_result, wanted: Signature, saved_ns: int) -> bool:
    """Whether an entry of the copy is as it was left when the index was saved."""
    size = wanted[1] if stat.S_ISREG(about.st_mode) else about.st_size
    return about.st_ctime_ns <= saved_ns and (about.st_size, about.st_mtime_ns) == (size, wanted[2])
