# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The old data that restores keep until its time is over: the list of it, its removal, and the way back to it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ..errors import StackError
from ..filesystem import MountTable
from ..operation.durable_json import read_json, write_json
from ..operation.places import Places
from .swap import Record, Swap

# Only directories that are named as Target.beside() names them are ever removed.
_OURS = re.compile(r"\.openmemory-(restore|stack(-[A-Za-z0-9_.-]+)?)-[0-9]{8}t[0-9]{6}-[0-9a-f]{6}")
_CONTENTS = re.compile(r"new|old|meta|stray-[0-9]+|\.new\.restoring")
_FORMAT = 1
_MISSED_S = 30 * 86400.0  # after its time is over, a disk that is away does not come back
LEAST_KEPT_S = 86400.0  # of data that clients may have written to


@dataclass(frozen=True)
class Kept:
    """Old data of one volume. until and created are seconds since 1970; snapshot is what replaced it.

    mount is where its file system was mounted (None: not known). past: a later restore has replaced what it would go
    back from.
    """

    operation: str
    snapshot: str
    created: float
    until: float
    swap: Swap
    mount: str | None = None
    past: bool = False

    @property
    def path(self) -> str:
        return self.swap.beside

    def as_result(self) -> dict[str, Any]:
        """{volume, path, until (ISO, UTC), snapshot, operation} for people and for modules."""
        until = datetime.fromtimestamp(self.until, timezone.utc).isoformat(timespec="seconds")
        return {
            "volume": self.swap.volume,
            "path": self.path,
            "until": until,
            "snapshot": self.snapshot,
            "operation": self.operation,
        }

    def taken_out(self) -> str:
        """The sentence about new data that is kept after the way back."""
        return (
            f"What the restore had swapped into the volume {self.swap.volume}, with what was written to it since, is "
            f"kept in {self.path} until {self.as_result()['until']}, because containers may have run on it; "
            "openmemory-stack undo swaps it in."
        )

    def as_json(self) -> dict[str, Any]:
        numbers = {"until_s": self.until, "created_s": self.created}
        more = {"mount": self.mount, "past": self.past, "swap": self.swap.as_json()}
        return {**self.as_result(), **numbers, **more}

    @classmethod
    def from_json(cls, found: Any) -> Kept:
        times = float(found["created_s"]), float(found["until_s"])
        same = str(found["operation"]), str(found["snapshot"]), *times, Swap.from_json(found["swap"])
        return cls(*same, found.get("mount"), bool(found.get("past")))

    def is_away(self) -> bool:
        """Whether it is not there because its file system is not mounted now; not for what somebody has removed."""
        return bool(self.mount) and not os.path.lexists(self.path) and _mount_of(self.path) != self.mount


def load(places: Places) -> list[Kept]:
    """What is kept, oldest first; raises StackError where the list cannot be read (its data is then never removed)."""
    try:
        found = read_json(places.kept)
        return [] if found is None else [Kept.from_json(entry) for entry in found["kept"]]
    except (StackError, ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{places.kept}, the list of the old data that restores keep, cannot be read ({error}); move it away, "
            "and remove the directories named .openmemory-restore-… and .openmemory-stack-… yourself when they are not "
            "needed."
        ) from error


def save(places: Places, entries: Sequence[Kept]) -> None:
    """Replace the list, durably, 0600."""
    write_json(places.kept, {"format": _FORMAT, "kept": [entry.as_json() for entry in entries]})


def remember(places: Places, record: Record, now: float | None = None) -> list[Kept]:
    """Put the old data of an accepted restore on the list; once only, however often it is called."""
    entries = load(places)
    known = {entry.path for entry in entries if entry.operation == record.id}
    created = time.time() if now is None else now
    added = [
        Kept(record.id, record.snapshot, created, record.until, swap, _mount_of(swap.beside))
        for swap in record.swaps
        if swap.keeps_old and swap.beside not in known and holds_data(swap)
    ]
    if added:
        paths = {entry.path for entry in added}
        entries = [entry for entry in entries if entry.path not in paths]  # a restore taken back keeps the other side
        save(places, [*entries, *added])
    return [entry for entry in [*entries, *added] if entry.operation == record.id]


