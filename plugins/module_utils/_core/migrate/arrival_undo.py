# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring an arrival that ended, or died, to one of its two ends: all taken over, or no trace of it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from ..engine import Engine
from ..errors import NotFoundError
from ..operation.journal import Journal
from ..operation.last import record_last
from ..operation.places import Places
from ..restore.kept import holds_data, remember
from ..restore.swap import Record
from ..restore.undo import discard, remove_tree, tidy
from .ending import end_at_once, end_processes
from .policies import restore_policies

KEY = "arrival"  # in the journal
CONTAINERS = "containers"  # in the journal: their restart policies by id
STARTED = "crew"  # in the journal: those that were started, by id, in their order
ACCEPTED = "accepted"
SWAPPING = "swapping"
_KEPT_S = 7 * 86400.0


def fence(places: Places) -> None:
    """Before anything else, and without the engine: nothing runs of an arrival that died and was not accepted."""
    journal = Journal.load(places)
    if journal is None or journal.data["operation"] != KEY:
        return
    if (journal.data.get(KEY) or {}).get("stage") != ACCEPTED:
        end_processes(journal.data.get(CONTAINERS) or ())


def undo(engine: Engine, journal: Journal) -> list[str]:
    """What recovery does; sentences. Raises StackError where a step fails; it can be called again."""
    found = journal.data.get(KEY)
    if not found:
        return []
    record = Record.from_json(found)
    places = Places(str(journal.data["project"]), record.state, "")
    if record.stage == ACCEPTED:
        finish(engine, places, journal)
        for identity in journal.data.get(STARTED) or ():  # they had no restart policy when the host went down
            with suppress(NotFoundError):
                if not engine.is_active(identity):
                    engine.start(identity)
        return ["The stack had been taken over, and runs here."]
    identities = list(journal.data.get(CONTAINERS) or {})
    said = [f"Killed container {name}." for name in end_at_once(engine, identities)]
    for swap in reversed(record.swaps):
        swap.back()
    for identity in identities:  # whatever they have written goes with them: this side has never counted
        with suppress(NotFoundError):
            engine.remove_container(identity, volumes=False)
    record_last(places, KEY, {"operation": record.id, "accepted": False})  # before what takes long
    for beside in record.beside:
        remove_tree(os.path.join(beside, "new"))
        said += discard(beside)
    return [*said, "Removed what had come from the source."]


def finish(engine: Engine, places: Places, journal: Journal) -> None:
    """All is as deployed, restart policies too; what was in the volumes before, if anything, is kept for a week."""
    record = Record.from_json(journal.data[KEY])
    restore_policies(engine, journal.data.get(CONTAINERS) or {})
    if not record.until:
        record.until = float(journal.data["started"]) + _KEPT_S
    remember(places, record)
    for swap in record.swaps:
        if holds_data(swap):
            remove_tree(os.path.join(swap.beside, "meta"))
        else:
            tidy(swap)
    record_last(places, KEY, _outcome(record))
    journal.end()


def _outcome(record: Record) -> dict[str, Any]:
    return {"operation": record.id, "accepted": True, "volumes": sorted(swap.volume for swap in record.swaps)}
