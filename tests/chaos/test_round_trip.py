# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was captured comes back exactly, with the oldest restic that we take and with the newest of the lab's hosts."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import listing
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repairing import repair
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic

KEY = "all_kinds"
OLD_NS = 981_173_106_123_456_789  # long ago, with nanoseconds
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER, NOBODY = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX ACL as the kernel keeps it: (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ACL = acl((USER_OBJ, 6, NOBODY), (USER, 4, 1234), (GROUP_OBJ, 4, NOBODY), (MASK, 6, NOBODY), (OTHER, 0, NOBODY))


def file(place: Path | bytes, contents: bytes = b"", mode: int = 0o640, owner: int = 0) -> None:
    with open(place, "wb") as out:
        out.write(contents)
    os.chown(place, owner, owner)
    os.chmod(place, mode)


def every_kind(root: Path) -> None:
    """A tree with every kind of file that a volume can hold."""
    chance = random.Random(4)
    (root / "dirs" / "empty").mkdir(parents=True)
    deep = root / "dirs"
    for level in range(60):
        deep /= f"level{level}"
    deep.mkdir(parents=True)
    file(deep / "bottom", b"deep")
    file(root / "zero")
    file(root / "plain", chance.randbytes(300_000), 0o644, 7474)
    file(root / "set-id", b"#!", 0o6755, 1000)
    file(root / "no-one", b"x", 0)
    (root / "sticky").mkdir()
    (root / "set-gid").mkdir()
    os.chown(root / "set-gid", 4242, 4343)
    (root / "sticky").chmod(0o1777)
    (root / "set-gid").chmod(0o2775)
    file(root / "first name", chance.randbytes(5000), 0o600, 33)
    (root / "dirs" / "second name").hardlink_to(root / "first name")
    os.mkfifo(root / "fifo", 0o620)
    (root / "fifo second name").hardlink_to(root / "fifo")
    os.mknod(root / "socket", stat.S_IFSOCK | 0o711)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 99))
    (root / "to plain").symlink_to("plain")
    (root / "to nowhere").symlink_to("/no/such/file")
    os.link(root / "to nowhere", root / "link second name", follow_symlinks=False)
    os.chown(root / "to nowhere", 99, 98, follow_symlinks=False)
    for holes in (root / "sparse", root / "sparse and capable"):
        with open(holes, "wb") as out:
            out.truncate(64 << 20)
            out.seek(30 << 20)
            out.write(b"in the middle")
    os.setxattr(root / "sparse and capable", "security.capability", CAPABILITY)
    with open(root / "preallocated", "wb") as out:
        os.posix_fallocate(out.fileno(), 0, 3 << 20)
    with open(root / "all zeros", "wb") as out:
        out.write(bytes(1 << 20))
    raw = os.fsencode(root)
    file(raw + b"/not \xff\xfe text", b"bytes")
    file(raw + b"/two\nlines", b"newline")
    file(raw + b"/*?[a]\\", b"pattern")
    file(root / ("long" * 63), b"long")
    file(root / "a\u00e9\u4e2d", b"text")
    file(root / "capable", b"x", 0o755)
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    file(root / "attributes", b"x", 0o640, 12)
    os.setxattr(root / "attributes", "user.note", b"\x00\xffbytes")
    os.setxattr(root / "attributes", "user.empty", b"")
    os.setxattr(root / "attributes", "trusted.own", b"root's")
    os.setxattr(root / "attributes", "system.posix_acl_access", ACL)
    os.setxattr(root / "sticky", "system.posix_acl_default", ACL)
    os.setxattr(root / "to plain", "trusted.link", b"of the link", follow_symlinks=False)
    os.setxattr(root, "user.root", b"of the root")
    for place, names, files in os.walk(raw, topdown=False):
        for name in [*names, *files]:
            os.utime(os.path.join(place, name), ns=(OLD_NS, OLD_NS - chance.randrange(10**15)), follow_symlinks=False)
    os.chown(root, 7474, 7475)
    root.chmod(0o2751)
    os.utime(root, ns=(OLD_NS, OLD_NS - 1))


def facts(root: Path) -> dict[bytes, Any]:
    """All that a tree is, seen without the code under test; hard links as the first of a file's names."""
    found: dict[bytes, Any] = {}
    names: dict[tuple[int, int], bytes] = {}
    base = os.fsencode(root)
    places = [base]
    for place, directories, files in os.walk(base):
        places += [os.path.join(place, name) for name in directories + files]
    for place in sorted(places):
        about = os.lstat(place)
        plain = stat.S_ISREG(about.st_mode)
        with open(place if plain else "/dev/null", "rb") as contents:
            digest = hashlib.sha256(contents.read()).hexdigest()
        path = os.path.relpath(place, base)
        found[path] = {
            "mode": oct(about.st_mode),
            "owner": (about.st_uid, about.st_gid),
            "size": about.st_size if plain else None,
            "mtime": about.st_mtime_ns,
            "device": about.st_rdev,
            "names": names.setdefault((about.st_dev, about.st_ino), path) if not stat.S_ISDIR(about.st_mode) else None,
            "target": os.readlink(place) if stat.S_ISLNK(about.st_mode) else None,
            "contents": digest,
            "attributes": {
                name: os.getxattr(place, name, follow_symlinks=False)
                for name in os.listxattr(place, follow_symlinks=False)
            },
        }
    return found


