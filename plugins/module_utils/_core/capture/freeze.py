# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The instant: containers paused or stopped, and running again whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..engine import ACTIVE, Engine
from ..errors import NotFoundError, StackError
from ..operation.journal import Journal
from ..operation.places import Places, require_local
from .guard import Guard, find_freezer, first_process
from .guard_process import Docker, is_frozen, resume
from .order import name_of, start_order
from .thaw import BOOKKEEPING_S, thawing

TRIES = 3
PAUSE_S = 5.0  # for a pause that runc gives up, as it does while a process waits for a slow disk
PAUSE_AGAIN_S = 0.05
GAVE_UP = "unable to freeze"  # runc's words
_FIRED = {
    "deadline": "The copy took longer than freeze_timeout ({timeout:g} s), so the guard resumed the containers",
    "engine": "The Docker engine ended during the freeze, so the guard resumed the containers",
    "terminated": "The guard of the freeze was told to end, so it resumed the containers",
}


class Freeze:
    """While the context is entered, none of the containers can write. pause and stop are container ids or names.

    Only what runs is paused or stopped, and only that runs again afterwards; what the user had paused stays so. All
    others among them are watched: one that starts, or restarts, or is resumed meanwhile makes the capture invalid.
    timeout is in seconds, from the first pause; then the guard resumes all. last is called when all is prepared, right
    before the first container is touched. stop_timeout: seconds that each gets to stop, None for what the container
    itself says. Raises StackError on entering if a
    container cannot be paused or stopped, and on leaving if the time inside was not one instant; an error of the body
    is passed on, unless the guard's work explains it. In both cases everything that can run runs again first. hold:
    seconds that the guard, or a recovery, waits before it resumes by itself.

    window: seconds from the first container paused (or stopped) to the last one that runs again.
    quiesced: [{name, how}], how being paused, stopped, was paused or not running.
    """

    def __init__(
        self,
        engine: Engine,
        project: str,
        places: Places,
        journal: Journal,
        pause: Sequence[str],
        stop: Sequence[str] = (),
        timeout: float = 60,
        stop_timeout: int | None = None,
        last: Callable[[], None] = lambda: None,
        hold: float = 0.0,
    ):
        require_local(engine)
        self.window = 0.0
        self.quiesced: list[dict[str, str]] = []
        self._engine = engine
        self._project = project
        self._places = places
        self._journal = journal
        self._asked = (list(pause), list(stop))
        self._timeout = timeout
        self._last = last
        self._stop_timeout = stop_timeout
        self._hold = hold
        self._kept = False
        self._guard: Guard | None = None
        self._orders: dict[str, dict[str, Any]] = {}
        self._lives: dict[str, str | None] = {}
        self._watched: list[Mapping[str, Any]] = []
        self._paused: list[Mapping[str, Any]] = []  # in start order, as all lists here
        self._stopped: list[Mapping[str, Any]] = []
        self._begun: float | None = None
        self._patient_until: float | None = None
        self._ended: list[str] = []  # found so when they were to be resumed, by name

    def __enter__(self) -> Freeze:
        pause, stop = self._prepare()
        if not pause and not stop:
            self._last()
            return self
        try:
            if pause:
                self._arm(pause)
            self._last()
            restarted = self._restarted()  # recover() knows what was paused by when it was started
            if restarted:
                raise StackError(restarted)
            entries = {"stopped": [_entry(container) for container in stop], "paused": self._known(pause)}
            self._journal.notes({**entries, "hold": self._hold})
            self._begun = time.monotonic()
            for container in reversed(stop):
                self._stopped.insert(0, container)
                self._do("stop", container)
            if self._guard is not None:
                self._guard.go()
            for container in reversed(pause):
                self._paused.insert(0, container)
                self._do("pause", container)
                self.check()  # a pause that waited for an engine that was away comes too late
        except BaseException:
            self._resume(failed=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kept:
            return
        problem = None
        try:
            if kind is None:
                problem = self._broken()
            elif isinstance(error, StackError):  # what runs again changes the files that the body reads
                problem = self._has_fired()
        finally:
            stopped = self._stopped
            trouble = self._resume(sound=kind is None and not problem)
            self._stopped = stopped
        if kind is None and not problem and not trouble:
            problem = self._restarted()
        self._stopped = []
        if problem or (kind is None and trouble):
            raise StackError(problem or trouble) from error

    def check(self) -> None:
        """Raise StackError if the guard has fired already; for the body, which may then stop. Costs microseconds."""
        problem = self._has_fired()
        if problem:
            raise StackError(problem)

    def keep(self, notes: Callable[[list[dict[str, Any]]], Mapping[str, Any]]) -> None:
        """Leave them as they are for good, without a guard; raises StackError if one is not frozen any more.

        What notes makes of what the journal knew of them goes into it in the same write that takes them out of what
        recover() resumes.
        """
        problem = self._broken()
        if problem:
            raise StackError(problem)
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.end()
            if guard.fired:
                raise StackError("The guard of the freeze resumed the containers; try again.")
        problem = self._restarted()
        if problem:
            raise StackError(problem)
        entries = self._known(self._paused)
        self._journal.notes({**notes(entries), "paused": []})
        self._kept = True

    def _prepare(self) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        found = {}
        for name in dict.fromkeys([*self._asked[0], *self._asked[1]]):
            with suppress(NotFoundError):  # it has ended and gone since the plan was made, and writes no more
                found[name] = self._engine.inspect_container(name)
        to_stop = {found[name]["Id"] for name in self._asked[1] if name in found}
        self._watched = start_order(list({container["Id"]: container for container in found.values()}.values()))
        pause, stop = [], []
        for container in self._watched:
            state = container["State"]
            if state["Paused"]:
                how = "was paused"
            elif not state["Running"]:
                how = "not running"
            elif container["Id"] not in to_stop:
                how = "paused"
                pause.append(container)
            elif (container.get("HostConfig") or {}).get("AutoRemove"):
                raise StackError(
                    f"Container {name_of(container)} was started with --rm, so stopping it would remove it; use "
                    "quiesce: pause."
                )
            else:
                how = "stopped"
                stop.append(container)
            self.quiesced.append({"name": name_of(container), "how": how})
        return pause, stop

    def _arm(self, pause: Sequence[Mapping[str, Any]]) -> None:
        orders = [
            {**_entry(container), "freezer": find_freezer(container["State"]["Pid"], container["Id"])}
            for container in pause
        ]
        self._orders = {order["id"]: order for order in orders}
        self._lives = {c["Id"]: first_process(c["State"].get("Pid"), c["Id"]) for c in pause}
        self._guard = Guard(self._engine, self._places, str(self._journal.data["id"]), self._timeout, self._hold)
        self._guard.arm(orders)

    def _do(self, verb: str, container: Mapping[str, Any]) -> None:
        try:
            if verb == "pause":
                self._pause(container)
            else:
                self._engine.stop(container["Id"], self._stop_timeout)
        except StackError as error:
            done = "paused" if verb == "pause" else "stopped"
            raise StackError(
                f"Container {name_of(container)} could not be {done}, so nothing was backed up and what ran before "
                f"runs again; see why, and try again. {error}"
            ) from error

    def _pause(self, container: Mapping[str, Any]) -> None:
        """Pause a container. With cgroups v1 runc gives up after 0.1 s or so, and lets it run: try again for a while.

        That while is one for all containers of the freeze: those that are paused already wait. And only in the run of
        the container that the journal has.
        """
        while True:
            try:
                self._engine.pause(container["Id"])
                return
            except StackError as error:
                if GAVE_UP not in str(error) or self._is_late(container):
                    raise
            time.sleep(PAUSE_AGAIN_S)

    def _is_late(self, container: Mapping[str, Any]) -> bool:
        """Whether a pause must not be tried again."""
        now = time.monotonic()
        self._patient_until = self._patient_until or now + PAUSE_S
        if now > self._patient_until or self._has_fired():
            return True
        started = self._engine.inspect_container(container["Id"])["State"]["StartedAt"]
        return bool(started != container["State"]["StartedAt"])

    def _broken(self) -> str | None:
        """Why this was not one instant, or None. From the list: an inspection waits for a health check under way.

        A check that was started as the container froze ends with its timeout only, and the engine holds it that long.
        """
        problem = self._has_fired()
        if problem:
            return problem
        try:
            states = {container["Id"]: container["State"] for container in self._engine.containers()}
        except StackError as error:
            return f"Whether the containers stayed frozen cannot be told, so nothing was backed up; try again. {error}"
        paused = {container["Id"] for container in self._paused}
        for container in self._watched:
            name, state = name_of(container), states.get(container["Id"])
            if state is None:
                return f"Container {name} was removed while its data was copied; nothing was backed up; try again."
            if container["Id"] in paused or container["State"]["Paused"]:
                if state != "paused":
                    return f"Container {name} was resumed while its data was copied; nothing was backed up; try again."
            elif state in ACTIVE and self._may_write(container["Id"]):
                return f"Container {name} started while its data was copied; nothing was backed up; try again."
        return None

    def _may_write(self, container: str) -> bool:
        try:
            return self._engine.is_active(container)
        except StackError:
            return True

    def _restarted(self) -> str | None:
        """Like _broken, for what only an inspection tells; after the window. Who was stopped here has started again."""
        stopped = {container["Id"] for container in self._stopped}
        for container in self._watched:
            if container["Id"] in stopped or self._lives_on(container):
                continue
            name = name_of(container)
            try:
                state = self._engine.inspect_container(container["Id"])["State"]
            except StackError as error:
                return f"Whether {name} stayed frozen cannot be told, so nothing was backed up; try again. {error}"
            if state["StartedAt"] != container["State"]["StartedAt"]:
                return f"Container {name} was restarted while its data was copied; nothing was backed up; try again."
        return None

    def _lives_on(self, container: Mapping[str, Any]) -> bool:
        """Whether the first process of a container is the one that it had: no restart, without asking the engine."""
        known = self._lives.get(container["Id"])
        return known is not None and first_process(container["State"]["Pid"], container["Id"]) == known

    def _known(self, containers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What whoever resumes them later has to know."""
        return [{**_entry(container), **self._orders.get(container["Id"], {})} for container in containers]

    def _has_fired(self) -> str | None:
        reason = self._guard.fired if self._guard is not None else None
        if not reason:
            return None
        text = _FIRED.get(reason, "The guard of the freeze resumed the containers").format(timeout=self._timeout)
        advice = "; raise freeze_timeout, or see what slows the disk." if reason == "deadline" else "; try again."
        return f"{text} and nothing was backed up{advice}"

    def _resume(self, failed: bool = False, sound: bool = False) -> str | None:
        """Let everything run again; a sentence about what does not.

        sound: all were frozen right before. One that has ended by now ended with the engine, and not by a user's word.
        failed: a call was refused or broken off, and the engine may still be about to do it; the guard waits for that.
        """
        guard, self._guard = self._guard, None
        trouble: list[str] = []
        try:
            fired = guard.fired if guard is not None else None
            workers = [] if fired and not failed else [self._let_run(container) for container in self._paused]
            trouble += [sentence for c in self._stopped for sentence in self._start(c)]
            if self._begun is not None:
                self.window = time.monotonic() - self._begun
            stuck = [container for container, result in zip(self._paused, workers) if not result()]
            late = not fired and bool(stuck or (failed and self._paused))
            if guard is not None and late:
                guard.fire()
            if guard is not None and (fired or late) and not guard.settled():
                names = ", ".join(name_of(container) for container in self._paused)
                trouble.append(f"Docker may still call {names} paused though they run; when it answers, run recover.")
            if sound and (self._ended or (guard is not None and not fired and guard.fired == "engine")):
                names = ", ".join(self._ended) or "the containers"
                trouble.append(
                    f"The Docker engine ended while it resumed {names}, so nothing was backed up; try again."
                )
        except BaseException:  # interrupted a second time
            if guard is not None:
                guard.let_go()
            raise
        if guard is not None:
            guard.end()
        if self._begun is not None and not trouble and fired != "engine":  # recover() starts what ended with the engine
            self._journal.notes({"paused": [], "stopped": []})
        self._paused, self._stopped, self._begun = [], [], None
        return " ".join(trouble) or None

    def _let_run(self, container: Mapping[str, Any]) -> Callable[[], bool]:
        """Let a container run; what is returned waits until the engine knows it, and tells whether it does.

        The engine can be waiting for a health check that was started as the container froze, and that is frozen with
        it: seen to hold an unpause for 5 s, the check's timeout. So the freezer is opened without it.
        """
        order = self._orders.get(container["Id"], {})
        known = thawing(lambda: self._unpause(container, order), order)
        if known.done():
            known.result()
        return known.result

    def _unpause(self, container: Mapping[str, Any], order: dict[str, Any]) -> bool:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(0.1)
            try:
                self._engine.unpause(container["Id"])
                return True
            except NotFoundError:
                return True
            except StackError:
                state = self._state(container)
                if state is not None and not state["Paused"]:
                    if not state["Running"]:
                        self._ended.append(name_of(container))
                    return True
                if order.get("freezer") and not is_frozen(order):
                    return resume(Docker(self._engine.docker_host[len("unix://") :]), order, BOOKKEEPING_S)
        return False

    def _start(self, container: Mapping[str, Any]) -> list[str]:
        """Start what was stopped, unless it was not; a sentence if it cannot be."""
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(0.5)
            try:
                self._engine.start(container["Id"])
                return []
            except NotFoundError:
                return [f"Container {name_of(container)} was removed after it was stopped."]
            except StackError as error:
                problem = str(error)
        return [f"Container {name_of(container)} was stopped and does not start again; start it. {problem}"]

    def _state(self, container: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the engine says of it, None where it says nothing."""
        try:
            return dict(self._engine.inspect_container(container["Id"])["State"])
        except NotFoundError:
            return {"Paused": False, "Running": True}  # gone: nothing is left to start
        except StackError:
            return None


def _entry(container: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": container["Id"], "name": name_of(container), "started_at": container["State"]["StartedAt"]}
