# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Promise 2: a capture of a tree that is written to equals a plain copy taken inside the same freeze, byte for byte."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import copying, extents, passing
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.durable import MARGIN_S, Flush
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror, PassReport
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from loop_device import MAKE, mounted

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("write", "store", "names")
LIFE_S = 600  # of a writer that nobody stops; longer than any test
ROUNDS = 5
QUIET_S = 2.1  # what nobody has written to for 2 s may be skipped from the next backup on


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A mounted file system of each kind."""
    images = tmp_path_factory.mktemp("disks")
    with ExitStack() as opened:
        yield {kind: opened.enter_context(mounted(images / kind, kind)) for kind in MAKE}


class Scene:
    """A source that processes write to, the copy of it, and the truth."""

    def __init__(self, root: Path, copies: Path, way: str):
        self.root = root
        self.way = way
        self.source, self.target, self.truth = root / "source", copies / "copy", copies / "truth"
        self.index = root / "index"
        self.source.mkdir(parents=True)
        self.writers: list[subprocess.Popen[str]] = []

    def start(self, *kinds: str) -> None:
        for number, kind in enumerate(kinds):
            command = [sys.executable, str(Path(__file__).with_name("writer.py")), kind, str(self.source)]
            command += [str(LIFE_S), str(random.randrange(1 << 30) + number)]
            self.writers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        for writer in self.writers:
            assert writer.stdout
            assert writer.stdout.readline() == "ready\n"

    def stop(self) -> None:
        for writer in self.writers:
            writer.kill()
            writer.wait()
            assert writer.stdout
            writer.stdout.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        for writer in self.writers:
            assert writer.poll() is None, "a writer ended before the test did"
            writer.send_signal(signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(writer.pid, os.WUNTRACED)[1])
        try:
            yield
        finally:
            for writer in self.writers:
                writer.send_signal(signal.SIGCONT)

    def mirror(self) -> Mirror:
        return Mirror(str(self.source), str(self.target), str(self.index), clone=self.way == "reflink")

    def capture(self) -> PassReport:
        """One capture as a backup makes it, and the truth by cp inside the same freeze."""
        one = self.mirror()
        if self.way == "two_pass":
            one.live_pass()
            time.sleep(random.random() * 0.1)
        else:
            one.flush()
        with self.frozen():
            report = one.frozen_pass()
            shutil.rmtree(self.truth, ignore_errors=True)
            subprocess.run(["cp", "-a", "--sparse=always", self.source, self.truth], check=True)
        one.save()
        return report

    def wrong(self) -> dict[str, Any]:
        """Where the copy is not the truth: (the copy's facts, the truth's) by path."""
        found, truth = facts(self.target), facts(self.truth)
        paths = sorted(found.keys() | truth.keys())
        return {path: (found.get(path), truth.get(path)) for path in paths if found.get(path) != truth.get(path)}


def facts(root: Path) -> dict[str, Any]:
    """All that can be seen of a tree, without the code under test."""
    found: dict[str, Any] = {}
    links: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        folders.sort()  # also the order in which they are walked, and so which name of several is the first
        for name in (".", *folders, *sorted(files)):
            path = os.path.join(folder, name)
            about = os.lstat(path)
            key = os.path.relpath(path, root)
            content = ""
            if stat.S_ISREG(about.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif stat.S_ISLNK(about.st_mode):
                content = os.readlink(path)
            attributes = [(name, os.getxattr(path, name)) for name in os.listxattr(path, follow_symlinks=False)]
            size = 0 if stat.S_ISDIR(about.st_mode) else about.st_size
            first = key if stat.S_ISDIR(about.st_mode) else links.setdefault(about.st_ino, key)
            owner = (about.st_mode, about.st_uid, about.st_gid)
            found[key] = (*owner, about.st_mtime_ns, size, content, sorted(attributes), first)
    return found


@contextmanager
def scene(disk: Path, copies: Path, way: str = "two_pass") -> Iterator[Scene]:
    """A source on one disk and its copy on the same or another; writers run while the block does."""
    stage = Scene(disk / "scene", copies / "scene", way)
    try:
        yield stage
    finally:
        stage.stop()
        for root in (disk, copies):
            shutil.rmtree(root / "scene", ignore_errors=True)


WAYS = [
    ("ext4", "ext4", "two_pass"),
    ("ext4", "ext4", "single"),
    ("xfs", "xfs", "two_pass"),
    ("xfs", "xfs", "single"),
    ("xfs", "xfs", "reflink"),
    ("xfs", "ext4", "two_pass"),
    ("btrfs", "btrfs", "two_pass"),
    ("btrfs", "btrfs", "reflink"),
]


@pytest.mark.parametrize(("disk", "copies", "way"), WAYS)
def test_every_capture_is_the_truth(disks: dict[str, Path], disk: str, copies: str, way: str) -> None:
    reports = []
    with scene(disks[disk], disks[copies], way) as stage:
        (stage.source / "still").write_bytes(b"nobody writes to this one")
        stage.start(*KINDS)
        for number in range(ROUNDS):
            reports.append(stage.capture())
            assert stage.wrong() == {}, number
            time.sleep(random.random() * 0.2 + (QUIET_S if number % 3 == 2 else 0))
    assert [report.bytes_read for report in reports if way == "reflink" and report.bytes_read] == []
    assert any(0 < report.files_read < report.files for report in reports), "nothing was ever skipped"


@pytest.mark.parametrize(("disk", "written_out"), [("xfs", True), ("btrfs", True), ("xfs", False)])
def test_clones_of_what_differs_are_the_truth(
    disks: dict[str, Path], monkeypatch: pytest.MonkeyPatch, disk: str, written_out: bool
) -> None:
    """Range by range, with nothing between them that might cover for one; a page that is dirty has no new block yet."""
    monkeypatch.setattr(extents, "NEAR", 0)
    if not written_out:
        monkeypatch.setattr(extents, "_SYNC", 0)
    wrong: dict[str, Any] = {}
    ranges: list[tuple[int, int]] = []
    exact = extents.differing

    def differing(ours: Any, theirs: Any, size: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = exact(ours, theirs, size)
        ranges.extend(one for one in found if one != (0, size))
        return found

    monkeypatch.setattr(copying, "differing", differing)
    with scene(disks[disk], disks[disk], "reflink") as stage:
        stage.start("write", "store", "store")
        for _round in range(ROUNDS if written_out else 20):
            stage.capture()
            wrong = stage.wrong()
            if wrong:
                break
            time.sleep(random.random() * 0.2)
    assert bool(wrong) != written_out
    assert len(ranges) > ROUNDS, "only whole files were ever cloned"


@pytest.mark.parametrize("disk", ["ext4", "xfs"])
def test_inode_size_and_times_alone_miss_stores(disks: dict[str, Path], disk: str, monkeypatch: Any) -> None:
    """The same test fails when times are believed as they are: even in nanoseconds, ctime and inode included.

    The copy is on ext4, since a copy from XFS to itself shares blocks, for which XFS flushes the file by itself.
    """
    monkeypatch.setattr(Flush, "covers", lambda flush, about: True)
    monkeypatch.setattr(passing, "write_out", lambda _file: None)
    with scene(disks[disk], disks["ext4"]) as stage:
        stage.start("store")
        wrong: dict[str, Any] = {}
        for _round in range(20):
            stage.capture()
            wrong = stage.wrong()
            if wrong:
                break
    assert wrong
    assert all(path.startswith("mapped-") for path in wrong)


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("disk", ["ext4", "xfs"])
def test_a_page_that_is_dirty_already_is_written_out_before_it_is_read(
    disks: dict[str, Path], disk: str, flushed: bool, monkeypatch: Any
) -> None:
    """Only then does a later store move the file's times; without it the same capture misses the store."""
    if not flushed:
        monkeypatch.setattr(passing, "write_out", lambda _file: None)
    with scene(disks[disk], disks["ext4"]) as stage:
        mapped = stage.source / "mapped"
        mapped.write_bytes(bytes(1 << 16))
        subprocess.run(["sync", "--file-system", stage.source], check=True)
        with open(mapped, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[0:5] = b"first"
            time.sleep(MARGIN_S + 0.2)  # the kernel writes it out by itself after 30 s
            one = stage.mirror()
            one.live_pass()
            assert (stage.target / "mapped").read_bytes()[:5] == b"first"
            memory[0:5] = b"later"
            one.frozen_pass()
            assert (stage.target / "mapped").read_bytes()[:5] == (b"later" if flushed else b"first")


def test_nothing_mounted_inside_is_left_out_silently(disks: dict[str, Path]) -> None:
    with scene(disks["xfs"], disks["ext4"]) as stage:
        (stage.source / "deep/mounted").mkdir(parents=True)
        one = stage.mirror()
        one.flush()
        subprocess.run(["mount", "-t", "tmpfs", "none", stage.source / "deep/mounted"], check=True)
        try:
            for late in (one, stage.mirror()):  # mounted after a mirror had looked, and before
                with pytest.raises(StackError, match=f"mounted at {stage.source}/deep/mounted, inside the volume"):
                    late.frozen_pass()
        finally:
            subprocess.run(["umount", stage.source / "deep/mounted"], check=True)
        stage.mirror().frozen_pass()


VICTIM = """
import sys, time
sys.path.insert(0, sys.argv[1])
from plugins.module_utils._core.capture.mirror import Mirror, PassReport
end = time.monotonic() + 20
while time.monotonic() < end:
    one = Mirror(*sys.argv[2:5])
    one.live_pass()
    one.live_pass()
    one.save()
"""


def test_a_capture_after_a_killed_one_is_the_truth(disks: dict[str, Path]) -> None:
    with scene(disks["ext4"], disks["ext4"]) as stage:
        stage.start(*KINDS)
        command = [sys.executable, "-c", VICTIM, str(REPOSITORY), *map(str, (stage.source, stage.target, stage.index))]
        for number in range(ROUNDS):
            victim = subprocess.Popen(command)
            time.sleep(0.15 + random.random())
            victim.kill()
            assert victim.wait() == -signal.SIGKILL
            stage.capture()
            assert stage.wrong() == {}, number


def test_names_that_become_anything_stop_no_live_pass(disks: dict[str, Path]) -> None:
    with scene(disks["ext4"], disks["ext4"]) as stage:
        stage.start("names", "names")
        end = time.monotonic() + 6
        while time.monotonic() < end:
            stage.mirror().live_pass()
        stage.capture()
        assert stage.wrong() == {}