@pytest.fixture
def repository(tmp_path: Path, restic_command: str) -> Repository:
    ensure_password(str(tmp_path / "password"))
    made = Repository(
        Restic(
            str(tmp_path / "repository"),
            str(tmp_path / "password"),
            cache_dir=str(tmp_path / "cache"),
            command=restic_command,
        )
    )
    made.init()
    return made


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """Staging as a capture leaves it."""
    place = tmp_path / "staging"
    (place / "volumes" / KEY).mkdir(parents=True)
    every_kind(place / "volumes" / KEY)
    (place / "manifest.json").write_text("{}")
    listing.write(str(place / "volumes"), [KEY], str(place / "listing.jsonl"))
    return place


def commit(repository: Repository, staging: Path) -> str:
    names = ["manifest.json", "listing.jsonl", "volumes"]
    return str(repository.commit(str(staging), names, ["openmemory-stack", "project=p"]).snapshot_id)


def test_every_kind_of_file_comes_back_exactly(repository: Repository, staging: Path, tmp_path: Path) -> None:
    snapshot = commit(repository, staging)
    target, lines = tmp_path / "target", tmp_path / "lines"
    repository.restore_all(snapshot, {f"/volumes/{KEY}": str(target), "/listing.jsonl": str(lines)})
    repair(str(target), str(lines), KEY)
    assert listing.differences(str(target), str(lines), KEY) == []
    assert facts(target) == facts(staging / "volumes" / KEY)
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20
    assert repair(str(target), str(lines), KEY) == []


ONE_PATH: dict[str, set[str] | None] = {  # path: what is in it, None for a file
    "dirs": {"empty", "level0", "second name"},
    "*?[a]\\": None,
    "two\nlines": None,
    "not \udcff\udcfe text": None,
    "sticky": set(),
}


def test_one_path_comes_back(repository: Repository, staging: Path, tmp_path: Path) -> None:
    snapshot = commit(repository, staging)
    for number, (path, expected) in enumerate(ONE_PATH.items()):
        target = tmp_path / f"target{number}"
        repository.restore(snapshot, f"/volumes/{KEY}/{path}", str(target))
        repair(str(target), str(staging / "listing.jsonl"), KEY, path)
        assert ({each.name for each in target.iterdir()} if target.is_dir() else None) == expected
        wanted, found = facts(staging / "volumes" / KEY / path), facts(target)
        assert {key: value["contents"] for key, value in found.items()} == {
            key: value["contents"] for key, value in wanted.items()
        }
    assert [each.name for each in tmp_path.iterdir() if each.name.endswith(".restoring")] == []


def remove(tree: Path) -> None:
    (tree / "plain").unlink()


def cut(tree: Path) -> None:
    os.truncate(tree / "plain", 10)


def other_kind(tree: Path) -> None:
    (tree / "zero").unlink()
    (tree / "zero").mkdir()


def add(tree: Path) -> None:
    (tree / "dirs" / "added").write_text("x")


def unlink_name(tree: Path) -> None:
    """A name of a file becomes a file of its own with other contents."""
    (tree / "first name").unlink()
    (tree / "first name").write_bytes(bytes(5000))


@pytest.mark.parametrize("harm", [remove, cut, other_kind, add, unlink_name])
def test_what_cannot_be_repaired_is_an_error(staging: Path, harm: Any) -> None:
    tree = staging / "volumes" / KEY
    harm(tree)
    assert listing.differences(str(tree), str(staging / "listing.jsonl"), KEY)
    with pytest.raises(StackError, match="The restored copy of all_kinds is not what was captured: "):
        repair(str(tree), str(staging / "listing.jsonl"), KEY)


def test_what_restic_loses_is_repaired(staging: Path) -> None:
    """Each thing that some restic loses, and more, is made again from the listing alone."""
    tree, before = staging / "volumes" / KEY, facts(staging / "volumes" / KEY)
    for name in ("socket", "fifo", "null", "disk", "to nowhere", "zero", "dirs/empty"):
        (tree / name).rmdir() if (tree / name).is_dir() else (tree / name).unlink()
    contents = (tree / "first name").read_bytes()
    (tree / "first name").unlink()
    (tree / "first name").write_bytes(contents)
    for place, directories, files in os.walk(tree):
        for name in [*directories, *files]:
            os.chown(os.path.join(place, name), 1, 1, follow_symlinks=False)
            os.utime(os.path.join(place, name), follow_symlinks=False)
    os.chown(tree, 0, 0)
    tree.chmod(0o700)
    for name in ("attributes", "sticky", "capable"):
        for attribute in os.listxattr(tree / name):
            os.removexattr(tree / name, attribute)
    os.setxattr(tree / "plain", "user.more", b"x")
    repair(str(tree), str(staging / "listing.jsonl"), KEY)
    assert facts(tree) == before
