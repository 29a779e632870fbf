# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pause that runc gives up is tried again; any other refusal, and one that stays, is not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import freeze as freezing
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.freeze import Freeze
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places

# as Docker said it under load
GAVE_UP = "Cannot pause container 221bab: OCI runtime pause failed: unable to freeze: unknown"


class Refusing:
    """An engine whose first answers to a pause are refusals, and whose clock goes on with each by a second."""

    is_local = True

    def __init__(self, *refusals: str):
        self.refusals = list(refusals)
        self.asked: list[str] = []
        self.clock = 100.0
        self.started = "today"

    def pause(self, container: str) -> None:
        self.asked.append(container)
        self.clock += 1
        if self.refusals:
            raise StackError(self.refusals.pop(0))

    def inspect_container(self, container: str) -> dict[str, dict[str, str]]:
        return {"State": {"StartedAt": self.started}}


@pytest.fixture
def freeze(monkeypatch: pytest.MonkeyPatch) -> Callable[[Refusing], Freeze]:
    def of(engine: Refusing) -> Freeze:
        monkeypatch.setattr(freezing.time, "monotonic", lambda: engine.clock)
        monkeypatch.setattr(freezing.time, "sleep", lambda _seconds: None)
        places = Places("openmemory", "/nowhere", "/nowhere")
        return Freeze(engine, "openmemory", places, Journal("/nowhere/journal.json", {}), [])

    return of


def pause(freeze: Freeze, name: str = "app") -> None:
    freeze._do("pause", {"Id": name, "Name": f"/{name}", "State": {"StartedAt": "today"}})


Making = Callable[[Refusing], Freeze]


def test_what_runc_gave_up_is_tried_again(freeze: Making) -> None:
    engine = Refusing(*[GAVE_UP] * 5)
    pause(freeze(engine))
    assert engine.asked == ["app"] * 6


def test_what_it_gives_up_each_time_is_refused(freeze: Making) -> None:
    engine = Refusing(*[GAVE_UP] * 100)
    with pytest.raises(StackError, match=r"app could not be paused, so nothing was backed up.*unable to freeze"):
        pause(freeze(engine))
    assert engine.asked == ["app"] * 7  # five seconds after the first


def test_one_while_is_for_all_of_them(freeze: Making) -> None:
    engine = Refusing(*[GAVE_UP] * 100)
    made = freeze(engine)
    engine.refusals[4:] = []
    pause(made)
    engine.refusals = [GAVE_UP] * 100
    with pytest.raises(StackError, match="db could not be paused"):
        pause(made, "db")
    assert engine.asked == ["app"] * 5 + ["db"] * 2


def test_not_once_the_guard_has_fired(freeze: Making) -> None:
    engine = Refusing(*[GAVE_UP] * 100)
    made = freeze(engine)
    made._guard = SimpleNamespace(fired="deadline")
    with pytest.raises(StackError, match="unable to freeze"):
        pause(made)
    assert engine.asked == ["app"]


def test_nor_one_that_has_started_again(freeze: Making) -> None:
    engine = Refusing(*[GAVE_UP] * 100)
    engine.started = "tomorrow"
    with pytest.raises(StackError, match="unable to freeze"):
        pause(freeze(engine))
    assert engine.asked == ["app"]


def test_another_refusal_is_final(freeze: Making) -> None:
    engine = Refusing("Container app is not running")
    with pytest.raises(StackError, match="is not running"):
        pause(freeze(engine))
    assert engine.asked == ["app"]
