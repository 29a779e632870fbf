# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copy, stop, replace, prove, accept: the part of an update that changes what is live."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from ..capture.refusals import refuse_project
from ..compose_containers import project_containers
from ..compose_project import Project
from ..compose_stamp import STAMP_NAME
from ..engine import ACTIVE, Engine
from ..errors import NotFoundError, StackError
from ..moving import rebuild
from ..moving.standby import Copy, Standby
from ..operation.journal import Journal
from ..operation.last import record_last
from ..operation.places import Places
from ..operation.progress import Progress
from ..project_env import ENV_NAME
from ..proof import census, memories, trial
from ..proof.checks import QUICK, check_staged, refusal
from ..proof.throwaway import Throwaway
from ..proof.volume_keys import StoreContainer, stores_of
from ..restore.swap import Move, Root, Swap
from ..restore.targets import Target, refuse_active
from ..restore.verdict import at_least
from ..state import State
from ..stores import sqlite
from . import files
from .plan import UpdatePlan
from .record import ACCEPTED, KEY, REPLACING, Record
from .services import Service
from .undo import finish

_DAY = 86400.0
_STEP_STOP_S = 120
_LOST = "lost+found"
_POLL_S = 0.5


class Exchange:
    """The exchange of one stack's versions. actions and diff are Compose's own, after run()."""

    def __init__(
        self,
        plan: UpdatePlan,
        record: Record,
        engine: Engine,
        places: Places,
        journal: Journal,
        progress: Progress,
    ):
        self.plan = plan
        self.request = plan.request
        self.record = record
        self.engine = engine
        self.places = places
        self.journal = journal
        self.progress = progress
        self.actions: list[str] = []
        self.diff: list[dict[str, str]] = []
        self._expected: dict[str, Any] = {}
        self._owners: dict[str, set[str]] = {}
        self._ran: dict[str, str] = {}  # {id: when it was started} of what runs right before the stop
        self._standby: Standby

    def copy(self) -> None:
        """Copies beside the live data that follow it, and what the stores hold; the stack runs on meanwhile."""
        plan, record = self.plan, self.record
        self._phase("copy", plan.bytes)
        record.recipes = [one.as_json() for one in plan.recipes]
        record.beside = [self._beside(target) for target in plan.targets]
        record.saved = os.path.join(self.places.state, "before-update")
        self._note()  # before the directories are made
        copies = {}
        for target in plan.targets:
            beside = self._beside(target)
            try:
                os.mkdir(beside, 0o700)
                if target.in_root:
                    os.mkdir(os.path.join(beside, "new"), 0o700)
            except OSError as error:
                raise StackError(
                    f"The place beside the data of the volume {target.name} cannot be made ({error.filename}: "
                    f"{error.strerror}); use become: true, or make room."
                ) from error
            excluded = (_LOST,) if target.in_root else ()
            copies[target.key] = Copy(target.path, os.path.join(beside, "old"), excluded)
        self._standby = Standby(copies, self.progress)
        self._standby.follow()
        self._phase("census")
        notes: list[str] = []
        self._expected = census.ask(self.engine, plan.crew.containers, plan.keys, notes)
        if None in self._expected.values():
            raise StackError(
                f"{' '.join(notes)} So nobody could say afterwards whether the update lost data; repair that first."
            )
        self._standby.catch_up()
        self._standby.sync()  # so that little of it is left for the time in which all stands still

    def run(self) -> float:
        """Stop, the rest of the copy, the new containers; the seconds from the first stop to the last health.

        Raises StackError where the new side does not become healthy, or does not hold all that was there.
        """
        plan, record = self.plan, self.record
        self._again()
        self._phase("stop")
        begun = time.monotonic()
        plan.crew.stop(self.journal, self.request.compose.stop_timeout, self._count_again)
        refuse_active(plan.targets, self.engine, "update")
        self._phase("settle")
        started = self._started()
        self._standby.settle()
        self._standby.sync()  # before anything new writes, as the copies are all that is left of before then
        self._check()
        refuse_active(plan.targets, self.engine, "update")
        if self._started() != started:
            raise StackError("A container was started while the last of the data was copied; try again.")
        record.swaps = [self._swap_of(target) for target in plan.targets]
        record.touched = plan.touched
        record.files = files.save(self._paths(), record.saved)
        record.stage = REPLACING  # from here on what is live may be the only copy of a write
        self._note()
        for service in plan.newer:
            self._step(service)
        self._phase("start")
        project = Project(self.request.deployment, lambda: self.engine)
        found = project.present()
        self.actions, self.diff = found.actions, found.diff
        downtime = time.monotonic() - begun
        self._phase("prove")
        self._prove()
        self._start_rest()
        return downtime

    def accept(self) -> None:
        record = self.record
        record.stage = ACCEPTED
        record.until = time.time() + self.request.keep_days * _DAY if self.request.keep_days else 0.0
        # one write: nothing of before is started any more
        self.journal.notes({KEY: record.as_json(), "stopped": []})
        self.plan.warnings += finish(self.journal, record)

    def remember(self, result: Mapping[str, Any]) -> None:
        """What ran before and what runs now, for whoever asks later."""
        about = {name: result[name] for name in ("services", "updated", "snapshot_id", "downtime_s")}
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        try:
            record_last(self.places, "update", {**about, "created": created})
        except StackError as error:
            self.plan.warnings.append(f"The stack was updated, but the record of it was not kept: {error}")

    def _count_again(self, identities: Sequence[str]) -> None:
        """The stores among those that stop next: what clients deleted since the first census is no loss."""
        stopping = [one for one in self.plan.crew.inspect() if one["Id"] in identities]
        found = census.ask(self.engine, stopping, self.plan.keys)
        self._expected.update({key: value for key, value in found.items() if value is not None})

    def _start_rest(self) -> None:
        """What we stopped and Compose did not start: of an inactive profile, an orphan, a one-off."""
        for one in self.journal.data.get("stopped") or ():
            try:
                found = self.engine.inspect_container(one["id"])["State"]
            except NotFoundError:  # made anew by Compose
                continue
            # a job that ended by itself, before the stop or since Compose started it, is not run once more
            if found["Status"] in ACTIVE or self._ran.get(one["id"]) != found["StartedAt"]:
                continue
            try:
                self.engine.start(one["id"])
            except StackError as error:
                raise StackError(f"The container {one['name']} was stopped and does not start: {error}") from error

    def _again(self) -> None:
        """The containers are as planned, and the engine would make them again, before anything stops."""
        try:
            found = [self.engine.inspect_container(one.id) for one in self.plan.recipes]
        except NotFoundError as error:
            raise StackError("A container was removed or made anew while the data was copied; try again.") from error
        self._ran = {about["Id"]: about["State"]["StartedAt"] for about in found if about["State"]["Status"] in ACTIVE}
        if any(about["State"]["Status"] == "paused" for about in found):
            raise StackError("A container was paused while the data was copied; resume it, then update.")
        rebuild.rehearse(self.engine, self.journal, self.plan.recipes)

    def _started(self) -> list[str]:
        return [self.engine.inspect_container(one)["State"]["StartedAt"] for one in self.plan.crew.ids]

    def _check(self) -> None:
        """The copies are sound, and what OpenMemory's database says whose memories there are."""
        staged = {
            target.key: (self.plan.stores[target.key], os.path.join(self._beside(target), "old"))
            for target in self.plan.targets
        }
        problem = refusal(check_staged(staged, self.places.scratch, QUICK))
        if problem:
            raise StackError(f"{problem} Nothing older could be gone back to; repair the store, or restore it first.")
        for kind, path in staged.values():
            if kind == sqlite.KIND:
                self._owners.update(memories.owners(path, self.places.scratch))

    def _step(self, service: Service) -> None:
        """Run the images of a store's steps on its data, each until it answers and is stopped cleanly."""
        stores = [
            one for one in stores_of(self.engine, self.plan.containers, self.plan.keys) if one.kind == service.kind
        ]
        for reference in service.steps:
            self._phase(f"step {reference.rpartition(':')[2]}")
            for store in stores:
                self._run_step(store, reference)

    def _run_step(self, store: StoreContainer, reference: str) -> None:
        target = next(one for one in self.plan.targets if one.key == store.key)
        image = {**store.inspected, "Image": self.engine.inspect_image(reference)["Id"]}
        stepping = replace(store, inspected=image)
        deadline = time.monotonic() + self.request.compose.wait_timeout
        try:
            with Throwaway(self.engine, self.journal, self.request.project) as throwaway:
                name = trial.start(throwaway, stepping, "step", target.path)
                running = trial.wait_ready(throwaway, stepping, name, deadline)
                found = census.count(store.kind, running)
                throwaway.stop(name, _STEP_STOP_S)
        except StackError as error:
            raise StackError(f"The step {reference} on the data of {store.key} failed: {error}") from error
        self._compare({store.key: self._expected[store.key]}, {store.key: found})

    def _prove(self) -> None:
        state = State(self.engine)
        running = {one["Id"]: one for one in self._running()}
        refuse_project(self.request.project, state, list(state.volumes), running)
        self._compare(self._expected, self._ask())
        if not self._owners:
            return
        read = False
        for store in stores_of(self.engine, self._running(), self.plan.keys):
            service = memories.service_of(store.inspected) if store.kind == sqlite.KIND else None
            if service is not None:
                _read, problems = memories.read_back(service, self._owners, at_least=True)
                self._refuse_loss(problems)
                read = True
        if read:
            return
        unread = "No running OpenMemory has its database on the volume of before, so no memory was read back"
        before = stores_of(self.engine, self.plan.containers, self.plan.keys)
        if any(store.kind == sqlite.KIND for store in before):
            raise StackError(f"{unread}; mount that volume where the new version keeps its database.")
        self.plan.warnings.append(f"{unread}; the container of before was not known as OpenMemory's either.")

    def _running(self) -> list[dict[str, Any]]:
        containers = project_containers(self.engine, self.request.project)
        return [self.engine.inspect_container(one["Id"]) for one in containers]

    def _ask(self) -> dict[str, Any]:
        """The census of all that was counted before; a store that cannot be asked yet has lost nothing."""
        deadline = time.monotonic() + self.request.compose.wait_timeout
        while True:
            notes: list[str] = []
            found = census.ask(self.engine, self._running(), self.plan.keys, notes)
            unasked = sorted(key for key in self._expected if found.get(key) is None)
            if not unasked:
                return found
            if time.monotonic() > deadline:
                raise StackError(f"What {', '.join(unasked)} holds now could not be asked. {' '.join(notes)}".strip())
            time.sleep(_POLL_S)

    def _compare(self, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        self._refuse_loss(census.compare({key: at_least(value) for key, value in expected.items()}, found))

    def _refuse_loss(self, problems: list[str]) -> None:
        if problems:
            self.record.lost = True
            self._note()
            raise StackError(f"The new version does not hold what was there before: {' '.join(problems)}")

    def _paths(self) -> list[str]:
        names = [str(file["name"]) for file in self.request.compose.files]
        return [os.path.join(self.request.compose.project_src, name) for name in [*names, ENV_NAME, STAMP_NAME]]

    def _beside(self, target: Target) -> str:
        return target.beside(self.record.id)

    def _swap_of(self, target: Target) -> Swap:
        """As if the copy had been replaced by what is live, so that the way back of a restore is that of an update."""
        beside = self._beside(target)
        new, old = os.path.join(beside, "new"), os.path.join(beside, "old")
        if not target.in_root:
            moves = [Move(target.path, new, old, True, True)]
            return Swap(target.name, target.key, target.path, beside, moves)
        names = sorted(name for name in os.listdir(old) if name != _LOST)
        moves = [
            Move(os.path.join(target.path, name), os.path.join(new, name), os.path.join(old, name), True, True)
            for name in names
        ]
        root = Root.read(target.path)
        return Swap(target.name, target.key, target.path, beside, moves, before=root, after=root)

    def _phase(self, name: str, total: int | None = None) -> None:
        self.journal.phase(name)
        self.progress.phase(name, total)

    def _note(self) -> None:
        self.journal.note(KEY, self.record.as_json())
