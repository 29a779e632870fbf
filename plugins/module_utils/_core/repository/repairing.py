# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings back what restic does not restore, from the listing: sockets, hard links, metadata of the root, attributes,
holes.

What is repaired may be hostile, and lies inside the volume where that is a mount point: nothing here follows a link.
"""

from __future__ import annotations

import os
import stat

from ..errors import StackError
from .holes import Digging, NotZeroError
from .inside import Inside, changed
from .listing import FILE_TYPES, Entry, differences, differences_of, entries_below, entry_of, show

_SHOWN = 5
_CHUNK = 1 << 20
_LINKING = ".openmemory-stack.linking"  # a name for a moment


def repair(root: str, listing: str, key: str, under: str = "") -> list[str]:
    """Make the restored tree at root what the listing says of the volume key (or of the path under in it).

    What was done, a line each. StackError where something stays different: contents cannot be repaired.
    """
    done: list[str] = []
    leaders: dict[int, str] = {}
    directories: list[Entry] = []
    at = ""
    try:
        with Inside(root) as tree:
            with Digging(tree) as digging:
                for entry in entries_below(listing, key, under):
                    at = entry.path
                    done += [f"{show(at)}: {what}" for what in _repair_one(tree, entry, leaders, digging)]
                    if entry.kind == "dir":
                        directories.append(entry)
            for entry in digging.later:  # a write, which digging is, takes capabilities away and moves times
                at = entry.path
                _set_metadata(tree.place(at), entry)
            for entry in reversed(directories):  # what was made in it moved its time
                at = entry.path
                _set_time(tree.place(at), entry)
    except OSError as error:
        raise StackError(f"The restored copy cannot be made exact: {show(at)} ({error.strerror}).") from error
    except NotZeroError:
        raise _not_captured(key, f"{show(at)}: data where a hole was") from None
    left = differences(root, listing, key, under)
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        raise _not_captured(key, f"{'; '.join(left[:_SHOWN])}{more}")
    return done


def _not_captured(key: str, what: str) -> StackError:
    return StackError(
        f"The restored copy of {key} is not what was captured: {what}. Nothing was put in place; take another "
        "snapshot, and check the repository."
    )


def _repair_one(tree: Inside, entry: Entry, leaders: dict[int, str], digging: Digging) -> list[str]:
    """What was done to one entry; raises OSError."""
    done = []
    leader = leaders.get(entry.group)
    place = tree.place(entry.path)
    if not os.path.lexists(place) and _create(tree, entry, leader):
        done.append(f"made again ({entry.kind})")
    if not os.path.lexists(tree.place(entry.path)):
        return []
    if entry.group:
        if leader is None:
            leaders[entry.group] = entry.path
        elif _link_again(tree, entry.path, leader):
            done.append("hard link")
    if digging.begin(entry):
        done.append("holes")
    return done + _set_metadata(tree.place(entry.path), entry)


def _create(tree: Inside, entry: Entry, leader: str | None) -> bool:
    place = tree.place(entry.path)
    if leader is not None:
        _link(tree, leader, entry.path, os.path.basename(entry.path))
    elif entry.kind == "dir":
        os.mkdir(place, 0o700)
    elif entry.kind == "link":
        os.symlink(entry.target, place)
    elif entry.kind != "file":
        os.mknod(place, FILE_TYPES[entry.kind] | 0o600, entry.rdev)
    elif entry.size == 0:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    else:
        return False
    return True


def _link(tree: Inside, leader: str, path: str, name: str) -> None:
    """Make name, in the directory of path, another name of the file leader."""
    pinned = tree.open(os.path.dirname(leader), os.O_PATH)  # place() is good until its next call only
    try:
        beside = os.path.join(os.path.dirname(tree.place(path)), name)
        os.link(os.path.basename(leader), beside, src_dir_fd=pinned, follow_symlinks=False)
    finally:
        os.close(pinned)


def _link_again(tree: Inside, path: str, leader: str) -> bool:
    """One name of a file that came back as a file of its own becomes a name of the first again."""
    one, other = os.lstat(tree.place(path)), os.lstat(tree.place(leader))
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
        return False
    if stat.S_ISREG(one.st_mode) and not _same_contents(tree, path, leader):
        return False
    _link(tree, leader, path, _LINKING)
    place = tree.place(path)
    os.replace(os.path.join(os.path.dirname(place), _LINKING), place)
    return True


def _same_contents(tree: Inside, one: str, other: str) -> bool:
    with os.fdopen(tree.open(one), "rb") as first, os.fdopen(tree.open(other), "rb") as second:
        if not all(stat.S_ISREG(os.fstat(stream.fileno()).st_mode) for stream in (first, second)):
            return False
        while True:
            chunk = first.read(_CHUNK)
            if chunk != second.read(_CHUNK):
                return False
            if not chunk:
                return True


def _set_metadata(place: str, entry: Entry) -> list[str]:
    there = entry_of(place, entry.path, os.lstat(place))
    found = differences_of(entry, there)
    if not found or there.kind != entry.kind:
        return []
    if (there.uid, there.gid) != (entry.uid, entry.gid):
        os.lchown(place, entry.uid, entry.gid)
        there = entry_of(place, entry.path, os.lstat(place))  # a change of owner clears capabilities and set-id bits
    for name in there.xattrs:
        if name not in entry.xattrs:
            os.removexattr(place, name, follow_symlinks=False)
    for name, value in entry.xattrs.items():
        if there.xattrs.get(name) != value:
            os.setxattr(place, name, value, follow_symlinks=False)
    if entry.kind != "link" and stat.S_IMODE(os.lstat(place).st_mode) != entry.mode:
        _set_mode(place, entry)
    _set_time(place, entry)
    return [what for what in found if not what.startswith("size ")]


def _set_mode(place: str, entry: Entry) -> None:
    """chmod has no form that does not follow; what was opened without is what is changed."""
    handle = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_ISLNK(os.fstat(handle).st_mode):
            raise changed(entry.path)
        os.chmod(f"/proc/self/fd/{handle}", entry.mode)
    finally:
        os.close(handle)


def _set_time(place: str, entry: Entry) -> None:
    if os.lstat(place).st_mtime_ns != entry.mtime_ns:
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
