# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exact list of what was captured: one JSON line for every entry, to compare a restored tree with.

A file of this kind starts with a head, lists each volume's tree (a directory before what is in it), and ends with a
count, so that one that was cut off is noticed. Names need not be text: they are kept by surrogate escapes.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..capture.copying import next_data
from ..errors import StackError
from ..stores.plain_file import plain
from .inside import Inside, is_plain

FORMAT = 2  # 1 had no holes
_MOST_HOLES = 1000  # of a file; the restore finds those of one with more by itself
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}
FILE_TYPES = {kind: mode for mode, kind in _KINDS.items()}
NO_XATTRS: dict[str, bytes] = {}


@dataclass
class Entry:
    """path: relative to the volume's root, "" for the root itself. kind: file, dir, link, fifo, socket, block, char.

    size: bytes (files). allocated: bytes on disk of a file with holes, else -1. holes: (offset, length) of each, in
    bytes; () where there are too many, and in what only looks at an entry. mtime_ns. target: of a symbolic link.
    group: number that the names of one file (hard links) share, 0 for a single name. rdev: of a device. xattrs:
    {name: bytes}, ACLs are among them.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: str = ""
    group: int = 0
    rdev: int = 0
    allocated: int = -1
    holes: Sequence[tuple[int, int]] = ()
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def to_line(self, key: str) -> str:
        found: dict[str, Any] = {
            "volume": key,
            "path": self.path,
            "kind": self.kind,
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "mtime_ns": self.mtime_ns,
        }
        for name in ("size", "target", "group", "rdev", "holes"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        if self.allocated >= 0:
            found["allocated"] = self.allocated
        if self.xattrs:
            found["xattrs"] = {name: base64.b64encode(value).decode() for name, value in self.xattrs.items()}
        return json.dumps(found, separators=(",", ":"))

    @classmethod
    def of(cls, found: dict[str, Any]) -> Entry:
        values = {key: value for key, value in found.items() if key not in ("volume", "xattrs", "holes")}
        holes = [(int(offset), int(length)) for offset, length in found.get("holes", ())]
        if any(offset < 0 or length < 1 for offset, length in holes):
            raise ValueError(found["holes"])
        xattrs = {name: base64.b64decode(value) for name, value in found.get("xattrs", {}).items()}
        return cls(**values, holes=holes, xattrs=xattrs)


def entry_of(place: str, path: str, about: os.stat_result) -> Entry:
    """What lies at place (absolute), under the relative name path. group is left 0."""
    kind = _KINDS[stat.S_IFMT(about.st_mode)]
    allocated = about.st_blocks * 512
    return Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(about.st_mode),
        uid=about.st_uid,
        gid=about.st_gid,
        mtime_ns=about.st_mtime_ns,
        size=about.st_size if kind == "file" else 0,
        target=os.readlink(place) if kind == "link" else "",
        rdev=about.st_rdev if kind in ("block", "char") else 0,
        allocated=allocated if kind == "file" and allocated < about.st_size else -1,
        xattrs=xattrs_of(place),
    )


def holes_of(place: str) -> list[tuple[int, int]]:
    """(offset, length) in bytes of each hole of a file; [] of one with very many. Raises OSError."""
    found: list[tuple[int, int]] = []
    handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size, at = os.fstat(handle).st_size, 0
        while at < size:
            begin, end = next_data(handle, at, size)
            if begin > at:
                found.append((at, begin - at))
            if len(found) > _MOST_HOLES:
                return []
            at = end
    finally:
        os.close(handle)
    return found


def xattrs_of(place: str) -> dict[str, bytes]:
    """All extended attributes (not those of what a link points to)."""
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError:  # the file system has none
        return NO_XATTRS
    return {name: os.getxattr(place, name, follow_symlinks=False) for name in names}


def walk(root: str, path: str = "") -> Iterator[tuple[str, str, os.stat_result]]:
    """(absolute place, path relative to root, lstat) of a tree, a directory before what is in it, by name."""
    todo = [path]
    while todo:
        path = todo.pop()
        place = os.path.join(root, path) if path else root
        about = os.lstat(place)
        yield place, path, about
        if stat.S_ISDIR(about.st_mode):
            with os.scandir(place) as entries:
                names = sorted((entry.name for entry in entries), key=os.fsencode, reverse=True)
            todo += [os.path.join(path, name) if path else name for name in names]


def write(root: str, keys: Sequence[str], file: str) -> int:
    """List the trees root/<key> into the file (mode 0600, replaced at once); the number of entries.

    StackError where something cannot be read.
    """
    draft, count = f"{file}.new", 0
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(json.dumps({"listing": FORMAT, "volumes": list(keys)}) + "\n")
            for key in keys:
                groups: dict[tuple[int, int], int] = {}
                for place, path, about in walk(os.path.join(root, key)):
                    entry = entry_of(place, path, about)
                    if about.st_nlink > 1 and entry.kind != "dir":
                        entry.group = groups.setdefault((about.st_dev, about.st_ino), len(groups) + 1)
                    if entry.allocated >= 0:
                        entry.holes = holes_of(place)
                    out.write(entry.to_line(key) + "\n")
                    count += 1
            out.write(json.dumps({"entries": count}) + "\n")
        os.replace(draft, file)
    except OSError as error:
        raise StackError(
            f"The list of the captured files cannot be written: {error.filename} ({error.strerror})."
        ) from error
    return count


def read(file: str, key: str | None = None) -> Iterator[Entry]:
    """The entries of one volume, or of all, in the order they were written; StackError where the file is damaged."""
    count, ended = 0, False
    try:
        with open(file, encoding="ascii", opener=plain) as lines:
            head = json.loads(next(lines, ""))
            if head["listing"] > FORMAT:
                raise StackError(f"{file} has format {head['listing']}: update openmemory.stack here.")
            if key is not None and key not in head["volumes"]:
                raise StackError(f"The snapshot lists no volume {key}: it has {', '.join(head['volumes'])}.")
            for line in lines:
                found = json.loads(line)
                if "entries" in found:
                    ended = found["entries"] == count
                    continue
                count += 1
                if not is_plain(found["path"]):
                    raise ValueError("a path that leads out of the volume")
                if key in (None, found["volume"]):
                    yield Entry.of(found)
    except OSError as error:
        raise StackError(f"The list of the captured files {file} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"The list of the captured files {file} is cut off or damaged: take another snapshot."
        ) from error
    if not ended:
        raise StackError(f"The list of the captured files {file} is cut off: take another snapshot.")


def entries_below(file: str, key: str, under: str = "") -> Iterator[Entry]:
    """The entries of one volume at and below the path under, with paths relative to that ("" is under itself)."""
    under = under.strip("/")
    for entry in read(file, key):
        if not under:
            yield entry
        elif entry.path == under or entry.path.startswith(under + "/"):
            entry.path = entry.path[len(under) + 1 :]
            yield entry


def differences(root: str, listing: str, key: str, under: str = "") -> list[str]:
    """How the tree at root differs from what the listing (a file) says of the volume key, or of the path under in it.

    Names of entries with what differs: missing, "not in the listing", kind, mode, owner, size, time, target, device,
    extended attributes, hard links. Contents are restic's to check. [] where nothing differs.
    """
    found: list[str] = []
    listed = set()
    leaders: dict[int, tuple[int, int]] = {}
    with Inside(root) as tree:
        for entry in entries_below(listing, key, under):
            listed.add(entry.path)
            try:
                place = tree.place(entry.path)
                about = os.lstat(place)
                there = entry_of(place, entry.path, about)
            except OSError:
                found.append(f"{show(entry.path)}: missing")
                continue
            found += [f"{show(entry.path)}: {what}" for what in differences_of(entry, there)]
            identity = (about.st_dev, about.st_ino)
            if entry.group and leaders.setdefault(entry.group, identity) != identity:
                found.append(f"{show(entry.path)}: hard link")
    if os.path.lexists(root):
        found += [f"{show(path)}: not in the listing" for place, path, about in walk(root) if path not in listed]
    return found


def differences_of(wanted: Entry, there: Entry) -> list[str]:
    """What differs between two entries, apart from their names and hard links."""
    if wanted.kind != there.kind:
        return [f"kind ({there.kind} instead of {wanted.kind})"]
    pairs = (
        ("mode", f"{there.mode:04o}", f"{wanted.mode:04o}"),
        ("owner", f"{there.uid}:{there.gid}", f"{wanted.uid}:{wanted.gid}"),
        ("size", there.size, wanted.size),
        ("time", there.mtime_ns, wanted.mtime_ns),
        ("target", there.target, wanted.target),
        ("device", there.rdev, wanted.rdev),
    )
    found = [f"{name} ({is_} instead of {was})" for name, is_, was in pairs if is_ != was]
    if wanted.xattrs != there.xattrs:
        names = {name for name in {*wanted.xattrs, *there.xattrs} if wanted.xattrs.get(name) != there.xattrs.get(name)}
        found.append(f"extended attributes ({', '.join(sorted(names))})")
    return found


def show(path: str) -> str:
    """A path for people, whatever bytes it is made of."""
    return path.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n") if path else "."
