# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finish or undo a restore that died or failed, from its journal alone. Live and old data are never removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ..engine import ACTIVE, Engine
from ..errors import NotFoundError, StackError
from ..operation.journal import Journal
from ..operation.places import Places
from ..sizes import is_empty
from ..volumes import PROJECT_LABEL
from .crew import Crew, stop_if_active
from .kept import holds_data, is_ours, keep_taken_out, remember, supersede
from .swap import Record, Swap

KEY = "restore"  # in the journal
ACCEPTED = "accepted"
SWAPPING = "swapping"
TAKEN_BACK = "taken back"
FETCHED = ("new", "meta", ".new.restoring")  # what a fetch makes in a directory of ours


def undo(engine: Engine, journal: Journal, decided: Callable[[], None] = lambda: None) -> list[str]:
    """Bring a restore to one of its two ends: all data as before, or all data restored and the old kept.

    Which one follows from the journal; what has been done already from the disk, so that it can be called again.
    What was stopped is started by the caller: decided is called once all data is in its place, before anything is
    removed, which takes its time and can fail. Returns sentences; raises StackError where a step fails, with nothing
    lost.
    """
    found = journal.data.get(KEY)
    if not found:
        return []
    record = Record.from_json(found)
    if record.stage == ACCEPTED:
        decided()
        return finish(journal, record)
    said = _bring_back(engine, journal, record)
    decided()
    return said + _leave(engine, journal, record)


def _bring_back(engine: Engine, journal: Journal, record: Record) -> list[str]:
    """All data as it was before the restore.

    New data that has been live is not removed but kept: a container may have run on it, even where the run died before
    it started any (Docker starts those with a restart policy when the host is up again), and told clients that a write
    is done.
    """
    if record.stage != SWAPPING:
        return []
    refuse_away(record.swaps, "restore")
    stopped = [container["id"] for container in journal.data.get("stopped") or []]
    anew = _made_since(engine, journal, record, stopped)
    stop_if_active(engine, stopped)  # they may run on the new data by now
    if anew is not None:
        more = [{"id": identity, "name": anew.name(identity)} for identity in anew.ids]
        journal.note("stopped", [*(journal.data.get("stopped") or []), *more])
        stop_if_active(engine, anew.ids)
    if any(swap.lived() for swap in record.swaps):  # all of them then: the stores belong together
        record.lived = [swap.beside for swap in record.swaps]
    journal.note(KEY, record.as_json())  # before the first rename: afterwards the disk does not tell
    said = [f"Brought the old data of the volume {swap.volume} back." for swap in reversed(record.swaps) if swap.back()]
    record.stage = TAKEN_BACK  # what runs from here on runs on the old data, and is not stopped again
    journal.note(KEY, record.as_json())
    return said


def _leave(engine: Engine, journal: Journal, record: Record) -> list[str]:
    """After it was brought back: new data that has lived is kept, the rest of what the restore made goes away."""
    taken_out = keep_taken_out(Places(str(journal.data["project"]), record.state, ""), record)
    said = [entry.taken_out() for entry in taken_out]
    kept = {entry.path for entry in taken_out}
    for beside in record.beside:
        if beside in kept:
            remove_tree(os.path.join(beside, "meta"))
        else:
            said += discard(beside)
    needed = [swap for swap in record.swaps if os.path.lexists(swap.beside)]  # something of theirs is left there
    for name in record.created:
        if name in {swap.volume for swap in needed}:
            said.append(f"Left the volume {name}, which the restore made, for what is kept of it.")
        else:
            said += _remove_volume(engine, name)
    for directory in reversed(record.directories):
        if directory not in {swap.root for swap in needed}:
            with suppress(OSError):
                os.rmdir(directory)  # only if nothing is in it
    return said


