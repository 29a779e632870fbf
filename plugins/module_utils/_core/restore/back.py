# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Taking the last restore back: what it has kept is swapped in again, and what it had brought is kept instead."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from ..engine import Engine
from ..errors import StackError
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import Places, require_local
from ..operation.progress import Progress
from ..operation.recover import recover
from ..state import State
from . import kept
from .crew import Crew
from .exchange import Exchange, not_foreseen, take_back
from .kept import Kept
from .plan import crew_of, inspect_users
from .restore import new_id
from .swap import Move, Record, Root, Swap, in_root_moves
from .targets import Target, existing_target, refuse_active, refuse_foreign


def run(
    project: str,
    state_dir: str,
    engine: Engine,
    progress: Progress,
    check_mode: bool = False,
    wait_timeout: float = 300.0,
) -> dict[str, Any]:
    """Swap back what the newest restore has kept; {changed, operation, volumes, downtime_s, kept, actions, warnings}.

    Once more brings the restored data in again. Raises StackError, with everything as before then, also where nothing
    is kept any more.
    """
    require_local(engine)
    places = Places.of(project, state_dir, create=not check_mode)
    if check_mode:
        entries, _targets, crew = _plan(engine, places)
        return {**_result(entries, crew), "downtime_s": None}
    with OperationLock(places, "restore"):
        progress.attach(places.progress)
        said = recover(engine, places, lock_held=True)
        progress.phase("plan")
        entries, targets, crew = _plan(engine, places)
        journal = Journal.begin(places, "restore", new_id())
        record = Record(str(journal.data["id"]), entries[0].snapshot, places.state)
        exchange = Exchange(crew, journal, record, progress, None, wait_timeout)
        # what the restore had brought has lived on since: it is kept as long again, from now
        keep_seconds = max(kept.LEAST_KEPT_S, entries[0].until - entries[0].created)
        try:
            downtime = exchange.run(
                lambda: _swaps(entries, targets, engine), bool(crew.ids), lambda: "", lambda: None, keep_seconds
            )
        except OSError as error:
            failed = not_foreseen(error, "way back")
            take_back(failed, engine, places, crew, journal, wait_timeout)
            raise failed from error
        except BaseException as error:
            take_back(error, engine, places, crew, journal, wait_timeout)
            raise
        progress.done()
        result = _result(entries, crew)
        there = [entry.as_result() for entry in kept.load(places) if entry.operation == record.id]
        actions = [*said, *result["actions"]]
        return {**result, "kept": there, "downtime_s": round(downtime, 3), "actions": actions}


def _plan(engine: Engine, places: Places) -> tuple[list[Kept], list[Target], Crew]:
    entries = kept.last(kept.load(places))
    state = State(engine)
    targets = []
    for entry in entries:
        if entry.swap.volume not in state.volumes:
            raise StackError(f"The volume {entry.swap.volume} is gone; what was kept of it is in {entry.path}.")
        if not os.path.isdir(entry.path):
            raise StackError(f"{entry.path}, where the old data of {entry.swap.volume} was kept, is gone.")
        swap = entry.swap
        whole = swap.before is not None or any(move.live == swap.root for move in swap.moves)
        target = existing_target(swap.key, swap.volume, {}, state, whole)
        if target.path != entry.swap.root:
            raise StackError(
                f"The volume {target.name} lies at {target.path} now, and the old data was kept for {entry.swap.root}; "
                "move it by hand."
            )
        refuse_foreign(target, places.project)
        targets.append(target)
    containers = inspect_users(engine, places.project, targets)
    return entries, targets, crew_of(engine, places.project, targets, containers)


def _result(entries: list[Kept], crew: Crew) -> dict[str, Any]:
    volumes = [entry.swap.volume for entry in entries]
    actions = [f"swap the old data of the volume {name} in again" for name in volumes]
    if crew.ids:
        actions = [f"stop {', '.join(reversed(crew.names()))}", *actions, f"start {', '.join(crew.names())}"]
    return {
        "changed": True,
        "operation": entries[0].operation,
        "snapshot_id": entries[0].snapshot,
        "volumes": volumes,
        "kept": [],
        "actions": actions,
        "warnings": [],
    }


def _swaps(entries: list[Kept], targets: list[Target], engine: Engine) -> list[Swap]:
    refuse_active(targets, engine)
    return [_swap_of(entry) for entry in entries]


def _swap_of(entry: Kept) -> Swap:
    """The swap that brings the old data in, by what is there now."""
    swap = entry.swap
    if swap.before is not None:  # the root stays, and names may have come since
        old, new = os.path.join(swap.beside, "old"), os.path.join(swap.beside, "new")
        if any(move.old.startswith(f"{new}/") for move in swap.moves):  # it was taken back before
            old, new = new, old
        moves = in_root_moves(swap.root, new=old, old=new)
        return replace(swap, moves=moves, before=Root.read(swap.root), after=swap.before, created=False)
    moves = [
        Move(move.live, move.old, move.new, os.path.lexists(move.live), os.path.lexists(move.old))
        for move in swap.moves
    ]
    return replace(swap, moves=moves, created=False)
