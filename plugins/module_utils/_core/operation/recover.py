# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put right what an operation that died has left."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from typing import Any

from ..engine import Engine
from ..errors import NotFoundError, PartlyDoneError, StackError
from .durable_json import read_json
from .journal import Journal
from .lock import RECOVERY, OperationLock
from .places import Places, require_local

_PATIENCE_S = 30.0
_WITHOUT = ("backup", "drill")  # operations that change nothing but what any recovery puts back
THROWAWAY = "openmemory.stack.throwaway"


def recover(engine: Engine, places: Places, *, check_mode: bool = False, lock_held: bool = False) -> list[str]:
    """Finish or undo what was left; sentences of what was done, [] if there was nothing. Safe to call again.

    It takes the lock itself unless lock_held, and waits then for a recovery that is at it already (a watcher's, say,
    which asks a host that does not answer). check_mode tells what would be done. Raises StackError if another operation
    is under way, or something cannot be put right; the journal then stays for the next call.
    """
    require_local(engine)
    if not lock_held and os.path.exists(places.lock if check_mode else places.state):
        with OperationLock(places, RECOVERY, 0.0 if check_mode else _PATIENCE_S):
            said = recover(engine, places, check_mode=check_mode, lock_held=True)
            if said and not check_mode:
                from ..purge.undo import FINISHED, leave  # late: only a purge needs it

                if FINISHED in said:
                    leave(places)
            return said
    return _Recovery(engine, places, check_mode).run()


def recover_from(error: BaseException, engine: Engine, places: Places) -> None:
    """recover() for an operation that has failed, and holds the lock. Where that fails too, a StackError tells both.

    What was done all the same (PartlyDoneError) is left for the caller to raise; the journal stays for the next run.
    """
    try:
        recover(engine, places, lock_held=True)
    except StackError as second:
        if isinstance(error, PartlyDoneError):
            return
        reason = f"{error} " if isinstance(error, StackError) else ""
        raise StackError(
            f"{reason}What was left could not be put right: {second} Run openmemory-stack recover when that is "
            "repaired."
        ) from error


