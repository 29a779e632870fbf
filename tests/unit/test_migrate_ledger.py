# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each pass of a migration sends, and what it may leave out; with the real rsync where the copy itself matters."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import durable
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import ledger as under_test
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import transfer
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.arrival import RSYNCD
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.ledger import Batch, Ledger
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.transfer import send

MARGIN_S = 0.05
REST_S = MARGIN_S * 3
UNPRIVILEGED = "use chroot = no\nmunge symlinks = no\nread only = no\nlist = no\n"
# What rsync starts in place of SSH: a daemon of its own, with the settings that it finds here.
DAEMON = """#!/bin/sh
exec rsync --server --daemon --config={conf} .
"""


class Scene:
    """A source with a file, a link and directories, and where its copy goes."""

    def __init__(self, root: Path):
        self.source, self.target = root / "source", root / "target"
        (self.source / "deep/er").mkdir(parents=True)
        (self.source / "file").write_bytes(b"content" * 999)
        (self.source / "deep/er/inner").write_text("inner")
        (self.source / "link").symlink_to("nowhere")
        (self.source / "two\nlines").write_text("2")
        self.target.mkdir()
        conf, self.shell = root / "rsyncd.conf", root / "shell"
        conf.write_text(f"{RSYNCD if os.geteuid() == 0 else UNPRIVILEGED}[data]\npath = {self.target}\n")
        self.shell.write_text(DAEMON.format(conf=conf))
        self.shell.chmod(0o755)

    def ledger(self) -> Ledger:
        return Ledger(str(self.source))

    def settled(self) -> Ledger:
        """A ledger after one pass over a source that was quiet for long enough to be vouched for."""
        time.sleep(REST_S)
        one = self.ledger()
        one.sent(one.batch(frozen=False), whole=True)
        return one

    def copy(self, one: Ledger, frozen: bool = False) -> Batch:
        """A pass by rsync."""
        batch = one.batch(frozen)
        one.sent(batch, send(batch, one.source, "data", [str(self.shell)], frozen=frozen))
        return batch


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(durable, "MARGIN_S", MARGIN_S)
    monkeypatch.setattr(under_test, "KNOWN", (MountTable.read().of(str(tmp_path)).type,))
    return Scene(tmp_path)


def facts(root: Path) -> list[str]:
    """What find sees, and the contents. rsync leaves the fraction of a second of what is no file, if that is all."""
    line = r"%P\0%y %m %U %G {} %l %n\n"
    shown = ["find", root, "-type", "f", "-printf", line.format("%T@"), "-o", "-printf", line.format("%Ts")]
    listed = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.split("\n")
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(listed) + [f"{path.relative_to(root)} {path.read_bytes()!r}" for path in files]


def test_the_first_pass_sends_everything(scene: Scene) -> None:
    batch = scene.ledger().batch(frozen=False)
    assert set(batch.paths) == {".", "file", "deep", "deep/er", "deep/er/inner", "link", "two\nlines"}
    assert (batch.files, batch.bytes) == (3, 7 * 999 + 5 + 1)


def test_what_was_quiet_before_a_flush_is_not_sent_again(scene: Scene) -> None:
    one = scene.settled()
    assert one.batch(frozen=False).paths == []
    assert one.batch(frozen=True).paths == []


def test_what_changed_right_before_the_flush_is_sent_again(scene: Scene) -> None:
    """The rule's core: a store into a page that is dirty already moves no time."""
    one = scene.ledger()
    one.sent(one.batch(frozen=False), whole=True)
    assert "file" in one.batch(frozen=True).paths


def test_without_a_flush_nothing_is_vouched_for(scene: Scene) -> None:
    time.sleep(REST_S)
    one = scene.ledger()
    one.sent(one.batch(frozen=True), whole=True)
    assert len(one.batch(frozen=True).paths) == 7


def test_a_batch_that_did_not_arrive_whole_is_sent_again(scene: Scene) -> None:
    time.sleep(REST_S)
    one = scene.ledger()
    one.sent(one.batch(frozen=False), whole=False)
    assert len(one.batch(frozen=False).paths) == 7


