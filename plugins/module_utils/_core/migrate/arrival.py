# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target's part: take the data in beside its place, start on it, prove it, and then keep it or leave no trace."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..capture.durable import sync_filesystems
from ..engine import Engine
from ..errors import StackError
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import Places, private_directory
from ..operation.progress import Progress
from ..operation.recover import recover
from ..proof import census, memories
from ..proof.checks import QUICK, check_staged
from ..restore.swap import Move, Record, Root, Swap, in_root_moves
from ..restore.targets import Target, refuse_active
from ..restore.verdict import at_least
from ..stores import sqlite
from ..stores.container import Container
from ..stores.registry import recognise
from .arrival_plan import ArrivalPlan, Offer, make_plan
from .arrival_undo import ACCEPTED, CONTAINERS, KEY, STARTED, SWAPPING, finish
from .caller import Caller
from .door import Expected, close_door, conf
from .ending import end_at_once, end_processes
from .line import PROTOCOL

_SWEEP_S = 0.3
_MOST_USERS = 5  # whose memories are read while all is frozen; the others' are counted with the database
RSYNCD = """\
use chroot = yes
uid = 0
gid = 0
read only = no
write only = yes
list = no
reverse lookup = no
log file = /dev/null
"""


def run(places: Places, engine: Engine, operation: str, progress: Progress) -> dict[str, Any]:
    """Serve the source on our standard streams until it hangs up; {changed, accepted}. Raises StackError."""
    expected = Expected.load(places, operation)
    crew: dict[str, Any] = {}
    caller = Caller(sys.stdin.buffer, sys.stdout.buffer, lambda answer: _kill(engine, crew, answer))
    with OperationLock(places, "arrival"):
        recover(engine, places, lock_held=True)
        progress.attach(places.progress)
        arrival = _Arrival(expected, places, engine, progress, caller, crew)
        try:
            caller.begin()
            caller.say(hello=PROTOCOL)
            ended = arrival.serve()
        finally:
            if arrival.journal is not None:
                recover(engine, places, lock_held=True)
        if ended:  # otherwise the source may have to ask what has become of this
            close_door(places, expected.project)
    return {"changed": arrival.accepted, "accepted": arrival.accepted}


def _kill(engine: Engine, crew: Mapping[str, Any], answer: bool) -> None:
    """All dead at once; for certain, by the engine's word, where the source waits for an answer."""
    end = time.monotonic() + _SWEEP_S
    while time.monotonic() < end:  # what the engine was starting comes a moment later
        end_processes(crew)
        time.sleep(0.05)
    if answer:
        end_at_once(engine, list(crew))


