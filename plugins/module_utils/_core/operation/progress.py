# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How far an operation is, for whoever looks."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import StackError
from .durable_json import write_json

EVERY_S = 0.5
RATE_OVER_S = 5.0  # the rate is that of the last seconds, so that it follows what happens now


class Progress:
    """Phases with bytes. path is the file to write, None for none; listener gets the same dictionary.

    The dictionary: phase, phases_done [{name, seconds}], bytes, total_bytes (None: not known), rate (bytes per second,
    None: not known), eta_s (seconds, None: not known), updated (seconds since 1970), done. Nothing here ever fails an
    operation: a progress file that cannot be written is left alone.
    """

    def __init__(
        self,
        path: str | None = None,
        listener: Callable[[dict[str, Any]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._path = path
        self._listener = listener
        self._clock = clock
        self._done: list[dict[str, Any]] = []
        self._phase: str | None = None
        self._begun = 0.0
        self._bytes = 0
        self._total: int | None = None
        self._told = 0.0
        self._marks: deque[tuple[float, int]] = deque()

    def attach(self, path: str) -> None:
        """Write to this file from now on."""
        self._path = path

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        """End the phase before, begin another one."""
        self._end_phase()
        self._phase, self._begun, self._bytes, self._total = name, self._clock(), 0, total_bytes
        self._marks = deque([(self._begun, 0)])
        self._tell(False)

    def advance(self, count: int) -> None:
        """count more bytes of this phase are done; tells at most twice a second."""
        self._bytes += count
        now = self._clock()
        if now - self._told >= EVERY_S:
            self._marks.append((now, self._bytes))
            while len(self._marks) > 2 and now - self._marks[1][0] >= RATE_OVER_S:
                self._marks.popleft()
            self._tell(False)

    def follow(self) -> Callable[[int, int], None]:
        """For who tells how many bytes of this phase are done in all, and of how many, as restic does."""
        reached = 0

        def tell(done: int, _total: int) -> None:
            nonlocal reached
            if done > reached:
                self.advance(done - reached)
                reached = done

        return tell

    def done(self) -> None:
        """All is over."""
        self._end_phase()
        self._tell(True)

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by the name of each phase that is over; those of a name that came twice are added."""
        found: dict[str, float] = {}
        for phase in self._done:
            found[phase["name"]] = round(found.get(phase["name"], 0.0) + phase["seconds"], 3)
        return found

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._done.append({"name": self._phase, "seconds": round(self._clock() - self._begun, 3)})
            self._phase = None

    def _tell(self, done: bool) -> None:
        self._told = self._clock()
        (since, before), (until, after) = self._marks[0] if self._marks else (0.0, 0), (self._told, self._bytes)
        rate = (after - before) / (until - since) if until > since and after > before else None
        left = None if self._total is None or rate is None else max(0, self._total - self._bytes) / rate
        value = {
            "phase": self._phase,
            "phases_done": list(self._done),
            "bytes": self._bytes,
            "total_bytes": self._total,
            "rate": None if rate is None else round(rate),
            "eta_s": None if left is None else round(left, 1),
            "updated": time.time(),
            "done": done,
        }
        if self._path is not None:
            with contextlib.suppress(StackError):
                write_json(self._path, value, durable=False)
        if self._listener is not None:
            self._listener(value)
