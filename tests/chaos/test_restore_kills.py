# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores on the real engine, killed at every phase, and what clients were told is written meanwhile."""

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
from aftermath import BOTH, PROMISED_S, paused
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror, PassReport
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import back, kept, restore, swap
from restore_stack import PROJECT, VOLUMES, Stack

DAY = 86400.0
PHASES = ("fetch", "check", "probe", "safety", "freeze", "stop", "swap", "start", "health", "finish")
SAFETY = ("safety", "freeze")  # freeze: of the safety capture


def at_phase(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def arm(patch: pytest.MonkeyPatch) -> None:
        phase = Journal.phase

        def killing(self: Journal, now: str) -> None:
            phase(self, now)
            if now == name:
                os.kill(os.getpid(), signal.SIGKILL)

        patch.setattr(Journal, "phase", killing)

    return arm


def at_rename(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    def arm(patch: pytest.MonkeyPatch) -> None:
        done: list[str] = []

        def killing(source: str, target: str) -> None:
            rename(source, target)
            done.append(target)
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        rename = swap._rename
        patch.setattr(swap, "_rename", killing)

    return arm


def when_accepted(patch: pytest.MonkeyPatch) -> None:
    note = Journal.note

    def killing(self: Journal, key: str, value: Any) -> None:
        note(self, key, value)
        if key == "restore" and value["stage"] == "accepted":
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(Journal, "note", killing)


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
            at_phase(name),
            {"safety": name in SAFETY, "probe": name == "probe"},
            "live",
            name in LIVED,
            name not in STOPS,
            id=f"phase-{name}",
        )
        for name in PHASES
    ),
    pytest.param(while_frozen, {"safety": True}, "live", False, True, id="frozen"),
    *(pytest.param(at_rename(number), {}, "live", number > 1, False, id=f"rename-{number}") for number in (1, 4, 7)),
    pytest.param(when_accepted, {}, "snapshot", True, True, id="accepted"),
]


def killed(stack: Stack, arm: Callable[[pytest.MonkeyPatch], None], **asked: Any) -> None:
    """A restore in a process of its own, which dies."""
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            arm(pytest.MonkeyPatch())
            restore.run(replace(stack.request, **asked), Engine.connect(), Progress())
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(("arm", "asked", "end", "keeps", "run"), KILLS)
def test_killed_and_recovered(
    stack: Stack,
    snapshot: dict[str, Any],
    arm: Callable[[pytest.MonkeyPatch], None],
    asked: dict[str, Any],
    end: str,
    keeps: bool,
    run: bool,
) -> None:
    wanted = snapshot if end == "snapshot" else stack.trees()
    killed(stack, arm, **asked)
    end_s = time.monotonic() + PROMISED_S
    while (run and stack.running() != BOTH) or paused(stack):  # by the guard alone: nobody has run anything
        assert time.monotonic() < end_s, "what was paused does not run"
    said = recover(stack.engine, stack.places)
    assert said[-1].startswith("Ended the restore that died in the phase ")
    assert (stack.trees(), stack.running()) == (wanted, ["omrest-app", "omrest-store"])
    assert len(stack.left()) == (len(VOLUMES) if keeps else 0)
    assert sorted(entry.path for entry in kept.load(stack.places)) == sorted(stack.left())
    assert recover(stack.engine, stack.places) == []


@pytest.mark.parametrize("single", [False, True])
def test_what_clients_wrote_to_the_new_data_is_kept(stack: Stack, single: bool) -> None:
    """The restore died, the host came up again, the engine started the containers, and clients wrote for hours."""
    live = stack.trees()
    asked: dict[str, Any] = {"volumes": ["db"], "path": "openmemory.db"} if single else {}
    names = ("db",) if single else VOLUMES
    killed(stack, at_phase("start"), **asked)
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
    assert (stack.trees(), stack.running()) == (live, ["omrest-app", "omrest-store"])
    entries = kept.load(stack.places)
    assert sorted(entry.swap.volume for entry in entries) == [f"{PROJECT}_{name}" for name in names]
    assert all(entry.until > time.time() + 6 * DAY for entry in entries)
    assert all(any(f"kept in {entry.path} until" in sentence for sentence in said) for entry in entries)
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    with closing(sqlite3.connect(stack.root("db") / "openmemory.db")) as reader:
        assert reader.execute("SELECT text FROM memories").fetchall() == [("snapshot",), ("acknowledged",)]
    now = stack.trees()
    del now["db"], written["db"]  # opened since
    assert now == written
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    assert stack.trees() == live