class _Recovery:
    def __init__(self, engine: Engine, places: Places, check_mode: bool):
        self.engine = engine
        self.places = places
        self.check_mode = check_mode
        self.journal = Journal.load(places)
        self.said: list[str] = []
        self.problems: list[str] = []
        self.started = False

    def run(self) -> list[str]:
        data = self.journal.data if self.journal is not None else {}
        if self.journal is not None and not self.check_mode:
            self.journal.free_room()
        if self.journal is not None and self.journal.same_boot:  # a reboot ends what is paused
            if data.get("paused") and not self.check_mode:
                # late, here and below: hardly any run has something to recover
                from ..capture.guard import await_settled

                time.sleep(float(data.get("hold") or 0.0))  # another host may run what is frozen here
                await_settled(self.places, str(data.get("id")))
            done = self._resumed_by_guard()
            for container in data.get("paused") or []:  # in start order, as all lists of the journal
                if container["id"] not in done:
                    self._attempt(self._unpause, container)
        self._attempt(self._remove_throwaways, data.get("throwaway") or {})
        if self.journal is not None:
            try:
                self._undo(self.journal)
            except StackError as error:
                raise StackError(" ".join([*self.problems, str(error)])) from error
        self._start_stopped()
        for path in data.get("remove") or []:
            self._attempt(self._remove, path)
        if self.problems:
            raise StackError(" ".join(self.problems))
        if self.journal is not None:
            self._remove_scratch()
            self._end(self.journal)
        return self.said

    def _start_stopped(self) -> None:
        """Once: by an undo as soon as it can be, or at the end."""
        if self.started or self.journal is None:
            return
        self.started = True
        for container in self.journal.data.get("stopped") or []:
            self._attempt(self._start, container)

    def _attempt(self, act: Callable[[Any], None], what: Any) -> None:
        """One container that does not start must not keep the others down; what failed is raised at the end."""
        try:
            act(what)
        except StackError as error:
            self.problems.append(str(error))

    def _say(self, sentence: str) -> None:
        self.said.append(("Would have: " if self.check_mode else "") + sentence)

    def _resumed_by_guard(self) -> list[str]:
        """Ids that the guard has resumed already: should they be paused now, then the user did it."""
        try:
            fired = read_json(self.places.guard)
        except StackError:
            return []
        if self.journal is None or not isinstance(fired, dict) or fired.get("id") != self.journal.data.get("id"):
            return []
        return list(fired.get("resumed") or [])

    def _unpause(self, container: dict[str, Any]) -> None:
        from ..capture.thaw import let_run, look  # late: most runs find nothing to resume

        try:
            found = self.engine.inspect_container(container["id"]) if self.check_mode else look(self.engine, container)
        except NotFoundError:
            self._say(f"Container {container['name']}, which was paused, is gone.")
            return
        state = found["State"]
        if state["StartedAt"] != container.get("started_at", state["StartedAt"]):
            return
        if not state["Running"]:  # dockerd ends what it finds running when it comes back after its own death
            self._start(container)
            return
        if not state["Paused"]:
            return
        if not self.check_mode:
            try:
                let_run(self.engine, container, state)
            except StackError as error:
                raise StackError(
                    f"Container {container['name']} was paused by an operation that died and cannot be resumed; "
                    f"run docker unpause {container['name']}. {error}"
                ) from error
        self._say(f"Resumed container {container['name']}.")

    def _start(self, container: dict[str, Any]) -> None:
        try:
            if self.engine.inspect_container(container["id"])["State"]["Running"]:
                return
            if not self.check_mode:
                self.engine.start(container["id"])
        except NotFoundError:
            self._say(f"Container {container['name']}, which was stopped, is gone.")
            return
        except StackError as error:
            name = container["name"]
            raise StackError(f"Container {name} was stopped and does not start again ({error}); start it.") from error
        self._say(f"Started container {container['name']}.")

    def _undo(self, journal: Journal) -> None:
        """What an operation has changed beyond containers; each has its own way to one of its two ends."""
        operation = journal.data["operation"]
        if operation == "restore":
            from ..restore.undo import undo as with_start  # late, here and below: only its own recovery needs it

            def undo(engine: Engine, journal: Journal) -> list[str]:
                return with_start(engine, journal, self._start_stopped)

        elif operation == "purge":
            from ..purge.undo import undo
        elif operation == "convert":
            from ..convert.undo import undo
        elif operation == "migrate":
            from ..migrate.departure_undo import undo
        elif operation == "handover":
            from ..migrate.handover import undo
        elif operation == "arrival":
            from ..migrate.arrival_undo import undo
        elif operation == "update":
            from ..update.undo import undo
        elif operation in _WITHOUT:
            return
        else:
            raise StackError(
                f"{self.places.journal} is of an operation that this version does not know ({operation}); recover with "
                "the version that began it."
            )
        if self.check_mode:
            self._say(f"Undone or finished the {operation} that died.")
            return
        self.said += undo(self.engine, journal)

    def _remove_throwaways(self, journaled: dict[str, Any]) -> None:
        """By the journal, and by their label where there is none."""
        label = f"{THROWAWAY}={self.places.project}"
        containers = {name: name for name in journaled.get("containers") or []}
        for container in self.engine.containers():
            if (container.get("Labels") or {}).get(THROWAWAY) == self.places.project:
                name = container["Names"][0].lstrip("/") if container.get("Names") else container["Id"]
                containers.pop(container["Id"], None)
                containers[name] = name
        networks = {name: name for name in journaled.get("networks") or []}
        for network in self.engine.networks(label):
            networks.pop(network["Id"], None)
            networks[network["Name"]] = network["Name"]
        for kind, names, remove in (
            ("container", containers, self.engine.remove_container),
            ("network", networks, self.engine.remove_network),
            ("volume", dict.fromkeys(journaled.get("volumes") or []), self.engine.remove_volume),
        ):
            for name in names:
                with contextlib.suppress(NotFoundError):
                    if not self.check_mode:
                        remove(name)
                    self._say(f"Removed throw-away {kind} {name}.")

    def _remove(self, path: str) -> None:
        if not os.path.isabs(path) or os.path.normpath(path) != path or path.count("/") < 2:
            raise StackError(f"{self.places.journal} says to remove {path}, which cannot be; look at it.")
        try:
            mode = os.lstat(path).st_mode
            if not self.check_mode:
                shutil.rmtree(path) if stat.S_ISDIR(mode) else os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StackError(f"{path} is left of an operation that died and cannot be removed ({error}).") from error
        self._say(f"Removed {path}.")

    def _remove_scratch(self) -> None:
        if os.path.isdir(self.places.scratch) and os.listdir(self.places.scratch):
            self._remove(self.places.scratch)

    def _end(self, journal: Journal) -> None:
        self._say(f"Ended the {journal.data['operation']} that died in the phase {journal.data.get('phase')}.")
        if not self.check_mode:
            from ..capture.guard import take_over

            take_over(self.places)
            journal.end()
