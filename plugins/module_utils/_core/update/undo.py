# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finish or undo an update that died or failed, from its journal alone. Neither side's data is removed within a day."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress

from ..compose_containers import PROJECT_LABEL
from ..engine import Engine
from ..errors import NotFoundError
from ..moving import rebuild
from ..moving.rebuild import Recipe
from ..operation.journal import Journal
from ..operation.places import Places
from ..restore import kept
from ..restore.crew import stop_if_active
from ..restore.kept import LEAST_KEPT_S
from ..restore.swap import Record as KeptRecord
from ..restore.swap import Swap
from ..restore.undo import refuse_away, remove_tree
from ..state import container_name
from ..stores import sqlite
from . import files, formats
from .record import ACCEPTED, KEY, REPLACING, TAKEN_BACK, Record

FINISHED = "The new versions had been found to work, so the update was finished."


def undo(engine: Engine, journal: Journal) -> list[str]:
    """Bring an update to one of its two ends: all as before, or the new versions and the copy of before kept.

    It can be called again. What shall run is in the journal afterwards, and is started by the caller (recover).
    Returns sentences; raises StackError where a step fails, with nothing lost.
    """
    found = journal.data.get(KEY)
    if not found:
        return []
    record = Record.from_json(found)
    if record.stage == ACCEPTED:
        return [*finish(journal, record), FINISHED]
    said = []
    if record.stage == REPLACING:
        said += _containers_back(engine, journal, record)
    said += _tags_back(engine, record)
    if record.stage == REPLACING:
        for reference, identity in record.names.items():
            engine.tag_image(identity, reference)  # for a moment: a store is known by the name of its image
        rebuild.make_all(engine, journal, [Recipe.from_json(one) for one in record.recipes])
        _tags_back(engine, record)
        record.stage, record.files = TAKEN_BACK, {}
        journal.note(KEY, record.as_json())
    return [*said, *_leave(journal, record)]


def finish(journal: Journal, record: Record) -> list[str]:
    """It was accepted: the copies go on the list of what is kept, or away; all else of ours goes away."""
    said = []
    if record.until > time.time():
        swaps = [swap for swap in record.swaps if kept.holds_data(swap)]
        kept.remember(_places(journal, record), _kept(record, swaps, record.until))
        said += _tidy(record, {swap.beside for swap in swaps})
    else:
        said += _tidy(record, set())
    shutil.rmtree(record.saved or os.devnull, ignore_errors=True)
    return said


def _containers_back(engine: Engine, journal: Journal, record: Record) -> list[str]:
    """No new container is left, files and data are those of before."""
    if record.back is not False:
        refuse_away(record.swaps, "update")
    said = [f"Removed the container {name}." for name in _remove_new(engine, journal, record)]
    recipes = [Recipe.from_json(one) for one in record.recipes]
    if record.back is None:
        _stop_touched(engine, record, recipes)
        record.back = record.lost or _has_moved(journal, record)
        journal.note(KEY, record.as_json())  # before the first rename: afterwards the disk does not tell
    if record.back:
        stop_if_active(engine, [one.id for one in recipes])
        for swap in reversed(record.swaps):
            if swap.back():
                said.append(f"Brought the data of {swap.volume} from before the update back.")
    said += [f"Put {path} back." for path in files.put_back(record.files, record.saved)]
    return said


def _remove_new(engine: Engine, journal: Journal, record: Record) -> list[str]:
    """Stop and remove the project's containers that were not there before; also what Compose left half made."""
    before = {str(one["id"]) for one in record.recipes}
    names = []
    for container in engine.containers():
        if (container.get("Labels") or {}).get(PROJECT_LABEL) != journal.data["project"] or container["Id"] in before:
            continue
        with suppress(NotFoundError):
            stop_if_active(engine, [container["Id"]])
            engine.remove_container(container["Id"], volumes=False)
            names.append(container_name(container))
    return names


def _stop_touched(engine: Engine, record: Record, recipes: Sequence[Recipe]) -> None:
    """Nobody may write to a database that is compared; a container of before runs where Compose had not come to it."""
    names = {swap.volume for swap in record.swaps if swap.key in record.touched}
    stop_if_active(engine, [one.id for one in recipes if names & _volumes_of(one)])


def _volumes_of(one: Recipe) -> set[str]:
    host = one.body["HostConfig"]
    return {str(bind).partition(":")[0] for bind in host["Binds"]} | {
        str(mount.get("Source")) for mount in host.get("Mounts") or ()
    }


def _has_moved(journal: Journal, record: Record) -> bool:
    """Whether an older version might not read what is there now. Only of SQLite it can be told that it does."""
    scratch = _places(journal, record).scratch
    for swap in record.swaps:
        kind = record.touched.get(swap.key)
        if kind is None:
            continue
        if kind != sqlite.KIND or formats.moved(_copy_of(swap), swap.root, scratch):
            return True
    return False


def _copy_of(swap: Swap) -> str:
    return os.path.join(swap.beside, "old")


def _tags_back(engine: Engine, record: Record) -> list[str]:
    """A tag that the pull has moved means the old image again, or the next start would bring the new one."""
    said = []
    for reference, identity in record.tags.items():
        try:
            if engine.inspect_image(reference)["Id"] == identity:
                continue
        except NotFoundError:
            pass
        with suppress(NotFoundError):  # removed by somebody meanwhile
            engine.tag_image(identity, reference)
            said.append(f"{reference} means the image of before again.")
    return said


def _leave(journal: Journal, record: Record) -> list[str]:
    """What one of the two sides may be alone in having is kept for a day; the rest of ours goes."""
    said = []
    swaps: list[Swap] = []
    if record.back is not None:
        swaps = [swap.turned() if record.back else swap for swap in record.swaps]
        swaps = [swap for swap in swaps if kept.holds_data(swap)]
        kept.remember(_places(journal, record), _kept(record, swaps, time.time() + LEAST_KEPT_S))
        what = "What the new version had made of" if record.back else "The copy from before the update of"
        said = [f"{what} {swap.volume} is kept in {swap.beside} for a day." for swap in swaps]
    said += _tidy(record, {swap.beside for swap in swaps})
    shutil.rmtree(record.saved or os.devnull, ignore_errors=True)
    return said


def _tidy(record: Record, full: set[str]) -> list[str]:
    """Remove our directories, but for the data in those that are kept."""
    said = []
    for beside in record.beside:
        if beside in full:
            remove_tree(os.path.join(beside, "meta"))
            continue
        problem = kept.remove(beside)
        said += [problem] if problem else []
    return said


def _kept(record: Record, swaps: Sequence[Swap], until: float) -> KeptRecord:
    return KeptRecord(record.id, "", record.state, swaps=list(swaps), until=until)


def _places(journal: Journal, record: Record) -> Places:
    return Places(str(journal.data["project"]), record.state, "")
