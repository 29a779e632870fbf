# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Brings back what restic does not restore, from the listing: sockets, hard links, metadata of the root, attributes,
holes.
"""

from __future__ import annotations

import filecmp
import os
import stat
import subprocess

from ..errors import StackError
from .listing import FILE_TYPES, Entry, differences, differences_of, entries_below, entry_of, show

_SHOWN = 5
_DIG_FROM = 65536  # bytes; less is not worth it, and file systems count differently


def repair(root: str, listing: str, key: str, under: str = "") -> list[str]:
    """Make the restored tree at root what the listing says of the volume key (or of the path under in it).

    What was done, a line each. StackError where something stays different: contents cannot be repaired.
    """
    done: list[str] = []
    leaders: dict[int, str] = {}
    directories: list[tuple[str, Entry]] = []
    try:
        for entry in entries_below(listing, key, under):
            place = os.path.join(root, entry.path) if entry.path else root
            if not os.path.lexists(place) and _create(place, entry, leaders.get(entry.group)):
                done.append(f"{show(entry.path)}: made again ({entry.kind})")
            if not os.path.lexists(place):
                continue
            if entry.group:
                leader = leaders.setdefault(entry.group, place)
                if _link_again(place, leader):
                    done.append(f"{show(entry.path)}: hard link")
            if _dig_holes(place, entry):
                done.append(f"{show(entry.path)}: holes")
            done += [f"{show(entry.path)}: {what}" for what in _set_metadata(place, entry)]
            if entry.kind == "dir":
                directories.append((place, entry))
        for place, entry in reversed(directories):  # what was made in it moved its time
            if os.lstat(place).st_mtime_ns != entry.mtime_ns:
                os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))
    except OSError as error:
        raise StackError(
            f"The restored copy cannot be made exact: {show(str(error.filename))} ({error.strerror})."
        ) from error
    left = differences(root, listing, key, under)
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        raise StackError(
            f"The restored copy of {key} is not what was captured: {'; '.join(left[:_SHOWN])}{more}. Nothing was "
            f"put in "
            "place; take another snapshot, and check the repository."
        )
    return done


def _create(place: str, entry: Entry, leader: str | None) -> bool:
    if leader is not None:
        os.link(leader, place, follow_symlinks=False)
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


def _link_again(place: str, leader: str) -> bool:
    """One name of a file that came back as a file of its own becomes a name of the first again."""
    one, other = os.lstat(place), os.lstat(leader)
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
        return False
    if stat.S_ISREG(one.st_mode) and not filecmp.cmp(place, leader, shallow=False):
        return False
    draft = f"{place}.linking"
    os.link(leader, draft, follow_symlinks=False)
    os.replace(draft, place)
    return True


def _dig_holes(place: str, entry: Entry) -> bool:
    """Zeros become holes again in a file that had some, where restic (before 0.15) wrote them; its times stay."""
    about = os.lstat(place)
    if entry.allocated < 0 or not stat.S_ISREG(about.st_mode) or about.st_blocks * 512 <= entry.allocated + _DIG_FROM:
        return False
    command = ["fallocate", "--dig-holes", "--", place]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))
    return True


def _set_metadata(place: str, entry: Entry) -> list[str]:
    there = entry_of(place, entry.path, os.lstat(place))
    found = differences_of(entry, there)
    if not found or there.kind != entry.kind:
        return []
    follow = entry.kind != "link"
    if (there.uid, there.gid) != (entry.uid, entry.gid):
        os.lchown(place, entry.uid, entry.gid)
        there = entry_of(place, entry.path, os.lstat(place))  # a change of owner clears capabilities and set-id bits
    for name in there.xattrs:
        if name not in entry.xattrs:
            os.removexattr(place, name, follow_symlinks=False)
    for name, value in entry.xattrs.items():
        if there.xattrs.get(name) != value:
            os.setxattr(place, name, value, follow_symlinks=False)
    if follow and stat.S_IMODE(os.lstat(place).st_mode) != entry.mode:
        os.chmod(place, entry.mode)
    if os.lstat(place).st_mtime_ns != entry.mtime_ns:
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
    return [what for what in found if not what.startswith("size ")]
