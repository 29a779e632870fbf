# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One operation at a time on a stack."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..errors import BusyError, StackError
from .places import Places
from .process import start_ticks

RECOVERY = "recover"
_LOOK_S = 0.1
_DEAD_S = 5.0  # between fork and exec a child has the lock of a parent that was killed then: milliseconds, mostly
_held: set[int] = set()


def _forget() -> None:
    # a child made by fork alone would keep the lock after its parent's death
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


class OperationLock:
    """Holds the stack's lock. The kernel releases it when the process dies, so a file that is left blocks nobody."""

    def __init__(self, places: Places, operation: str, patience: float = 0.0):
        """patience: for how many seconds a recovery is waited for; any other operation is refused at once."""
        self._places = places
        self._operation = operation
        self._patience = patience
        self._descriptor = -1

    def __enter__(self) -> OperationLock:
        """Take the lock. Raises BusyError naming the operation that has it."""
        try:
            descriptor = os.open(self._places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StackError(f"{self._places.lock} cannot be opened ({error.strerror}); use become: true.") from error
        try:
            self._await(descriptor)
        except BusyError:
            os.close(descriptor)
            raise
        if not self._is_lock(descriptor):
            os.close(descriptor)
            raise BusyError(f"A purge of the stack {self._places.project} has just ended; run this again.")
        self._descriptor = descriptor
        _held.add(descriptor)
        self._say(json.dumps({"operation": self._operation, "started": time.time(), "pid": os.getpid()}).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor not in _held:  # in a child that fork made
            return
        _held.discard(self._descriptor)
        self._say(b"")
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also for a child that was forked and has not closed it yet
        os.close(self._descriptor)

    def _await(self, descriptor: int) -> None:
        begun = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder = self._holder(descriptor)
                patience = self._patience if not holder or holder["operation"] == RECOVERY else 0.0
                if holder and start_ticks(holder["pid"]) is None:
                    patience = max(patience, _DEAD_S)
                if time.monotonic() - begun > patience:
                    raise BusyError(self._busy(holder)) from None
            time.sleep(_LOOK_S)

    def _is_lock(self, descriptor: int) -> bool:
        """Whether the file still has its name: a purge removes it, and who came meanwhile holds a lock on nothing."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._places.lock))
        except FileNotFoundError:
            return False

    def _say(self, text: bytes) -> None:
        with suppress(OSError):  # a full disk, say: the lock holds without a word, and a recovery needs it then
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)

    def _holder(self, descriptor: int) -> dict[str, Any]:
        """operation, started (a time) and pid of who has the lock; {} if it has not written them yet."""
        try:
            found = json.loads(os.pread(descriptor, 4096, 0))
            return {"operation": found["operation"], "started": float(found["started"]), "pid": int(found["pid"])}
        except (ValueError, KeyError, TypeError):
            return {}

    def _busy(self, holder: Mapping[str, Any]) -> str:
        start = f"Another operation is under way on the stack {self._places.project}"
        if not holder:
            return f"{start}; wait for it."
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["started"]))
        start += f": {holder['operation']}, started {at} by process {holder['pid']}"
        return f"{start}; wait for it, or look at it with: ps -fp {holder['pid']}"
