# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree with one entry of each kind, and its copy."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import durable, mirror
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import MountTable

AS_ROOT = os.geteuid() == 0
MARGIN_S = 0.05


class Scene:
    """A source with one entry of each kind, and its copy."""

    def __init__(self, root: Path):
        self.source, self.target, self.index = root / "source", root / "staging/copy", root / "index/volume.json"
        self.source.mkdir()
        fill(self.source)

    def mirror(self, **options: Any) -> Mirror:
        return Mirror(str(self.source), str(self.target), str(self.index), **options)

    def captured(self, **options: Any) -> Mirror:
        """A mirror after a whole capture of a source that was quiet for long enough to be vouched for."""
        time.sleep(MARGIN_S * 3)
        one = self.mirror(**options)
        one.live_pass()
        one.frozen_pass()
        return one


def fill(root: Path) -> None:
    (root / "deep/er").mkdir(parents=True)
    (root / "file").write_bytes(b"content" * 9999)
    (root / "empty").touch()
    os.link(root / "file", root / "deep/er/hard")
    (root / "link").symlink_to("no/where")
    os.link(root / "link", root / "deep/link", follow_symlinks=False)
    (root / "to-directory").symlink_to("deep")
    os.mkfifo(root / "pipe", 0o620)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str((root / "socket").relative_to(Path.cwd())) if len(str(root)) > 90 else str(root / "socket"))
    with open(root / "sparse", "wb") as stream:
        stream.seek(30 << 20)
        stream.write(b"x" * 5000)
        stream.truncate(60 << 20)
    with open(root / "ahead", "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, 20 << 20)
        stream.write(b"head")
    (root / os.fsdecode(b"\xff\xfe not UTF-8")).write_text("1")
    (root / "two\nlines").write_text("2")
    os.chmod(root / "file", 0o4751)
    os.chmod(root / "deep", 0o1777)
    for path in (root / "file", root / "deep"):
        os.setxattr(path, "user.note", b"\0value")
    if AS_ROOT:
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(root / "block", stat.S_IFBLK | 0o640, os.makedev(7, 99))
        os.chown(root / "deep/er", 7474, 7475)
        os.chown(root / "link", 12, 13, follow_symlinks=False)
        os.setxattr(root / "file", "system.posix_acl_access", ACL)
    for path in ("link", "pipe", "deep/er", "deep", "."):
        os.utime(root / path, ns=(10**9 + 1, 10**9 + 123456789), follow_symlinks=False)


# user::rwx user:7474:r-x group::r-x mask::r-x other::--x, as the kernel keeps it
ACL = bytes.fromhex("0200000001000700ffffffff02000500321d000004000500ffffffff10000500ffffffff20000100ffffffff")


def write_at(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def scene_of(root: Path, patch: pytest.MonkeyPatch) -> Scene:
    """With a short margin, on whatever file system the tests run."""
    patch.setattr(durable, "MARGIN_S", MARGIN_S)
    patch.setattr(mirror, "KNOWN", (MountTable.read().of(str(root)).type,))
    return Scene(root)
