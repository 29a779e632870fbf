# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Conversions on the real engine that are killed: nobody runs anything, and the stack runs again within seconds."""

from __future__ import annotations

import os
import signal

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.convert import convert
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.watcher import Watcher
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from convert_stack import BOTH, contents, home, left, request, run
from killing import Arm, at_phase, await_watcher, killed, refused_while_away, seconds_down
from restore_stack import PROJECT, Stack

__all__ = ["home"]  # a fixture

PROMISED_S = 5.0
KILLS = [("copy", 0.0), ("stop", 0.05), ("settle", 0.0), ("swap", 0.0), ("start", 0.0), ("prove", 0.0)]


def kill(home: Stack, arm: Arm) -> None:
    """A conversion of a volume of each kind of place, with a connection of its own, as it is a fork."""
    new = home.directory / "new"
    asked = request(home, data=str(new / "data"), place=None, disk=str(new / "disk"))
    (home.state / PROJECT / "last.json").unlink(missing_ok=True)
    killed(arm, lambda: convert.run(asked, Engine.connect(), Progress()))


@pytest.mark.parametrize(("phase", "after_s"), KILLS)
def test_killed_it_runs_on_the_old_place_within_seconds(home: Stack, phase: str, after_s: float) -> None:
    before = home.trees()
    kill(home, at_phase(phase, after_s))
    assert seconds_down(home, BOTH) < PROMISED_S
    assert home.running() == BOTH
    assert home.trees() == before
    await_watcher(home.places)
    assert read_last(home.places)["recovered"]["message"].startswith(f"The convert of the stack {PROJECT} died in ")
    assert recover(home.engine, home.places) == []
    if phase in ("start", "prove"):  # somebody may have written to the new places
        assert {entry.swap.key for entry in kept.load(home.places)} == {"data", "place", "disk"}
    else:
        assert left(home) == []


def test_killed_when_all_is_proven_it_is_finished(home: Stack) -> None:
    before, new = home.trees(), home.directory / "new"
    kill(home, lambda patch: patch.setattr(convert, "finish", lambda *_: os.kill(os.getpid(), signal.SIGKILL)))
    await_watcher(home.places)
    assert home.running() == BOTH
    assert contents(new / "data") == before["data"]
    assert contents(new / "disk") == before["disk"]
    assert recover(home.engine, home.places) == []


def unwatched(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Watcher, "_watch", lambda *_: None)
    at_phase("start", 0.0)(patch)


def test_killed_with_its_watcher_the_next_run_undoes_it(home: Stack) -> None:
    before = home.trees()
    kill(home, unwatched)
    assert os.path.exists(home.places.journal)
    assert home.running() != BOTH
    assert run(home)["actions"]
    assert (home.running(), home.trees()) == (BOTH, before)


def test_nothing_is_taken_back_while_a_disk_is_away(home: Stack) -> None:
    """The old data on it would not come back, and the containers would run on an empty place."""
    before = home.trees()
    kill(home, unwatched)
    assert refused_while_away(home, "convert", "conversion") == 6  # of each volume the old place and the new one
    recover(home.engine, home.places)
    assert (home.running(), home.trees()) == (BOTH, before)
