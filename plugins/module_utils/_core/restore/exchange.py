# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stop, swap, start, prove, accept: the part of a restore that changes what is live, and its way back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..engine import ACTIVE, Engine
from ..errors import StackError
from ..operation.journal import Journal
from ..operation.places import Places
from ..operation.progress import Progress
from ..operation.recover import recover
from . import kept
from .crew import Crew
from .swap import Record, Swap
from .undo import ACCEPTED, KEY, SWAPPING, finish, undo


class Exchange:
    """One exchange of what is live. stop_timeout (None: the container's own) and wait_timeout are in seconds."""

    def __init__(
        self,
        crew: Crew,
        journal: Journal,
        record: Record,
        progress: Progress,
        stop_timeout: int | None = None,
        wait_timeout: float = 300.0,
    ):
        self.crew = crew
        self.journal = journal
        self.record = record
        self.progress = progress
        self.stop_timeout = stop_timeout
        self.wait_timeout = wait_timeout

    def run(
        self,
        make_swaps: Callable[[], list[Swap]],
        start: bool,
        explain: Callable[[], str],
        prove: Callable[[], None],
        keep_seconds: float | None = None,
        on_healthy: Callable[[], None] = lambda: None,
    ) -> float:
        """Do it, and return the downtime in seconds: first stop to last health. Raises StackError; see take_back().

        make_swaps is called once all stand still. explain gives more on a failed start, prove raises StackError where
        the running stack is not right. Old data is kept for keep_seconds from now (None: until what the record says).
        on_healthy: see Crew.start().
        """
        crew = self.crew
        self._phase("stop")
        begun = time.monotonic()
        crew.stop(self.journal, self.stop_timeout)
        self._phase("swap")  # nothing slow from here to the start: renames, and the journal before them
        self.record.swaps = make_swaps()
        self.record.stage = SWAPPING
        self.record.keep_seconds = keep_seconds or 0.0
        self.note()
        for swap in self.record.swaps:
            swap.forward()
        self._refuse_started()
        downtime = 0.0
        if start and crew.ids:
            self._start(explain, on_healthy)
            downtime = time.monotonic() - begun
            prove()
        self._phase("finish")
        self.record.stage = ACCEPTED
        if keep_seconds is not None:
            self.record.until = time.time() + keep_seconds
        stay: dict[str, Any] = {} if start else {"stopped": []}  # a recovery starts nothing then, either
        self.journal.notes({KEY: self.record.as_json(), **stay})
        self.journal.free_room()
        finish(self.journal, self.record)
        self.journal.end()
        return downtime

    def note(self) -> None:
        """The record, into the journal."""
        self.journal.note(KEY, self.record.as_json())

    def _refuse_started(self) -> None:
        """One that ran before the last rename has old data open, and would go on writing to that, out of sight.

        An engine that comes back from its own death starts what has the restart policy "always", stopped or not.
        """
        engine = self.crew.engine
        states = {container["Id"]: container["State"] for container in engine.containers()}
        for identity in self.crew.ids:
            if states.get(identity) in ACTIVE and engine.is_active(identity):
                raise StackError(
                    f"The container {self.crew.name(identity)} was started while the data was swapped, and may have "
                    "the old data open; try again."
                )

    def _start(self, explain: Callable[[], str], on_healthy: Callable[[], None]) -> None:
        try:
            self._phase("start")
            self.crew.start(self.wait_timeout, on_healthy)
            self._phase("health")
            self.crew.wait(self.wait_timeout)
        except StackError as error:
            raise StackError(f"{error}{explain()}") from error

    def _phase(self, name: str) -> None:
        self.journal.phase(name)
        self.progress.phase(name)


def take_back(
    error: BaseException, engine: Engine, places: Places, crew: Crew, journal: Journal, wait_timeout: float
) -> None:
    """Everything as before, also for Ctrl-C. Raises StackError with the reason and what was done, for a StackError."""
    stage = (journal.data.get(KEY) or {}).get("stage")
    unhealthy = ""
    taken_out: list[str] = []
    journal.free_room()
    try:
        if stage == SWAPPING and isinstance(error, StackError):

            def start() -> None:
                nonlocal unhealthy
                unhealthy = start_again(crew, wait_timeout)

            undo(engine, journal, start)
            operation = journal.data["id"]
            taken_out = [entry.taken_out() for entry in kept.load(places) if entry.operation == operation]
        recover(engine, places, lock_held=True)  # starts what does not run yet, and ends the journal
    except (OSError, StackError) as second:
        raise StackError(
            f"{error} It could not be taken back: {second} Run openmemory-stack recover when that is repaired."
        ) from error
    if not isinstance(error, StackError):
        return
    if stage == ACCEPTED:
        raise StackError(f"{error} The data is swapped in and proven, and the old data is kept.") from error
    if stage == SWAPPING:
        names = ", ".join(crew.names())
        again = f", and {names} started on it again" if names else ""
        said = "".join(f" {sentence}" for sentence in taken_out)
        raise StackError(f"{error} It was taken back: the data is as it was before{again}.{unhealthy}{said}") from error


def not_foreseen(error: OSError, operation: str) -> StackError:
    """What a full or broken disk has stopped, where no step has words of its own for that."""
    return StackError(
        f"The {operation} failed at {error.filename or 'a file'} ({error.strerror}); make room or repair the disk, "
        "then run it again."
    )


def start_again(crew: Crew, wait_timeout: float) -> str:
    """Start as Compose would, one waiting for the other; a sentence if they do not work on the old data either."""
    try:
        crew.start(wait_timeout)
        crew.wait(wait_timeout)
    except StackError as error:
        return f" They do not work on it either: {error}"
    return ""