class _Arrival:
    def __init__(
        self,
        expected: Expected,
        places: Places,
        engine: Engine,
        progress: Progress,
        caller: Caller,
        started: dict[str, Any],
    ):
        self.expected = expected
        self.places = places
        self.engine = engine
        self.progress = progress
        self.caller = caller
        self.started = started  # containers that may run, by id: what a lost lease kills
        self.accepted = False
        self.journal: Journal | None = None
        self.plan: ArrivalPlan | None = None
        self.record = Record(expected.operation, "", places.state)

    def serve(self) -> bool:
        """Whether the source has said that it is done."""
        while (request := self.caller.next()) is not None:
            verb = str(request.pop("do", ""))
            if verb in ("stop", "bye"):
                self.caller.say(done=verb)
                return verb == "bye" or not self.accepted  # taken over, and not told that the source knows: it may ask
            try:
                act = {"offer": self.offer, "sync": self.sync, "start": self.start, "accept": self.accept}[verb]
                self.caller.say(done=verb, **act(request))
            except StackError as error:
                self.caller.say(failed=str(error))
            except OSError as error:
                self.caller.say(failed=f"{error.filename or 'A file'} on the target: {error.strerror}.")
        return False

    def offer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Look whether the source's data can come here, and make room for it."""
        plan = make_plan(self.engine, self.expected.project, self.expected.name_map, Offer(**request["offer"]))
        self.plan = plan
        self.journal = Journal.begin(self.places, "arrival", self.expected.operation)
        self.record.beside = [target.beside(self.record.id) for target in plan.targets]
        policies = {one: about["HostConfig"]["RestartPolicy"] for one, about in plan.containers.items()}
        self.journal.notes({KEY: self.record.as_json(), CONTAINERS: policies})
        for identity in policies:  # until it is ours, a reboot must not start it
            self.engine.set_restart_policy(identity, {"Name": "no"})
        lines = [RSYNCD]
        for target in plan.targets:
            beside = target.beside(self.record.id)
            os.mkdir(beside, 0o700)
            for name in ("old", "new") if target.in_root else ("new",):
                os.mkdir(os.path.join(beside, name), 0o700)
            lines.append(f"[{target.key}]\npath = {beside}/new\n")
        path = conf(self.places)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write("".join(lines))
        volumes = {
            target.key: {"name": target.name, "path": target.path, "backing": target.backing} for target in plan.targets
        }
        return {"volumes": volumes, "containers": plan.crew.names(), "warnings": plan.warnings}

    def sync(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Have on disk what has come, so that little is left when it matters."""
        sync_filesystems(self.record.beside)
        return {}

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Swap in what has come, start on it and prove it; it runs only as long as the lease does."""
        if self.plan is None or self.journal is None:
            raise StackError("The source has offered nothing yet.")
        crew = self.plan.crew
        self.started.update(crew.containers)
        self.journal.note(STARTED, crew.ids)
        self.caller.lease()
        try:
            owners = self._check()
            self._swap()
            self._phase("start")
            crew.start(self.expected.wait_timeout)
            crew.wait(self.expected.wait_timeout)
            proven = self._prove(crew, request["census"], owners)
            self.progress.done()
            return {**proven, "timings": self.progress.timings}
        except BaseException:
            end_at_once(self.engine, list(self.started))
            self.caller.unlease()
            raise

    def accept(self, _request: dict[str, Any]) -> dict[str, Any]:
        """From now on this side is the one that counts; the source is frozen for good when it says this."""
        self.caller.unlease(self._keep)
        if not self.accepted or self.journal is None:
            raise StackError("The target has not proven what it has, so it cannot take over.")
        finish(self.engine, self.places, self.journal)
        self.journal = None
        return {}

    def _keep(self) -> None:
        if self.journal is not None:
            self.record.stage = ACCEPTED
            self.journal.note(KEY, self.record.as_json())
            self.accepted = True

    def _check(self) -> dict[str, set[str]]:
        """The copies, as they lie there; the memories that OpenMemory has by user."""
        self._phase("check")
        private_directory(self.places.scratch)
        staged = {one.key: (one.store, self._new(one)) for one in self._targets()}
        for key, found in check_staged(staged, os.path.join(self.places.scratch, "check"), QUICK).items():
            if not found.ok:
                raise StackError(f"What has come of {key} is not sound: {'; '.join(found.findings)}.")
        owners: dict[str, set[str]] = {}
        for one in self._targets():
            if one.store == sqlite.KIND:
                owners.update(memories.owners(self._new(one), os.path.join(self.places.scratch, "owners")))
        return owners

    def _swap(self) -> None:
        self._phase("swap")
        refuse_active(self._targets(), self.engine, "migration")
        self.record.swaps = [self._swap_of(target) for target in self._targets()]
        self.record.stage = SWAPPING
        if self.journal is not None:
            self.journal.note(KEY, self.record.as_json())
        for swap in self.record.swaps:
            swap.forward()
        refuse_active(self._targets(), self.engine, "migration")  # who ran before the last rename has old data open

    def _prove(self, crew: Any, expected: Mapping[str, Any], owners: Mapping[str, set[str]]) -> dict[str, Any]:
        self._phase("prove")
        keys = {target.name: target.key for target in self._targets()}
        inspected = crew.inspect()
        found = census.ask(self.engine, inspected, keys)
        wrong = census.compare({key: at_least(value) for key, value in expected.items()}, found)
        if wrong:
            raise StackError(f"The target does not find what the source has: {' '.join(wrong)}")
        read = None
        for about in inspected:
            service = memories.service_of(about) if _is_openmemory(about) else None
            if service is not None:
                few = dict(sorted(owners.items(), key=lambda one: -len(one[1]))[:_MOST_USERS])
                read, problems = memories.read_back(service, few, most_pages=1)
                if problems:
                    raise StackError(f"The target does not give back what the source has: {' '.join(problems)}")
        self.sync({})
        return {"census": found, "memories": read}

    def _targets(self) -> list[Target]:
        return self.plan.targets if self.plan is not None else []

    def _new(self, target: Target) -> str:
        return os.path.join(target.beside(self.record.id), "new")

    def _swap_of(self, target: Target) -> Swap:
        beside, new = target.beside(self.record.id), self._new(target)
        old = os.path.join(beside, "old")
        if target.in_root:
            moves = in_root_moves(target.path, new, old)
            before, after = Root.read(target.path), Root.read(new)
            return Swap(target.name, target.key, target.path, beside, moves, before, after)
        moves = [Move(target.path, new, old, os.path.lexists(target.path), True)]
        return Swap(target.name, target.key, target.path, beside, moves)

    def _phase(self, name: str) -> None:
        if self.journal is not None:
            self.journal.phase(name)
        self.progress.phase(name)
        self.caller.say(phase=name)


def _is_openmemory(inspected: Mapping[str, Any]) -> bool:
    known = recognise(Container.from_inspect(inspected))
    return known is not None and known[0] == sqlite.KIND
