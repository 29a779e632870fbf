# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operation has changed and not yet put back, kept on disk so that the next run can."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from ..errors import StackError
from .durable_json import read_json, sync_directory, write_json
from .places import Places
from .process import boot_id, start_ticks

_ROOM = 1 << 20  # bytes: some times what the record of a restore takes, and the list of what is kept


class Journal:
    """The record of one operation under way. Every change is on disk before the call returns; all raise StackError.

    Room for what has to be written on the way back is taken from the disk at the beginning, see free_room().
    """

    def __init__(self, path: str, data: dict[str, Any]):
        self.data = data
        self.path = path

    @classmethod
    def begin(cls, places: Places, operation: str, operation_id: str) -> Journal:
        """Start a record. There must be none: the caller holds the lock and has called recover()."""
        if os.path.exists(places.journal):
            raise StackError(f"{places.journal} is left of an operation that died; run recover first.")
        pid = os.getpid()
        journal = cls(
            places.journal,
            {
                "format": 1,
                "project": places.project,
                "operation": operation,
                "id": operation_id,
                "phase": "begin",
                "started": time.time(),
                "pid": pid,
                "pid_start": start_ticks(pid),
                "boot_id": boot_id(),
            },
        )
        journal._take_room()
        try:
            journal._write()
        except StackError:
            journal.free_room()
            raise
        return journal

    @classmethod
    def load(cls, places: Places) -> Journal | None:
        """What a run that died has left, or None."""
        data = read_json(places.journal)
        if data is None:
            return None
        if not isinstance(data, dict) or not isinstance(data.get("operation"), str):
            raise StackError(f"{places.journal} is not a journal; look at it, and remove it to go on without it.")
        if data.get("format") != 1:
            raise StackError(f"{places.journal} was written by a newer version; recover with that version.")
        return cls(places.journal, data)

    @property
    def same_boot(self) -> bool:
        """Whether the host has not been rebooted since the operation began."""
        return bool(self.data.get("boot_id") == boot_id())

    def phase(self, name: str) -> None:
        """Say what is being done now, in one word."""
        self.note("phase", name)

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value. A dictionary is merged into the one that is there, key by key; all else replaces it."""
        self.notes({key: value})

    def notes(self, values: dict[str, Any]) -> None:
        """Keep several values with one write to disk; see note()."""
        changed = {}
        for key, value in values.items():
            there = self.data.get(key)
            changed[key] = {**there, **value} if isinstance(there, dict) and isinstance(value, dict) else value
        write_json(self.path, {**self.data, **changed})
        self.data.update(changed)  # only now: what could not be written must not be believed either

    def add(self, key: str, *items: Any) -> None:
        """Append to a list; "throwaway.containers" is the list containers in the dictionary throwaway."""
        found = self._list(key)
        found.extend(item for item in items if item not in found)
        self._write()

    def drop(self, key: str, *items: Any) -> None:
        """Take items out of a list, if they are there; key as for add()."""
        found = self._list(key)
        found[:] = [item for item in found if item not in items]
        self._write()

    def free_room(self) -> None:
        """Give the disk back what was taken: the operation is on its way to one of its ends, which a full disk must not
        stop halfway, with containers stopped.
        """
        with contextlib.suppress(OSError):
            os.unlink(self._room)

    def end(self) -> None:
        """Nothing is left to put back: remove the record."""
        self.free_room()
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            sync_directory(os.path.dirname(self.path))
        except OSError as error:
            raise StackError(f"{self.path} cannot be removed ({error.strerror}); use become: true.") from error

    @property
    def _room(self) -> str:
        return f"{self.path}.room"

    def _take_room(self) -> None:
        try:
            descriptor = os.open(self._room, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _ROOM)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.free_room()
            raise StackError(
                f"{self.path} cannot be written ({error.strerror}); free space or repair the disk."
            ) from error

    def _list(self, key: str) -> list[Any]:
        holder = self.data
        *above, last = key.split(".")
        for name in above:
            holder = holder.setdefault(name, {})
        found: list[Any] = holder.setdefault(last, [])
        return found

    def _write(self) -> None:
        write_json(self.path, self.data)
