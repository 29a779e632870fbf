# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts, and paths that must not be touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.byte_sizes import show_bytes
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import (
    Mount,
    MountTable,
    describe_filesystem,
    real_path,
)

MOUNTINFO = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /srv/with\040space rw shared:7 master:2 - xfs /dev/vdb rw
24 22 0:22 / /srv/over rw - ext4 /dev/vdc rw
25 22 0:23 / /srv/over rw - nfs4 server:/export rw
26 22 0:24 / /srv/over/deeper rw - btrfs /dev/vdd rw
"""


@pytest.fixture
def table(tmp_path: Path) -> MountTable:
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    return MountTable.read(str(tmp_path / "mountinfo"))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv", "ext4"),
        ("/srv/with space/x", "xfs"),
        ("/srv/over", "nfs4"),
        ("/srv/overly", "ext4"),
        ("/srv/over/x/y", "nfs4"),
        ("/srv/over/deeper/x", "btrfs"),
    ],
)
def test_the_longest_and_last_mount_counts(table: MountTable, path: str, kind: str) -> None:
    assert table.of(path).type == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "ceph", "autofs"])
def test_what_can_hang_is_known(kind: str) -> None:
    assert Mount("/x", kind).is_network


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "zfs"])
def test_what_cannot_hang_is_known(kind: str) -> None:
    assert not Mount("/x", kind).is_network


def test_real_path_is_that_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "absolute").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "relative").symlink_to("../absolute/./b")
    (tmp_path / "loop").symlink_to("loop")
    table = MountTable([Mount("/", "ext4")])
    for path in ("a/relative", "absolute/relative/new", "absolute/../a", "nothing/here", "a//b/"):
        full = f"{tmp_path}/{path}"
        assert real_path(full, table) == os.path.realpath(full)
    assert real_path(f"{tmp_path}/loop/x", table).startswith(str(tmp_path))


def test_nothing_on_a_network_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "net" / "far")
    table = MountTable([Mount("/", "ext4"), Mount(f"{tmp_path}/net", "nfs")])
    asked: list[str] = []
    for name in ("lstat", "stat", "readlink", "statvfs"):
        plain = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda path, *a, plain=plain, **k: (asked.append(str(path)), plain(path, *a, **k))[1]
        )
    place = real_path(f"{tmp_path}/link/deep", table)
    assert place == f"{tmp_path}/net/far/deep"
    told = describe_filesystem(place, table)
    assert told == {"type": "nfs", "mount_point": f"{tmp_path}/net", "free_bytes": None, "total_bytes": None}
    assert f"{tmp_path}/link" in asked
    assert not [path for path in asked if path.startswith(f"{tmp_path}/net")]


def test_free_and_total_are_those_of_the_nearest_parent(tmp_path: Path) -> None:
    told = describe_filesystem(f"{tmp_path}/not/yet", MountTable.read())
    figures = os.statvfs(tmp_path)
    assert told["total_bytes"] == figures.f_blocks * figures.f_frsize
    assert 0 < told["free_bytes"] < told["total_bytes"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB"), (5 * 1024**4, "5 TiB")],
)
def test_amounts_for_people(amount: int, text: str) -> None:
    assert show_bytes(amount) == text