def in_place(path: Path) -> None:
    """Other contents, with the size and the mtime that it had."""
    about = path.stat()
    path.write_bytes(b"CONTENT" * 999)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def swapped(path: Path) -> None:
    """Another file under the name, with the same size and mtime."""
    about = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"CONTENT" * 999)
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    other.replace(path)


def mapped(path: Path) -> None:
    with open(path, "r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
        memory[0:7] = b"CONTENT"


@pytest.mark.parametrize(
    "change", [in_place, swapped, mapped, lambda path: path.chmod(0o600), lambda path: os.truncate(path, 5)]
)
def test_what_changed_is_sent(scene: Scene, change: Callable[[Path], object]) -> None:
    one = scene.settled()
    change(scene.source / "file")
    assert "file" in one.batch(frozen=True).paths


def test_what_changed_between_the_look_and_the_end_of_sending_is_sent_again(scene: Scene) -> None:
    time.sleep(REST_S)
    one = scene.ledger()
    batch = one.batch(frozen=False)
    in_place(scene.source / "file")
    one.sent(batch, whole=True)
    assert one.batch(frozen=True).paths == ["file"]


def test_what_is_gone_is_sent_as_gone_each_time(scene: Scene) -> None:
    """It may have come back right before it was to be removed, and have gone again."""
    one = scene.settled()
    (scene.source / "file").unlink()
    shutil.rmtree(scene.source / "deep/er")
    batch = one.batch(frozen=True)
    assert {"file", "deep/er"} <= set(batch.paths)
    assert "deep/er/inner" not in batch.paths
    one.sent(batch, whole=True)
    assert set(one.batch(frozen=True).paths) - {".", "deep"} == {"file", "deep/er"}


def test_nothing_vouches_for_what_was_in_a_directory_that_went_and_came_back(scene: Scene) -> None:
    """It was removed there with all that was in it, and its files look as they did when they were sent."""
    one = scene.settled()
    os.rename(scene.source / "deep/er", scene.source / "away")
    one.sent(one.batch(frozen=True), whole=True)
    os.rename(scene.source / "away", scene.source / "deep/er")
    assert "deep/er/inner" in one.batch(frozen=True).paths


def test_on_a_file_system_that_is_not_known_the_frozen_pass_sends_all(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "KNOWN", ())
    one = scene.settled()
    assert one.batch(frozen=False).paths == []
    assert len(one.batch(frozen=True).paths) == 7


def test_a_clock_that_was_set_vouches_for_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(REST_S)
    one = scene.ledger()
    real = durable._clock_offset
    offsets = iter([0.0, *[5.0] * 100])
    monkeypatch.setattr(durable, "_clock_offset", lambda: real() + next(offsets))
    one.sent(one.batch(frozen=False), whole=True)
    assert len(one.batch(frozen=True).paths) == 7


def test_excluded_names_are_left_out_at_the_top_only(scene: Scene) -> None:
    for place in ("lost+found", "deep/lost+found"):
        (scene.source / place).mkdir()
    found = Ledger(str(scene.source), ("lost+found",)).batch(frozen=False).paths
    assert "deep/lost+found" in found
    assert "lost+found" not in found


def test_what_is_mounted_inside_is_refused(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MountTable, "below", lambda _self, path: [f"{path}/deep"])
    with pytest.raises(StackError, match="deep"):
        scene.ledger()


def vanishing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is listed, and gone when it is looked at."""
    real = os.scandir

    def listing(path: str) -> list[os.DirEntry[str]]:
        found = list(real(path))
        (scene.source / "file").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(os, "scandir", listing)


def test_what_vanishes_while_the_stack_runs_is_no_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    vanishing(scene, monkeypatch)
    assert "file" not in scene.ledger().batch(frozen=False).paths


def test_what_vanishes_while_all_is_frozen_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    vanishing(scene, monkeypatch)
    with pytest.raises(StackError, match="file cannot be read"):
        scene.ledger().batch(frozen=True)


def test_rsync_makes_the_target_the_same_after_every_kind_of_change(scene: Scene) -> None:
    one = scene.ledger()
    scene.copy(one)
    assert facts(scene.target) == facts(scene.source)
    time.sleep(REST_S)
    scene.copy(one)
    in_place(scene.source / "file")
    shutil.rmtree(scene.source / "deep")
    (scene.source / "deep").write_text("a file now")
    (scene.source / "link").unlink()
    (scene.source / "link").mkdir()
    (scene.source / "link/new").write_text("a directory now")
    (scene.source / "two\nlines").unlink()
    scene.copy(one, frozen=True)
    assert facts(scene.target) == facts(scene.source)
    shutil.rmtree(scene.source / "link")
    (scene.source / "link").symlink_to("elsewhere")
    scene.copy(one, frozen=True)
    assert facts(scene.target) == facts(scene.source)


def test_hard_links_stay_links_when_only_one_name_is_new(scene: Scene) -> None:
    os.link(scene.source / "file", scene.source / "deep/hard")
    one = scene.ledger()
    scene.copy(one)
    time.sleep(REST_S)
    scene.copy(one)
    os.link(scene.source / "file", scene.source / "third")
    scene.copy(one, frozen=True)
    assert facts(scene.target) == facts(scene.source)


def test_holes_stay_holes(scene: Scene) -> None:
    with open(scene.source / "sparse", "wb") as stream:
        stream.truncate(64 << 20)
        stream.seek(32 << 20)
        stream.write(b"x")
    scene.copy(scene.ledger(), frozen=True)
    assert (scene.target / "sparse").stat().st_blocks * 512 < 1 << 20


def test_what_vanishes_while_rsync_sends_is_left_to_the_next_pass(scene: Scene) -> None:
    time.sleep(REST_S)
    one = scene.ledger()
    batch = one.batch(frozen=False)
    (scene.source / "file").unlink()
    shutil.rmtree(scene.source / "deep")
    one.sent(batch, send(batch, one.source, "data", [str(scene.shell)], frozen=False))
    scene.copy(one, frozen=True)
    assert facts(scene.target) == facts(scene.source)


def test_rsyncs_own_reason_is_said(scene: Scene) -> None:
    one = scene.ledger()
    with pytest.raises(StackError, match=r"could not be sent: .*Unknown module 'nothing'"):
        send(one.batch(frozen=True), one.source, "nothing", [str(scene.shell)], frozen=True)


CONFUSED = """file has vanished: "/source/moved0"

rsync: [sender] read errors mapping "/source/d0/n1": Is a directory (21)
ERROR: d0/n1 failed verification -- update discarded.

Invalid packet at end of run (21) [sender]
rsync error: protocol incompatibility (code 2) at main.c(937) [sender=3.5.0]
"""


@pytest.mark.parametrize("errors", [CONFUSED, "protocol version mismatch -- is your shell clean?\n"])
def test_an_rsync_that_loses_count_ends_no_live_pass(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, errors: str
) -> None:
    """What rsync 3.5.0 was seen to say where files became directories; not any other word of its protocol."""
    monkeypatch.setattr(transfer, "_run", lambda *_args, **_options: (2, errors))
    one = scene.ledger()
    batch = one.batch(frozen=False)
    if errors is CONFUSED:
        assert send(batch, one.source, "data", [str(scene.shell)], frozen=False) is False
    else:
        with pytest.raises(StackError, match="could not be sent: protocol version mismatch"):
            send(batch, one.source, "data", [str(scene.shell)], frozen=False)
    with pytest.raises(StackError, match=r"could not be sent: (rsync: .sender. read errors|protocol version)"):
        send(batch, one.source, "data", [str(scene.shell)], frozen=True)


def test_the_bytes_that_were_sent_are_told(scene: Scene) -> None:
    (scene.source / "file").write_bytes(os.urandom(3 << 20))
    told: list[int] = []
    one = scene.ledger()
    send(one.batch(frozen=False), one.source, "data", [str(scene.shell)], frozen=False, on_bytes=told.append)
    assert 3 << 20 <= sum(told) < 4 << 20
