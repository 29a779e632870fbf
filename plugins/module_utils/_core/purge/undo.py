# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finish or undo a purge from its journal alone: before the removal has begun all runs again, from then on all goes."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..operation.journal import Journal
from ..operation.places import Places
from ..restore.targets import users_of
from ..state import State, container_name
from .record import DONE, KEY, REMOVING, Doomed, Record
from .trees import move_away, remove_tree

FINISHED = "The removal had begun, so the purge was finished."
_LAST = ("journal.json", "lock")


def undo(engine: Engine, journal: Journal) -> list[str]:
    """Bring a purge to one of its two ends; sentences of what was done. Can be called again; raises StackError.

    What was stopped is started afterwards by the caller (recover), and only before the removal began.
    """
    found = journal.data.get(KEY)
    if not found:
        return []
    record = Record.from_json(found)
    if record.stage != REMOVING:
        journal.note("stopped", record.stopped)  # whatever the snapshot made of it
        return ["Nothing of the stack was removed."]
    return [*finish(engine, journal, record), FINISHED]


def finish(engine: Engine, journal: Journal, record: Record) -> list[str]:
    """Remove what is still there. Each step is done once at most, so what was made since is never taken for it."""
    said: list[str] = []
    for each in record.containers:
        with suppress(NotFoundError):
            engine.remove_container(each["id"])
            said.append(f"Removed the container {each['name']}.")
    for each in record.networks:
        with suppress(NotFoundError):
            engine.remove_network(each["id"])
            said.append(f"Removed the network {each['name']}.")
    for name in record.volumes:
        said += _volume(engine, journal, name)
    for doomed in record.directories:
        said += _directory(engine, journal, doomed)
    for path in record.files:
        said += _file(journal, path)
    for path in record.empties:
        with suppress(OSError):
            os.rmdir(path)  # only if nothing is in it
    _clear(os.path.dirname(journal.path))
    return said


def leave(places: Places) -> None:
    """Remove our directories of a stack that is gone, for who holds the lock: the lock's file goes last.

    Where something came into them meanwhile, they stay.
    """
    shutil.rmtree(places.runtime, ignore_errors=True)
    with suppress(OSError):
        if os.listdir(places.state) == [os.path.basename(places.lock)]:
            os.unlink(places.lock)
            os.rmdir(places.state)


def _clear(state: str) -> None:
    """All that is kept between runs, but for the journal and the lock."""
    for name in os.listdir(state):
        path = os.path.join(state, name)
        try:
            if name not in _LAST and not remove_tree(path):
                os.unlink(path)
        except OSError as error:
            raise StackError(f"{path} cannot be removed ({error.strerror}); remove it yourself.") from error


def _volume(engine: Engine, journal: Journal, name: str) -> list[str]:
    mark = f"volume {name}"
    if mark in _done(journal):
        return []
    said = []
    try:
        engine.inspect_volume(name)
        _refuse_new_users(engine, journal, name, None)
        engine.remove_volume(name)
        said = [f"Removed the volume {name}."]
    except NotFoundError:  # anonymous ones go with their container
        pass
    journal.add(DONE, mark)
    return said


def _directory(engine: Engine, journal: Journal, doomed: Doomed) -> list[str]:
    """First out of the way, then away: what is under the name from then on is somebody else's."""
    moved, gone = f"moved {doomed.path}", f"path {doomed.path}"
    if gone in _done(journal):
        return []
    if doomed.trash and moved not in _done(journal):
        if not os.path.lexists(doomed.trash):
            _refuse_new_users(engine, journal, doomed.volume, doomed.path)
            move_away(doomed.path, doomed.trash)
        journal.add(DONE, moved)
    elif not doomed.trash and doomed.volume:
        _refuse_new_users(engine, journal, doomed.volume, doomed.path)
    there = remove_tree(doomed.trash or doomed.path, keep_root=doomed.stays)
    journal.add(DONE, gone)
    verb = "Emptied" if doomed.stays else "Removed"
    return [f"{verb} {doomed.path}, {doomed.what}."] if there else []


def _file(journal: Journal, path: str) -> list[str]:
    mark = f"file {path}"
    if mark in _done(journal):
        return []
    said = [f"Removed {path}."]
    try:
        os.unlink(path)
    except FileNotFoundError:
        said = []
    except OSError as error:
        raise StackError(f"{path} cannot be removed ({error.strerror}); repair that, or use become: true.") from error
    journal.add(DONE, mark)
    return said


def _refuse_new_users(engine: Engine, journal: Journal, volume: str | None, path: str | None) -> None:
    """Raise StackError where a container that was made since the purge began uses what would go now."""
    state = State(engine)
    users = state.users.get(str(volume), [])
    if path:
        users = users_of(str(volume), path, state)
    for user in users:
        what = path or f"the volume {volume}"
        raise StackError(
            f"The container {container_name(user)} was made since the purge began and uses {what}, which was to be "
            f"removed; remove that container to have the purge finished, or remove {journal.path} to keep what is left."
        )


def _done(journal: Journal) -> list[str]:
    return list((journal.data.get(KEY) or {}).get("done") or [])
