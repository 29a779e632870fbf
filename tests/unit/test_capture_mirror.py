# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tree and its copy: every kind of entry, every kind of change, and what is told when it cannot be exact."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import durable, index, mirror, passing
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import needed
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import Mount, MountTable
from mirrored_tree import AS_ROOT, MARGIN_S, Scene, scene_of, write_at


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return scene_of(tmp_path, monkeypatch)


def plain_facts(root: Path) -> list[str]:
    """What find sees, without the code under test."""
    line = r"%P\0%y %m %U %G %T@ %l %n\n"
    command = ["find", root, "-printf", line]
    return sorted(subprocess.run(command, check=True, capture_output=True).stdout.decode(errors="replace").split("\n"))


def allocated(root: Path) -> int:
    return sum(os.lstat(path).st_blocks * 512 for path in {os.lstat(p).st_ino: p for p in root.rglob("*")}.values())


def test_every_kind_of_entry(scene: Scene) -> None:
    one = scene.mirror()
    one.live_pass()
    report = one.frozen_pass()
    assert one.verify() == []
    assert plain_facts(scene.target) == plain_facts(scene.source)
    assert allocated(scene.target) < 500_000 < 20 << 20 < allocated(scene.source)
    assert report.files == 12 + 2 * AS_ROOT
    assert needed(str(scene.source))[0] > 20 << 20


def test_a_quiet_tree_is_not_read_again(scene: Scene) -> None:
    one = scene.captured()
    assert one.frozen_pass().files_read == 0
    one.save()
    assert stat.S_IMODE(scene.index.stat().st_mode) == 0o600
    before = {path: path.lstat().st_ctime_ns for path in scene.target.rglob("*")}
    again = scene.mirror()
    assert (again.live_pass().files_read, again.frozen_pass().files_read) == (0, 0)
    assert {path: path.lstat().st_ctime_ns for path in scene.target.rglob("*")} == before
    assert again.verify() == []


def test_what_was_read_right_after_a_change_is_read_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule's core: without 2 s of rest before the flush, or without a flush, nothing is vouched for."""
    monkeypatch.setattr(durable, "MARGIN_S", 600.0)  # however slow the machine is
    one = scene.mirror()
    one.flush()
    files = one.frozen_pass().files_read
    assert one.frozen_pass().files_read == files > 10
    monkeypatch.setattr(durable, "MARGIN_S", MARGIN_S)
    time.sleep(MARGIN_S * 3)
    unflushed = scene.mirror()
    assert unflushed.frozen_pass().files_read == unflushed.frozen_pass().files_read == files


def replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def dig(path: Path, offset: int, length: int) -> None:
    subprocess.run(["fallocate", "--punch-hole", "-o", str(offset), "-l", str(length), path], check=True)


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwrite": lambda root: write_at(root / "file", 100, b"other"),
    "grow": lambda root: write_at(root / "empty", 0, b"grown" * 3000),
    "shrink": lambda root: os.truncate(root / "ahead", 2),
    "longer with a hole": lambda root: os.truncate(root / "file", 40 << 20),
    "data becomes a hole": lambda root: dig(root / "file", 4096, 16384),
    "a hole becomes data": lambda root: write_at(root / "sparse", 5 << 20, b"y" * 9000),
    "rename": lambda root: os.rename(root / "file", root / "deep/new name"),
    "a directory is renamed": lambda root: os.rename(root / "deep/er", root / "shallow"),
    "new": lambda root: (root / "deep/new").write_text("new"),
    "new directories": lambda root: (root / "a/b/c").mkdir(parents=True),
    "gone": lambda root: (root / "sparse").unlink(),
    "a directory is gone": lambda root: shutil.rmtree(root / "deep"),
    "file to directory": lambda root: replace(root / "file", lambda path: (path / "in").mkdir(parents=True)),
    "directory to file": lambda root: replace(root / "deep", lambda path: path.write_text("file")),
    "directory to link": lambda root: replace(root / "deep", lambda path: path.symlink_to("file")),
    "link to directory": lambda root: replace(root / "to-directory", lambda path: path.mkdir()),
    "pipe to file": lambda root: replace(root / "pipe", lambda path: path.write_text("no pipe")),
    "file to pipe": lambda root: replace(root / "file", os.mkfifo),
    "another link": lambda root: replace(root / "link", lambda path: path.symlink_to("elsewhere")),
    "one name more": lambda root: os.link(root / "sparse", root / "deep/er/again"),
    "one name less": lambda root: (root / "file").unlink(),
    "a name of its own": lambda root: replace(root / "file", lambda path: path.write_text("alone")),
    "now two files": lambda root: replace(root / "file", lambda path: shutil.copy2(root / "deep/er/hard", path)),
    "other partners": lambda root: replace(root / "empty", lambda path: os.link(root / "sparse", path)),
    "mode": lambda root: os.chmod(root / "file", 0o2640),
    "mode of a directory": lambda root: os.chmod(root / "deep/er", 0o700),
    "mode of the root": lambda root: os.chmod(root, 0o2711),
    "times": lambda root: os.utime(root / "file", ns=(5, 5)),
    "times of the root": lambda root: os.utime(root, ns=(5, 5)),
    "attribute changed": lambda root: os.setxattr(root / "file", "user.note", b"new"),
    "attribute gone": lambda root: os.removexattr(root / "deep", "user.note"),
    "same size, old mtime": lambda root: (
        write_at(root / "two\nlines", 0, b"3"),
        os.utime(root / "two\nlines", ns=(0, os.stat(root / "file").st_mtime_ns)),
    ),
}


@pytest.mark.parametrize("again", [False, True], ids=["same-run", "next-run"])
@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_change(scene: Scene, change: str, again: bool) -> None:
    one = scene.captured()
    if again:
        one.save()
        one = scene.mirror()
        one.flush()
    CHANGES[change](scene.source)
    assert one.verify() != []
    one.frozen_pass()
    assert one.verify() == []
    one.save()
    assert plain_facts(scene.target) == plain_facts(scene.source)
    assert sorted(os.listdir(scene.index.parent)) == ["volume.json"]


TAMPERING: dict[str, Callable[[Path], object]] = {
    "written": lambda copy: write_at(copy / "file", 0, b"not the source's"),
    "gone": lambda copy: (copy / "file").unlink(),
    "more": lambda copy: (copy / "deep/more").mkdir(),
    "mode": lambda copy: os.chmod(copy / "file", 0o600),
    "mode of a directory": lambda copy: os.chmod(copy / "deep/er", 0o710),
    "all gone": shutil.rmtree,
}


@pytest.mark.parametrize("way", TAMPERING)
def test_a_copy_that_somebody_changed_is_put_right(scene: Scene, way: str) -> None:
    scene.captured().save()
    time.sleep(0.02)  # more than a tick of the clock that file times come from
    TAMPERING[way](scene.target)
    one = scene.mirror()
    one.live_pass()
    one.frozen_pass()
    assert one.verify() == []


