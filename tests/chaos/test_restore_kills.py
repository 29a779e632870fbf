# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores, and their way back, on the real engine, killed at every phase, and what clients were told is written."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from aftermath import BOTH, PROMISED_S, leftovers, paused
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror, PassReport
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import back, kept, restore, swap
from killing import Arm, after, at_phase, killed
from restore_stack import PROJECT, VOLUMES, Stack

DAY = 86400.0
PHASES = ("fetch", "check", "probe", "safety", "freeze", "stop", "swap", "start", "health", "finish")
SAFETY = ("safety", "freeze")  # freeze: of the safety capture


def when_accepted(patch: pytest.MonkeyPatch) -> None:
    notes = Journal.notes

    def killing(self: Journal, values: dict[str, Any]) -> None:
        notes(self, values)
        if values.get("restore", {}).get("stage") == "accepted":
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(Journal, "notes", killing)


def while_frozen(patch: pytest.MonkeyPatch) -> None:
    """In the safety capture, when both are paused."""

    def killing(_mirror: Mirror, _budget: float | None = None) -> PassReport:
        states = [container["State"] for container in Engine.connect().containers() if PROJECT in str(container)]
        assert states == ["paused", "paused"]
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    patch.setattr(Mirror, "frozen_pass", killing)


LIVED = PHASES[7:]  # the new data was in then, and a client may have written to it
STOPS = PHASES[5:]  # what was stopped waits for the next run
KILLS = [
    *(
        pytest.param(
            at_phase(name, 0),
            {"safety": name in SAFETY, "probe": name == "probe"},
            "live",
            name in LIVED,
            name not in STOPS,
            id=f"phase-{name}",
        )
        for name in PHASES
    ),
    pytest.param(while_frozen, {"safety": True}, "live", False, True, id="frozen"),
    *(
        pytest.param(after(swap, "_rename", number), {}, "live", number > 1, False, id=f"rename-{number}")
        for number in (1, 4, 7)
    ),
    pytest.param(when_accepted, {}, "snapshot", True, True, id="accepted"),
]


def restoring(stack: Stack, **asked: Any) -> Callable[[], object]:
    return lambda: restore.run(replace(stack.request, **asked), Engine.connect(), Progress())


def undo(stack: Stack) -> object:
    return back.run(PROJECT, str(stack.state), Engine.connect(), Progress())


def assert_is(stack: Stack, wanted: dict[str, Any], keeps: bool) -> None:
    """keeps: other data of each volume is kept beside it."""
    assert (stack.trees(), stack.running()) == (wanted, BOTH)
    assert len(stack.left()) == (len(VOLUMES) if keeps else 0)
    assert leftovers(stack) == []


def assert_recovers(stack: Stack, wanted: dict[str, Any], run: bool, keeps: bool) -> None:
    """run: both containers run without that; keeps: see assert_is()."""
    end_s = time.monotonic() + PROMISED_S
    while (run and stack.running() != BOTH) or paused(stack):  # by the guard alone: nobody has run anything
        assert time.monotonic() < end_s, "what was paused does not run"
    said = recover(stack.engine, stack.places)
    assert said[-1].startswith("Ended the restore that died in the phase ")
    assert_is(stack, wanted, keeps)
    assert recover(stack.engine, stack.places) == []


@pytest.mark.parametrize(("arm", "asked", "end", "keeps", "run"), KILLS)
def test_killed_and_recovered(
    stack: Stack,
    snapshot: dict[str, Any],
    arm: Arm,
    asked: dict[str, Any],
    end: str,
    keeps: bool,
    run: bool,
) -> None:
    wanted = snapshot if end == "snapshot" else stack.trees()
    killed(arm, restoring(stack, **asked))
    assert_recovers(stack, wanted, run, keeps)


UNDO_KILLS = [
    *(pytest.param(at_phase(name, 0), "restored", id=f"phase-{name}") for name in ("stop", "start", "finish")),
    *(pytest.param(after(swap, "_rename", number), "restored", id=f"rename-{number}") for number in (1, 4, 7)),
    pytest.param(when_accepted, "live", id="accepted"),
]


@pytest.mark.parametrize(("arm", "end"), UNDO_KILLS)
def test_an_undo_is_killed_and_recovered(stack: Stack, arm: Arm, end: str) -> None:
    """One state is live then and the other one kept, both whole: a further one swaps them."""
    states = {"live": stack.trees()}
    stack.restore()
    for name in VOLUMES:
        (stack.root(name) / "made since").write_text("acknowledged")  # it is nowhere else
    states["restored"] = stack.trees()
    killed(arm, lambda: undo(stack))
    assert_recovers(stack, states[end], end == "live", True)
    undo(stack)
    assert_is(stack, states["live" if end == "restored" else "restored"], True)


@pytest.mark.parametrize("single", [False, True])
def test_what_clients_wrote_to_the_new_data_is_kept(stack: Stack, single: bool) -> None:
    """The restore died, the host came up again, the engine started the containers, and clients wrote for hours."""
    live = stack.trees()
    asked: dict[str, Any] = {"volumes": ["db"], "path": "openmemory.db"} if single else {}
    names = ("db",) if single else VOLUMES
    killed(at_phase("start", 0), restoring(stack, **asked))
    for name in ("store", "app"):
        stack.client.start(f"{PROJECT}-{name}")
    with closing(sqlite3.connect(stack.root("db") / "openmemory.db", isolation_level=None)) as client:
        client.execute("PRAGMA journal_mode=wal")
        client.execute("INSERT INTO memories VALUES ('2', 'acknowledged')")
        for name in set(names) - {"db"}:
            (stack.root(name) / "made since").write_text("acknowledged")
            (stack.root(name) / "same").write_text("acknowledged")
        written = stack.trees()
        assert "openmemory.db-wal" in written["db"]
        said = recover(stack.engine, stack.places)
    assert (stack.trees(), stack.running()) == (live, BOTH)
    entries = kept.load(stack.places)
    assert sorted(entry.swap.volume for entry in entries) == [f"{PROJECT}_{name}" for name in names]
    assert all(entry.until > time.time() + 6 * DAY for entry in entries)
    assert all(any(f"kept in {entry.path} until" in sentence for sentence in said) for entry in entries)
    undo(stack)
    with closing(sqlite3.connect(stack.root("db") / "openmemory.db")) as reader:
        assert reader.execute("SELECT text FROM memories").fetchall() == [("snapshot",), ("acknowledged",)]
    now = stack.trees()
    del now["db"], written["db"]  # opened since
    assert now == written
    undo(stack)
    assert stack.trees() == live
