# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a copy's manifest says of the stores: counted before and after the window, and checked between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import sound_copy
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.stores.checked import CheckResult

BEFORE = {"graph": {"nodes": 5, "relationships": 1}}
AFTER = {"graph": {"nodes": 8, "relationships": 1}}


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, verify: str, finding: str = ""):
        self.asked = threading.Event()
        self.release = threading.Event()
        self.answers: Iterator[Any] = iter([AFTER])
        self.finding = finding
        monkeypatch.setattr(sound_copy.census, "ask", self.ask)
        monkeypatch.setattr(sound_copy, "check_staged", self.check)
        volumes = [SimpleNamespace(key=key, store=None) for key in ("graph", "table")]
        plan: Any = SimpleNamespace(volumes=volumes, containers={}, keys=None)
        request: Any = SimpleNamespace(verify=verify)
        others: Any = SimpleNamespace(scratch="/scratch", volume=lambda key: f"/staging/{key}")
        self.subject = sound_copy.SoundCopy(
            request, others, others, others, Progress(), plan, others, others, ["of the census before"]
        )

    def ask(self, *_args: Any) -> Any:
        self.asked.set()
        assert self.release.wait(20)
        return next(self.answers)

    def check(self, staged: Any, _scratch: str, _level: str) -> dict[str, CheckResult]:
        assert self.asked.wait(20), "the census is not asked beside the check"
        if not self.finding:
            self.release.set()
        table = CheckResult("sqlite", census={"tables": {"memories": 3}})
        if self.finding:
            table.damaged(self.finding)
        return {"graph": CheckResult("neo4j"), "table": table}

    def prove(self) -> dict[str, dict[str, Any]]:
        captured: Any = SimpleNamespace(before=BEFORE)
        return self.subject._prove(captured)


def test_numbers_that_moved_around_the_window_are_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, "quick")
    proof = scene.prove()
    assert proof["graph"]["census"] == {"nodes": [5, 8], "relationships": 1}
    assert proof["table"]["census"] == {"tables": {"memories": 3}}
    assert [one["check"]["level"] for one in proof.values()] == ["quick", "quick"]
    assert scene.subject.warnings == []


def test_they_are_counted_without_a_check_too(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, "none")
    scene.release.set()
    proof = scene.prove()
    assert proof["graph"] == {
        "census": {"nodes": [5, 8], "relationships": 1},
        "check": {"level": "none", "ok": None, "findings": []},
    }


def test_a_copy_that_is_not_sound_is_told_without_waiting_for_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, "quick", finding="page 7 is torn.")
    with pytest.raises(StackError, match=r"The copy of table is not sound: page 7 is torn"):
        scene.prove()
    assert not scene.release.is_set()
    scene.release.set()
