# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The flush that the rule counts from, and whether files can be cloned."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import durable
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError

NOW_S = 1_700_000_000.0

# mtime and ctime in seconds from the start of the flush; a step of the clock since then; whether the rule lets it pass.
COVERED = {
    "both old": (-2.1, -2.1, 0.0, True),
    "mtime within the margin": (-1.9, -60, 0.0, False),
    "ctime within the margin": (-60, -1.9, 0.0, False),
    "written since": (1, 1, 0.0, False),
    "clock set back": (-60, -60, -30.0, False),
    "clock set forward": (-60, -60, 30.0, False),
    "clock corrected a little": (-60, -60, 0.5, True),
}


@pytest.mark.parametrize("case", COVERED)
def test_what_a_flush_covers(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mtime, ctime, step, covered = COVERED[case]
    clock = [NOW_S]
    monkeypatch.setattr(durable.time, "time", lambda: clock[0])
    monkeypatch.setattr(durable.time, "clock_gettime", lambda which: 5000.0)
    monkeypatch.setattr(durable, "sync_filesystem", lambda path: NOW_S)
    flush = durable.Flush("/")
    clock[0] += step
    times = [0.0, 0.0, 0.0]
    details = {"st_mtime_ns": int((NOW_S + mtime) * 1e9), "st_ctime_ns": int((NOW_S + ctime) * 1e9)}
    about = os.stat_result([0] * 7 + times, details)
    assert flush.covers(about) is covered


def test_a_flush_tells_when_it_began(tmp_path: Path) -> None:
    before = time.time()
    assert before <= durable.sync_filesystem(str(tmp_path)) <= time.time()


def test_each_file_system_is_flushed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    really = os.open

    def note(path: str, *rest: Any, **more: Any) -> int:
        opened.append(path)
        return really(path, *rest, **more)

    monkeypatch.setattr(durable.os, "open", note)
    before = len(os.listdir("/proc/self/fd"))
    durable.sync_filesystems([str(tmp_path), "/proc", str(tmp_path / "..")])
    with pytest.raises(StackError, match="none cannot be opened to flush its file system: No such file"):
        durable.sync_filesystems([str(tmp_path), str(tmp_path / "none")])
    assert opened == [str(tmp_path), "/proc", str(tmp_path)]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("dirty", "writeback", "much"), [(400, 100, False), (400, 101, True), (0, 501, True), (None, 0, True)]
)
def test_when_much_is_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dirty: int | None, writeback: int, much: bool
) -> None:
    told = {"nr_free_pages": 9, "nr_writeback": writeback, "nr_dirty_background_threshold": 1000}
    told |= {} if dirty is None else {"nr_dirty": dirty}
    (tmp_path / "vmstat").write_text("".join(f"{name} {count}\n" for name, count in told.items()))
    monkeypatch.setattr(durable, "VMSTAT", str(tmp_path / "vmstat"))
    assert durable.much_is_dirty() is much


def test_this_machine_tells_how_much_is_dirty() -> None:
    text = Path(durable.VMSTAT).read_text()
    assert all(f"\n{name} " in text for name in ("nr_dirty", "nr_writeback", "nr_dirty_background_threshold"))


def test_a_journal_that_cannot_be_waited_for_is_named(tmp_path: Path) -> None:
    before = time.time()
    assert before <= durable.await_journal(str(tmp_path)) <= time.time()
    assert os.listdir(tmp_path) == []
    with pytest.raises(StackError, match=f"{tmp_path}/none/.committed-{os.getpid()} cannot be written"):
        durable.await_journal(str(tmp_path / "none"))


def test_a_flush_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"{tmp_path}/none cannot be opened to flush its file system: No such file"):
        durable.sync_filesystem(str(tmp_path / "none"))


def test_cloning_is_tried(tmp_path: Path) -> None:
    """It says what cp says, leaves nothing behind, and does not touch the source."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    target.mkdir()
    (source / "deep/file").write_text("x" * 5000)
    copy = subprocess.run(
        ["cp", "--reflink=always", source / "deep/file", tmp_path / "copy"], check=False, capture_output=True
    )
    assert durable.can_clone(str(source), str(target)) is (copy.returncode == 0)
    assert durable.can_clone(str(source), "/proc") is False
    assert os.listdir(target) == []
    assert os.listdir(source) == ["deep"]


def test_a_sample_that_goes_meanwhile_is_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's journal, say; the next file is tried."""
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "source" / "stays").write_text("x")
    tried = []

    def clone(sample: str, to: str) -> None:
        tried.append(os.path.basename(sample))
        os.stat(sample)

    monkeypatch.setattr(durable, "_clone", clone)
    gone = str(tmp_path / "source" / "gone")
    monkeypatch.setattr(durable, "_some_files", lambda _directory: iter([gone, str(tmp_path / "source" / "stays")]))
    assert durable.can_clone(str(tmp_path / "source"), str(tmp_path / "target"))
    assert tried[1:] == ["gone", "stays"]
