# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finish or undo the source's part of a migration, also from its journal alone."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..capture.thaw import let_run, look
from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..operation.journal import Journal
from ..operation.places import Places
from ..operation.retired import Retirement
from .ending import end_at_once
from .policies import restore_policies
from .request import Key, MigrateRequest, forget_keys

KEY = "migrate"  # in the journal
MOVING = "moving"
COMMITTING = "committing"
RETIRED = "retired"
_RETRY_S = 1.0
_QUESTION_S = 60.0
_FIRST_PATIENCE_S = 5.0


class InDoubtError(StackError):
    """Which side counts cannot be told, so neither runs."""


def undo(engine: Engine, journal: Journal) -> list[str]:
    """What recovery does; sentences. Raises InDoubtError where the target has to be asked and cannot be reached."""
    record = journal.data.get(KEY) or {}
    stage = record.get("stage")
    if stage is None:
        return []
    request = MigrateRequest(**record["request"])
    places = Places.of(request.project, request.state_dir, create=False)
    if stage == COMMITTING:
        accepted = outcome(places, request, patience=_FIRST_PATIENCE_S)
        stage = resolve(engine, journal, accepted)
    if stage == RETIRED:
        finish(engine, places, journal)
        return [f"The stack runs on {request.target} by now, so it was retired here."]
    restore_policies(engine, record.get("policies") or {})
    if not journal.same_boot:  # frozen when the host went down, perhaps with no restart policy just then
        _go_on(engine, journal.data.get("paused") or ())
    forget_keys(places)
    return ["The stack was not moved."]


def outcome(places: Places, request: MigrateRequest, patience: float) -> bool:
    """Whether the target has taken over, by its own word. InDoubtError if it gives none within patience seconds."""
    command = Key(places, request.operation).question(request)
    deadline = time.monotonic() + patience
    while True:
        done = None
        with suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_QUESTION_S
            )
        if done is not None and done.returncode == 0:
            with suppress(ValueError, LookupError, TypeError):
                return bool(json.loads(done.stdout.strip().splitlines()[-1])["accepted"])
        if time.monotonic() > deadline:
            why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1] if done is not None else "no answer"
            raise InDoubtError(
                f"Whether {request.target} has taken the stack {request.project} over cannot be told ({why}), so it "
                "runs on neither side and nothing is lost. Make the target reachable and run openmemory-stack recover "
                "here, or migrate.yml again; whichever side counts then goes on."
            )
        time.sleep(_RETRY_S)


def resolve(engine: Engine, journal: Journal, accepted: bool) -> str:
    """Go on from the commit as the target has said; the new stage."""
    record = journal.data[KEY]
    if accepted:
        journal.note(KEY, {"stage": RETIRED})
        return RETIRED
    journal.notes({"paused": record["frozen"], KEY: {"stage": MOVING}})  # first: the target is not asked twice
    _go_on(engine, record["frozen"])
    restore_policies(engine, record.get("policies") or {})  # undo() does it again, should this be the end
    return MOVING


def in_doubt(places: Places) -> bool:
    """Whether only the target can tell which side counts."""
    journal = Journal.load(places)
    return journal is not None and (journal.data.get(KEY) or {}).get("stage") == COMMITTING


def _go_on(engine: Engine, containers: Sequence[Mapping[str, Any]]) -> None:
    """Resume what is frozen, and start what has ended since, in the order of their dependencies."""
    for container in containers:
        with suppress(NotFoundError):
            state = look(engine, container)["State"]
            if state["Paused"]:
                let_run(engine, container, state)
            elif not state["Running"]:
                engine.start(container["id"])


def finish(engine: Engine, places: Places, journal: Journal) -> Retirement:
    """The target counts: nothing of the stack runs here any more, nor starts by itself. Its data stays."""
    record = journal.data[KEY]
    request, policies = MigrateRequest(**record["request"]), record.get("policies") or {}
    retirement = Retirement(request.operation, request.project, request.target, request.address)
    retirement.volumes, retirement.policies = record.get("volumes") or {}, policies
    retirement.write(places)
    end_at_once(engine, dict.fromkeys([*(one["id"] for one in record.get("frozen") or ()), *policies]))
    forget_keys(places)
    return retirement
