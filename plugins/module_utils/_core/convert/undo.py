# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finish or undo a conversion that died or failed, from its journal alone. Neither side's data is ever removed."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from ..engine import Engine
from ..moving import rebuild
from ..operation.journal import Journal
from ..operation.places import Places
from ..restore import kept
from ..restore.kept import LEAST_KEPT_S
from ..restore.swap import Record as KeptRecord
from ..restore.undo import discard, refuse_away, remove_tree, tidy
from .redefine import Record

KEY = "convert"  # in the journal
COPYING = "copying"
SWAPPING = "swapping"
STARTED = "started"
ACCEPTED = "accepted"
TAKEN_BACK = "taken back"


def undo(engine: Engine, journal: Journal) -> list[str]:
    """Bring a conversion to one of its two ends: all volumes as before, or all as asked for and the old data kept.

    It can be called again. What shall run is in the journal afterwards, and is started by the caller (recover).
    Returns sentences; raises StackError where a step fails, with nothing lost.
    """
    found = journal.data.get(KEY)
    if not found:
        return []
    record = Record.from_json(found)
    if record.stage == ACCEPTED:
        return finish(journal, record)
    said = []
    if record.stage in (SWAPPING, STARTED):
        changes = record.changes()
        refuse_away([swap for change in changes for swap in (change.out, change.into)], "conversion")
        recipes = [rebuild.Recipe.from_json(one) for one in record.recipes]
        said += [f"Removed the container {name}, to make it again." for name in rebuild.remove_others(engine, recipes)]
        record.lived = record.lived or record.stage == STARTED or any(change.into.lived() for change in changes)
        journal.note(KEY, record.as_json())  # before the first rename: afterwards the disk does not tell
        for change in reversed(changes):
            change.back(engine)
            said.append(f"Gave the volume {change.volume} its old definition and data again.")
        rebuild.make_all(engine, journal, recipes)
        record.stage = TAKEN_BACK
        journal.note(KEY, record.as_json())
    said += _keep_or_discard(journal, record)
    for directory in reversed(record.made):
        with suppress(OSError):
            os.rmdir(directory)  # only if nothing is in it
    return said


def finish(journal: Journal, record: Record) -> list[str]:
    """It was accepted: the old data goes on the list of what is kept, all else of ours goes away."""
    changes = record.changes()
    moved = [change.out for change in changes if change.out.moves]
    kept.remember(_places(journal, record), KeptRecord(record.id, "", record.state, swaps=moved, until=record.until))
    said = []
    for change in changes:
        said += tidy(change.into)
    full = {swap.beside for swap in moved if kept.holds_data(swap)}
    for beside in record.beside:
        if beside not in full:
            said += discard(beside)
    return said


def _keep_or_discard(journal: Journal, record: Record) -> list[str]:
    """New data on which containers may have run is kept for a day: clients may have been told that it is written."""
    said = []
    lived = [change.into for change in record.changes() if record.lived and os.path.lexists(change.into.beside)]
    if lived:
        until = time.time() + LEAST_KEPT_S
        swaps = [swap.turned() for swap in lived]
        kept.remember(_places(journal, record), KeptRecord(record.id, "", record.state, swaps=swaps, until=until))
        said += [
            f"What was written to the volume {swap.volume} in its new place is kept in {swap.beside} for a day."
            for swap in swaps
            if kept.holds_data(swap)
        ]
    places = {swap.beside for swap in lived if kept.holds_data(swap.turned())}
    for beside in record.beside:
        if beside not in places:
            said += discard(beside)
        else:
            remove_tree(os.path.join(beside, "meta"))
    return said


def _places(journal: Journal, record: Record) -> Places:
    return Places(str(journal.data["project"]), record.state, "")
