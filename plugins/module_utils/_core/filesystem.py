# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems of this host, told without touching those that can hang."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MOUNTINFO = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")
_NETWORK = ("nfs", "cifs", "smb", "fuse.", "ceph", "glusterfs", "lustre", "afs", "autofs")
_SHARING = ("xfs", "btrfs")  # where files can share blocks
_REFUSED_BY_QDRANT = (("nfs", "NFS"), ("cifs", "CIFS"), ("smb", "CIFS"), ("fuse", "FUSE"), ("sshfs", "FUSE"))


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo."""

    point: str
    type: str

    @property
    def is_network(self) -> bool:
        """Whether looking into it may wait for another machine, perhaps for ever."""
        return self.type.startswith(_NETWORK)


def unsupported_by_qdrant(kind: str) -> str:
    """The name of the file system that Qdrant's manual rules out (NFS, FUSE, CIFS), or nothing."""
    kind = kind.rsplit("/", 1)[-1].lower()
    return next((name for prefix, name in _REFUSED_BY_QDRANT if kind.startswith(prefix)), "")


class MountTable:
    """The mounts of this host, asked by path. Where several lie on one point, the last one made is on top."""

    def __init__(self, mounts: Iterable[Mount]):
        self._by_point = {mount.point: mount for mount in mounts}

    @classmethod
    def read(cls, source: str = MOUNTINFO) -> MountTable:
        mounts = []
        with open(source, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.split()
                point = _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), fields[4])
                mounts.append(Mount(point, fields[fields.index("-", 6) + 1]))
        return cls(mounts)

    def of(self, path: str) -> Mount:
        """The mount that an absolute path without symbolic links lies on."""
        while path not in self._by_point and path != "/":
            path = os.path.dirname(path)
        return self._by_point.get(path, Mount("/", "unknown"))

    def is_point(self, path: str) -> bool:
        return path in self._by_point

    def below(self, path: str) -> list[str]:
        """The mount points inside a directory, without the directory itself."""
        return sorted(point for point in self._by_point if point != path and covers(path, point))


def covers(parent: str, path: str) -> bool:
    """Whether path is parent or lies below it; both normal and absolute."""
    return parent == path or path.startswith(parent.rstrip("/") + "/")


def real_path(path: str, mounts: MountTable) -> str:
    """Like os.path.realpath, but names on a network file system are taken as they are: asking could hang."""
    todo, done, links = path.split("/")[::-1], "/", 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        done = os.path.join(done, part)
        if mounts.of(done).is_network or not os.path.islink(done) or links > 40:
            continue
        links += 1
        target = os.readlink(done)
        todo += target.split("/")[::-1]
        done = "/" if target.startswith("/") else os.path.dirname(done)
    return done


def existing_ancestor(path: str) -> str:
    """The path itself or its nearest parent that exists."""
    while not os.path.lexists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def describe_filesystem(path: str, mounts: MountTable) -> dict[str, Any]:
    """The file system of a real path: type, mount point, free and total bytes (None where they cannot be asked)."""
    mount = mounts.of(path)
    free, total = (None, None) if mount.is_network else free_and_total(path)
    return {"type": mount.type, "mount_point": mount.point, "free_bytes": free, "total_bytes": total}


def free_and_total(path: str) -> tuple[int | None, int | None]:
    """Bytes free for ordinary users and bytes in all on the file system of the path or of its nearest parent."""
    try:
        figures = os.statvfs(existing_ancestor(path))
    except OSError:
        return None, None
    return figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize


def may_clone(source: str, target: str) -> bool:
    """Whether files can share blocks between two places, by what the file systems are; target need not be there yet."""
    kind = MountTable.read().of(os.path.realpath(source)).type
    return kind in _SHARING and os.stat(source).st_dev == os.stat(existing_ancestor(target)).st_dev