def refuse_away(swaps: Iterable[Swap], operation: str) -> None:
    """Raise StackError where a directory of ours is not there, before anything is taken back.

    What is not there looks as if it had been swapped in, and a part of the stores alone must not go back. operation is
    what is taken back, for people.
    """
    for swap in swaps:
        if not os.path.isdir(swap.beside):
            raise StackError(
                f"The {operation} has to be taken back, and {swap.beside}, where the other data of the volume "
                f"{swap.volume} is, is not there; mount its disk, then run openmemory-stack recover. If it was removed "
                "on purpose, make that directory again, empty."
            )


def _made_since(engine: Engine, journal: Journal, record: Record, known: Sequence[str]) -> Crew | None:
    """Containers of the project that were made anew since run on the new data, too; None where there are none.

    Raises StackError for one that is not of the project and can write to it; who only reads loses nothing.
    """
    from ..capture.plan import writers  # late, as the next: most runs find nothing to take back
    from ..state import State, container_name
    from .targets import users_of

    project, state = str(journal.data["project"]), State(engine)
    found: dict[str, dict[str, Any]] = {}
    for swap in record.swaps:
        writing = {container["Id"] for container in writers(state, swap.volume, swap.root)}
        for user in users_of(swap.volume, swap.root, state):
            identity, own = user["Id"], (user.get("Labels") or {}).get(PROJECT_LABEL) == project
            if identity in {*known, *found} or user["State"] not in ACTIVE or not (own or identity in writing):
                continue
            if not engine.is_active(identity):
                continue
            if not own:
                raise StackError(
                    f"The container {container_name(user)} uses the volume {swap.volume}, in which a restore has to be "
                    "taken back; stop it, then run openmemory-stack recover."
                )
            found[identity] = engine.inspect_container(identity)
    return Crew(engine, project, found) if found else None


def finish(journal: Journal, record: Record) -> list[str]:
    """The restore was accepted: its old data goes on the list of what is kept, all else of ours goes away."""
    places = Places(str(journal.data["project"]), record.state, "")
    remember(places, record)
    supersede(places, record)
    said = []
    for swap in record.swaps:
        said += tidy(swap)
    return said


def discard(beside: str) -> list[str]:
    """Remove what was fetched into a directory of ours; old data in it, or what is not ours, stays and is said."""
    if not is_ours(beside) or not os.path.isdir(beside) or os.path.islink(beside):
        return []
    for name in FETCHED:
        remove_tree(os.path.join(beside, name))
    for directory in (os.path.join(beside, "old"), beside):
        with suppress(OSError):
            os.rmdir(directory)
    if os.path.lexists(beside):
        return [f"Left {beside}, which holds data that the restore did not bring: look at it."]
    return []


def tidy(swap: Swap) -> list[str]:
    """After a restore that was accepted: only the old data stays, and its directory only if there is some."""
    remove_tree(os.path.join(swap.beside, "meta"))
    for move in swap.moves:
        if not move.has_new or not os.path.lexists(move.new):
            continue
        raise StackError(f"{move.new} was not swapped in, though the restore was accepted; look at {swap.beside}.")
    if holds_data(swap):
        return []
    for move in swap.moves:
        with suppress(OSError):
            os.rmdir(move.old)  # the empty directory of a volume just made
    return discard(swap.beside)


def remove_tree(path: str) -> None:
    """Remove a directory of ours; none is no error. Raises StackError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StackError(f"{error.filename} cannot be removed ({error.strerror}); remove {path} yourself.") from error


def _remove_volume(engine: Engine, name: str) -> list[str]:
    """A Docker volume that the restore made, if nothing has come into it since."""
    try:
        volume = engine.inspect_volume(name)
    except NotFoundError:
        return []
    place = (volume.get("Options") or {}).get("device") or volume["Mountpoint"]
    try:
        if os.path.isdir(place) and not is_empty(place):
            return [f"Left the volume {name}, which the restore made: there is data in it."]
        engine.remove_volume(name)
    except (OSError, StackError) as error:
        return [f"Left the empty volume {name}, which the restore made ({error})."]
    return [f"Removed the volume {name}, which the restore had made."]
