# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of a capture: which passes are made before the window, and what is asked when."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import capture as capturing
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress


class Scene:
    """A capture of one volume whose mirror, freeze and clock are ours; log is what happened, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, warm: bool, pass_s: float = 0.2, wait_s: float = 0.0):
        self.log: list[str] = []
        self.now = 0.0
        self.warm, self.pass_s, self.wait_s = warm, [pass_s], wait_s
        self.fails = self.dirty = False
        self.target = "/copy"
        monkeypatch.setattr(capturing, "_mirror", lambda *_arguments: self)
        monkeypatch.setattr(capturing, "Freeze", self.freeze)
        monkeypatch.setattr(capturing, "refuse_others", lambda *_arguments: self.log.append("others"))
        monkeypatch.setattr(capturing, "much_is_dirty", lambda: self.dirty)
        monkeypatch.setattr(capturing, "sync_filesystems", lambda paths: self.log.append(f"written {list(paths)}"))
        clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: 1e9 + self.now)
        monkeypatch.setattr(capturing, "time", clock)

    def is_warm(self) -> bool:
        return self.warm

    def live_pass(self) -> Any:
        seconds = self.pass_s.pop(0) if self.pass_s else 0.01
        self.now += seconds
        self.log.append("pass")
        return SimpleNamespace(bytes_read=100, seconds=seconds)

    def frozen_pass(self, _budget: float) -> Any:
        self.log.append("frozen")
        return SimpleNamespace(bytes_read=1, seconds=0.01)

    def flush(self) -> None:
        self.log.append("flush")

    def save(self) -> None:
        self.log.append("save")

    def ready(self) -> None:
        self.now += self.wait_s
        self.log.append("ready")
        if self.fails:
            raise StackError("The repository's password is wrong.")

    def freeze(self, *arguments: Any) -> Any:
        scene, last = self, arguments[-1]

        class Fake:
            window, quiesced = 0.1, ()

            def __enter__(self) -> None:
                scene.log.append("armed")
                last()

            def __exit__(self, *_error: Any) -> None:
                scene.log.append("resumed")

            def check(self) -> None:
                pass

        return Fake()

    def run(self, way: str = "two_pass") -> Any:
        volume = SimpleNamespace(key="q", path="/q", size=SimpleNamespace(allocated_bytes=1))
        plan: Any = SimpleNamespace(volumes=[volume], frozen=[volume], live=[], project="p", pause=[], stop=[])
        journal: Any = SimpleNamespace(phase=lambda _name: None)
        asked: Any = SimpleNamespace(name=way)
        nothing: Any = None
        settings = capturing.CaptureSettings()
        ends = [nothing, nothing, nothing, journal, Progress(), settings]
        return capturing.capture(plan, asked, *ends, lambda: self.log.append("census"), self.ready)


def test_a_warm_copy_is_brought_up_to_date_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, warm=True)
    assert [report.bytes_read for report in scene.run().earlier] == [100]
    assert scene.log == ["census", "armed", "pass", "ready", "others", "frozen", "resumed", "save", "others"]


def test_a_cold_copy_is_made_before_the_census(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, warm=False)
    assert [report.bytes_read for report in scene.run().earlier] == [100, 100]
    assert scene.log[:6] == ["pass", "census", "armed", "pass", "ready", "others"]
    assert scene.log[6:] == ["frozen", "resumed", "save", "others"]


def test_after_a_long_pass_the_census_is_taken_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, warm=True, pass_s=30.0)
    scene.run()
    assert scene.log[:7] == ["census", "armed", "pass", "pass", "ready", "census", "pass"]
    assert scene.log[7:9] == ["others", "frozen"]


def test_what_was_written_while_the_repository_was_waited_for_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, warm=True, wait_s=3.0)
    scene.run()
    assert scene.log[:6] == ["census", "armed", "pass", "ready", "pass", "others"]


def test_where_much_waits_to_be_written_it_is_written_before_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, warm=False)
    scene.dirty = True
    scene.run()
    written = "written ['/copy']"
    assert scene.log[:8] == ["pass", written, "census", "armed", "pass", written, "ready", "others"]


def test_without_a_pass_the_file_system_is_flushed_beside_the_key_and_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, warm=False)
    scene.run("single")
    assert scene.log[:5] == ["census", "armed", "flush", "ready", "others"]
    scene = Scene(monkeypatch, warm=False, wait_s=3.0)
    scene.run("single")
    assert scene.log[:6] == ["census", "armed", "flush", "ready", "flush", "others"]


def test_a_repository_that_refuses_freezes_nothing_and_costs_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    for warm, way in ((True, "two_pass"), (False, "single")):
        scene = Scene(monkeypatch, warm)
        scene.fails = True
        with pytest.raises(StackError, match="password is wrong"):
            scene.run(way)
        assert "frozen" not in scene.log
        assert scene.log[-1] == "save"
