# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pause that runc gives up is tried again; any other refusal, and one that stays, is not."""

from __future__ import annotations

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import freeze as freezing
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.freeze import Freeze
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places

# as Docker said it under load
GAVE_UP = "Cannot pause container 221bab: OCI runtime pause failed: unable to freeze: unknown"


class Refusing:
    """An engine whose first answers to a pause are refusals."""

    is_local = True

    def __init__(self, *refusals: str):
        self.refusals = list(refusals)
        self.asked = 0

    def pause(self, container: str) -> None:
        assert container == "221bab"
        self.asked += 1
        if self.refusals:
            raise StackError(self.refusals.pop(0))


def pause(engine: Refusing) -> None:
    places = Places("openmemory", "/nowhere", "/nowhere")
    freeze = Freeze(engine, "openmemory", places, Journal("/nowhere/journal.json", {}), [])
    freeze._do("pause", {"Id": "221bab", "Name": "/app"})


def test_what_runc_gave_up_is_tried_again() -> None:
    engine = Refusing(*[GAVE_UP] * 10)
    pause(engine)
    assert engine.asked == 11


def test_what_it_gives_up_each_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freezing, "PAUSE_S", 0.3)
    engine = Refusing(*[GAVE_UP] * 100)
    with pytest.raises(StackError, match="app could not be paused, so nothing was backed up"):
        pause(engine)
    assert 2 < engine.asked < 10


def test_another_refusal_is_final() -> None:
    engine = Refusing("Container 221bab is not running")
    with pytest.raises(StackError, match="is not running"):
        pause(engine)
    assert engine.asked == 1