INDEX: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda text: text[: len(text) // 2],
    "cut off after a line": lambda text: text[: text.index(b"\n", len(text) // 2) + 1],
    "no JSON": lambda text: b"\0" * len(text),
    "empty": lambda text: b"",
    "another format": lambda text: text.replace(b"[2,", b"[1,", 1),
    "another boot": lambda text: text.replace(Path(index.BOOT_ID).read_bytes().strip(), b"other"),
    "another volume": lambda text: text.replace(b"/source", b"/other", 1),
}


@pytest.mark.parametrize("way", INDEX)
def test_an_index_that_cannot_be_believed_vouches_for_nothing(scene: Scene, way: str) -> None:
    scene.captured().save()
    scene.index.write_bytes(INDEX[way](scene.index.read_bytes()))
    one = scene.mirror()
    assert one.live_pass().files_read == scene.mirror().frozen_pass().files_read > 10
    one.frozen_pass()
    assert one.verify() == []


def test_while_a_pass_runs_there_is_no_index(scene: Scene) -> None:
    scene.captured().save()
    assert scene.index.exists()
    one = scene.mirror()
    one.flush()
    assert not scene.index.exists()
    one.live_pass()
    assert not scene.index.exists()
    one.save()
    assert scene.index.exists()


@pytest.mark.parametrize("compare", [False, True])
def test_compare_reads_what_the_rule_skips(scene: Scene, compare: bool) -> None:
    one = scene.captured(compare=compare)
    times = os.stat(scene.target / "file")
    write_at(scene.target / "file", 50_000, b"flipped")
    os.utime(scene.target / "file", ns=(times.st_atime_ns, times.st_mtime_ns))
    one.frozen_pass()
    assert one.verify() == ([] if compare else ["deep/er/hard", "file"])


def test_an_unknown_file_system_is_compared(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "KNOWN", ())
    one = scene.captured()
    write_at(scene.target / "sparse", 50_000, b"flipped")
    one.frozen_pass()
    assert one.verify() == []


def test_excluded_names_are_left_out_of_the_root_only(scene: Scene) -> None:
    scene.captured()
    (scene.source / "deep/file").write_text("not the root's")
    one = scene.captured(excluded=["file", "pipe"])
    assert one.verify() == []
    assert not {"file", "pipe"} & set(os.listdir(scene.target))
    assert (scene.target / "deep/file").read_text() == "not the root's"


REFUSED: dict[str, tuple[Callable[[Scene], Any], str]] = {
    "no source": (lambda scene: scene.source.rename(scene.source.parent / "away"), "{source} could not be copied to "),
    "a file": (
        lambda scene: (shutil.rmtree(scene.source), scene.source.write_text("")),
        "{source} could not be copied to {target}: Not a directory",
    ),
    "the copy is a file": (
        lambda scene: (scene.target.parent.mkdir(), scene.target.write_text("")),
        "{source} could not be copied to {target}: File exists",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(scene: Scene, case: str) -> None:
    prepare, sentence = REFUSED[case]
    prepare(scene)
    with pytest.raises(StackError) as raised:
        scene.mirror().live_pass()
    assert str(raised.value).startswith(sentence.format(source=scene.source, target=scene.target))


def test_a_mount_inside_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    known = MountTable.read().of(str(scene.source)).type
    table = MountTable([Mount("/", known), Mount(str(scene.source / "deep/er"), "tmpfs")])
    monkeypatch.setattr(MountTable, "read", lambda: table)
    with pytest.raises(StackError, match=f"Another file system is mounted at {scene.source}/deep/er, inside"):
        scene.mirror().frozen_pass()
    assert scene.mirror(excluded=["deep"]).frozen_pass().files > 5


@pytest.mark.parametrize(("kind", "ranges"), [("xfs", True), ("btrfs", True), ("cifs", False), ("bcachefs", False)])
def test_ranges_are_cloned_where_blocks_tell_what_differs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, kind: str, ranges: bool
) -> None:
    table = MountTable([Mount("/", kind)])
    monkeypatch.setattr(MountTable, "read", lambda: table)
    asked: list[bool] = []

    def clone(source: int, target: int, about: os.stat_result, _old: os.stat_result, by_ranges: bool) -> int:
        asked.append(by_ranges)
        return os.pwrite(target, os.pread(source, about.st_size, 0), 0)

    monkeypatch.setattr(passing, "clone_data", clone)
    report = scene.mirror(clone=True).frozen_pass()
    assert set(asked) == {ranges}
    assert (report.bytes_read, 0 < report.bytes_shared <= report.bytes_total) == (0, True)


def test_an_index_that_cannot_be_written_is_named(scene: Scene) -> None:
    one = scene.captured()
    shutil.rmtree(scene.index.parent)
    scene.index.parent.write_text("a file")
    with pytest.raises(StackError, match=f"{scene.index} could not be written: "):
        one.save()


def test_the_budget_ends_a_pass(scene: Scene) -> None:
    with pytest.raises(StackError, match="takes longer than it may while frozen"):
        scene.mirror().frozen_pass(budget=-1)