def supersede(places: Places, record: Record) -> None:
    """After a restore that was accepted: what earlier ones kept of its volumes is no way back from it."""
    volumes = {swap.volume for swap in record.swaps}
    entries = load(places)
    marked = [
        replace(entry, past=True) if entry.operation != record.id and entry.swap.volume in volumes else entry
        for entry in entries
    ]
    if marked != entries:
        save(places, marked)


def keep_taken_out(places: Places, record: Record, now: float | None = None) -> list[Kept]:
    """Put new data that was live until the way back on the list: what clients were told is written may be only there.

    Once only, however often it is called; raises StackError.
    """
    if not record.lived:
        return []
    moment = time.time() if now is None else now
    until = moment + max(LEAST_KEPT_S, record.keep_seconds)
    entries = load(places)
    longer = [
        replace(entry, until=max(entry.until, until))
        if entry.path in record.lived and entry.operation != record.id and entry.path not in record.beside
        else entry
        for entry in entries
    ]
    if longer != entries:  # what the way back of another restore had brought in is on the list already
        save(places, longer)
    swaps = [swap.turned() for swap in record.swaps if swap.beside in record.lived and swap.beside in record.beside]
    return remember(places, replace(record, swaps=swaps, until=until), moment)


def holds_data(swap: Swap) -> bool:
    """Whether there is old data of this swap; an empty directory, as of a volume just made, is none."""
    return any(move.had_live and not _is_empty_directory(move.old) for move in swap.moves)


def purge_expired(places: Places, now: float | None = None) -> list[str]:
    """Remove the old data whose time is over. Sentences of what was done; what looks odd is left alone and said."""
    entries = load(places)
    moment = time.time() if now is None else now
    said, left = [], []
    for entry in entries:
        away = entry.until + _MISSED_S > moment and entry.is_away()
        if away or (entry.until > moment and os.path.lexists(entry.path)):
            left.append(entry)
        elif not os.path.lexists(entry.path):
            said.append(f"the old data of {entry.swap.volume} in {entry.path} was removed by somebody else")
        else:
            problem = remove(entry.path)
            if problem:
                left.append(entry)
            said.append(problem or f"the old data of {entry.swap.volume} in {entry.path} was removed: its time is over")
    if len(left) != len(entries):
        save(places, left)
    return said


def remove(path: str) -> str | None:
    """Remove a directory of ours, or say in a sentence why not. Never anything but what Target.beside() names."""
    if not is_ours(path):
        return f"{path} does not have a name of ours and was left alone"
    try:
        about = os.lstat(path)
        if not stat.S_ISDIR(about.st_mode):
            return f"{path} is not a directory and was left alone"
        odd = [name for name in os.listdir(path) if not _CONTENTS.fullmatch(name)]
        if odd:
            return f"{path} holds {odd[0]}, which is not ours, and was left alone"
        mounts = MountTable.read().below(os.path.realpath(path))
        if mounts:
            return f"{path} has something mounted at {mounts[0]} and was left alone"
        shutil.rmtree(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{path} could not be removed ({error.filename}: {error.strerror})"
    return None


def is_ours(path: str) -> bool:
    """Whether a path is named as Target.beside() names what restores fetch and keep."""
    plain = os.path.isabs(path) and os.path.normpath(path) == path
    return plain and _OURS.fullmatch(os.path.basename(path)) is not None


def last(entries: Sequence[Kept]) -> list[Kept]:
    """Those of the newest restore, by their order; what conversions keep has no snapshot.

    Raises StackError where nothing is kept, or not (any more) by the last restore.
    """
    entries = [entry for entry in entries if entry.snapshot]
    if not entries:
        raise StackError("No restore has kept old data on this host, so there is nothing to go back to.")
    operation = next((entry.operation for entry in reversed(entries) if not entry.past), None)
    found = [entry for entry in entries if entry.operation == operation]
    if not found or any(entry.past for entry in found):
        old = ", ".join(entry.path for entry in found or entries)
        raise StackError(
            f"The last restore has kept no old data, or not any more; what is kept, in {old}, is of before an earlier "
            "restore. To go back that far, restore a snapshot of then: each restore made one with the tag safety."
        )
    return found


def _mount_of(path: str) -> str:
    """Where the file system of a path is mounted, or of the nearest directory above it that is there."""
    return MountTable.read().of(os.path.realpath(path)).point


def _is_empty_directory(path: str) -> bool:
    try:
        return not os.listdir(path)
    except NotADirectoryError:
        return False
    except FileNotFoundError:
        return True
