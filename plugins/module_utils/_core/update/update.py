# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An update from the request to the result: pull, save, copy while it runs, stop, replace, prove, and the way back."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from .. import compose_images
from ..backup.backup import open_repository
from ..compose_project import Project
from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..moving.rebuild import Recipe
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import Places, require_local
from ..operation.progress import Progress
from ..operation.recover import recover
from ..operation.retired import refuse_moving, refuse_retired
from ..operation.watcher import Watcher
from ..repository.repository import Repository
from ..restore import kept
from ..restore.crew import Crew
from ..restore.exchange import start_again
from ..restore.restore import new_id
from .exchange import Exchange
from .plan import UpdatePlan, images_text, make_plan
from .record import ACCEPTED, KEY, PREPARING, REPLACING, Record
from .request import UpdateRequest
from .services import with_steps
from .undo import undo

_NO_TAG = re.compile(r"@|^(sha256:)?[0-9a-f]{12,64}$")  # a digest or an id, which can be given to no other image


def run(request: UpdateRequest, engine: Engine, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """Update a stack, and return the result of the module stack_update; raises StackError.

    Where anything fails, the versions of before run again, on their data.
    """
    request.check()
    require_local(engine)
    places = Places.of(request.project, request.state_dir, create=False)
    refuse_retired(places)
    refuse_moving(places)
    repository = open_repository(request.backup(), places) if request.snapshot == "make" else None
    if check_mode:
        return _predict(request, engine, places, repository)
    if not os.path.isdir(places.state):  # what is refused the first time leaves not even a directory
        make_plan(request, engine, Project(request.compose, lambda: engine).resolve())
    Places.of(request.project, request.state_dir)
    with OperationLock(places, "update"):
        progress.attach(places.progress)
        said = recover(engine, places, lock_held=True)
        said += kept.purge_expired(places)
        progress.phase("plan")
        project = Project(request.compose, lambda: engine)
        config = project.resolve()
        make_plan(request, engine, config)
        journal = Journal.begin(places, "update", new_id())
        update = _Update(request, project, config, engine, places, repository, progress, journal)
        with Watcher(engine, places):
            result = _watched(update)
        if result is None:
            result = _deploy(update.plan, engine)
            progress.done()
        return {**result, "actions": [*said, *result["actions"]]}


def _watched(update: _Update) -> dict[str, Any] | None:
    """Update, or take all back; None where nothing is newer. The journal is over either way, or raises StackError."""
    try:
        if update.pull():
            return update.run()
        update.journal.end()
    except OSError as error:
        failed = StackError(f"The update failed at {error.filename or 'a file'} ({error.strerror}).")
        update.take_back(failed)
        raise failed from error
    except BaseException as error:
        update.take_back(error)
        raise
    return None


def _deploy(plan: UpdatePlan, engine: Engine, check_mode: bool = False) -> dict[str, Any]:
    """Nothing is newer: what else the files ask for is done as any deployment does it, which mostly is nothing."""
    alone = replace(plan.request.deployment, ends_with_us=False)  # no watcher would go on where Compose is killed
    found = Project(alone, lambda: engine, check_mode).present()
    return {**_result(plan), "changed": found.changed, "actions": found.actions, "diff": found.diff}


def _predict(request: UpdateRequest, engine: Engine, places: Places, repository: Repository | None) -> dict[str, Any]:
    if os.path.exists(places.journal):
        said = recover(engine, places, check_mode=True)
        if said:
            raise StackError(
                f"An operation has died on {request.project}; run openmemory-stack recover. {' '.join(said)}"
            )
    project = Project(request.compose, lambda: engine, check_mode=True)
    plan = make_plan(request, engine, project.resolve(), ask_registry=request.compose.pull == "always")
    if not plan.newer:
        if any(service.newer is None for service in plan.services):
            project.present()
            return {**_result(plan), "changed": project.result.changed, "actions": project.result.actions}
        return _deploy(plan, engine, check_mode=True)
    _check_repository(repository)
    plan.services = [
        with_steps(service, lambda one: _ask_for(engine, one, request.compose.pull)) for service in plan.services
    ]
    project.present()
    result = _result(plan)
    return {**result, "actions": [*plan.actions, *project.result.actions], "diff": [*project.result.diff, _diff(plan)]}


def _ask_for(engine: Engine, reference: str, pull: str) -> None:
    if not _is_here(engine, reference, pull):
        engine.registry_digest(reference)


def _is_here(engine: Engine, reference: str, pull: str) -> bool:
    """Whether this host has an image; raises StackError where it does not, and must not get it."""
    try:
        engine.inspect_image(reference)
    except NotFoundError:
        if pull == "never":
            raise StackError("it is not on this host, and pull is never") from None
        return False
    return True


def _check_repository(repository: Repository | None) -> None:
    """Raise StackError for one that no snapshot could be put into, before anything is done."""
    if repository is None:
        return
    try:
        if not repository.exists():
            raise StackError(f"There is no repository at {repository.restic.shown}.")
        repository.open()
    except StackError as error:
        raise StackError(
            f"No snapshot can be made before the update: {error} Repair that, or set snapshot: "
            "none to update without one."
        ) from error


def _result(plan: UpdatePlan) -> dict[str, Any]:
    return {
        "changed": True,
        "services": {service.name: service.as_result() for service in plan.services},
        "updated": [service.name for service in plan.newer],
        "snapshot_id": None,
        "downtime_s": None,
        "kept": [],
        "timings": {},
        "actions": plan.actions,
        "warnings": plan.warnings,
        "diff": [],
    }


def _diff(plan: UpdatePlan) -> dict[str, str]:
    return {
        "before_header": "images",
        "after_header": "images",
        "before": images_text(plan.services, after=False),
        "after": images_text(plan.services, after=True),
    }


class _Update:
    def __init__(
        self,
        request: UpdateRequest,
        project: Project,
        config: Mapping[str, Any],
        engine: Engine,
        places: Places,
        repository: Repository | None,
        progress: Progress,
        journal: Journal,
    ):
        self.request = request
        self.project = project
        self.config = config
        self.engine = engine
        self.places = places
        self.repository = repository
        self.progress = progress
        self.journal = journal
        self.record = Record(str(journal.data["id"]), places.state)
        self.plan: UpdatePlan

    def pull(self) -> bool:
        """Have all images; whether any is newer than what runs. The stack runs on meanwhile."""
        self._phase("pull")
        references = {service.get("image") for service in self.config["services"].values()} - {None}
        before = compose_images.local_images(self.engine, references)
        self.record.tags = {name: found["id"] for name, found in before.items() if found and "@" not in name}
        self._note()
        self.project.pull(self.config)
        self.plan = make_plan(self.request, self.engine, self.config)
        if not self.plan.newer:
            return False
        self.plan.recipes = [self._named(one) for one in self.plan.recipes]
        self.plan.services = [with_steps(service, self._have) for service in self.plan.services]
        return True

    def run(self) -> dict[str, Any]:
        plan, journal, progress = self.plan, self.journal, self.progress
        self._phase("check")
        _check_repository(self.repository)
        snapshot = self._save()
        exchange = Exchange(plan, self.record, self.engine, self.places, journal, progress)
        exchange.copy()
        downtime = exchange.run()
        self._phase("finish")
        exchange.accept()
        journal.end()
        progress.done()
        entries = [entry.as_result() for entry in kept.load(self.places) if entry.operation == self.record.id]
        actions = [*plan.actions, *exchange.actions]
        if snapshot:
            actions[0] = f"snapshot {snapshot[:8]} made"
        result = {
            **_result(plan),
            "snapshot_id": snapshot,
            "downtime_s": round(downtime, 3),
            "kept": entries,
            "timings": {name: round(seconds, 3) for name, seconds in progress.timings.items()},
            "actions": [*self.project.result.actions, *actions],
            "diff": [*exchange.diff, _diff(plan)],
        }
        exchange.remember(result)
        return result

    def take_back(self, error: BaseException) -> None:
        """Everything as before, also for Ctrl-C. Raises StackError with the reason and what was done."""
        stage = (self.journal.data.get(KEY) or {}).get("stage", PREPARING)
        stopped = bool(self.journal.data.get("stopped"))
        unhealthy, said = "", []
        self.journal.free_room()
        try:
            if stage != ACCEPTED:
                said = undo(self.engine, self.journal)
                if stopped and isinstance(error, StackError):
                    unhealthy = self._start()
                    if unhealthy and stage == REPLACING and not self._is_back():
                        said += self._bring_copies()
                        unhealthy = self._start()
            recover(self.engine, self.places, lock_held=True)
        except (StackError, OSError) as second:
            raise StackError(
                f"{error} It could not be taken back: {second} Run openmemory-stack recover when that is repaired."
            ) from error
        if not isinstance(error, StackError):
            return
        if stage == ACCEPTED:
            raise StackError(f"{error} The new versions run and are proven.") from error
        sentences = "".join(f" {sentence}" for sentence in said if "is kept in" in sentence)
        if stage == REPLACING:
            data = "on the data from before the update" if self._is_back() else "with all that was written since"
            done = f"The update was taken back: the old versions run again {data}.{unhealthy}{sentences}"
        else:
            done = f"Nothing was updated{', and what was stopped runs again' if stopped else ''}.{unhealthy}"
        raise StackError(f"{error} {done}") from error

    def _start(self) -> str:
        """Start what ran before, one after the other; a sentence if it does not work."""
        found = {}
        for one in self.journal.data["stopped"]:
            with suppress(NotFoundError):
                found[one["id"]] = self.engine.inspect_container(one["id"])
        return start_again(Crew(self.engine, self.request.project, found), self.request.compose.wait_timeout)

    def _is_back(self) -> bool:
        return bool((self.journal.data.get(KEY) or {}).get("back"))

    def _bring_copies(self) -> list[str]:
        """The old versions do not work on what is there, though its format looked the same: back to the copies."""
        record = Record.from_json(self.journal.data[KEY])
        record.stage, record.lost, record.back = REPLACING, True, None
        self.journal.note(KEY, record.as_json())
        others = [entry for entry in kept.load(self.places) if entry.operation != record.id]
        kept.save(self.places, others)  # undo() lists what is kept then
        return undo(self.engine, self.journal)

    def _save(self) -> str | None:
        if self.repository is None:
            return None
        from ..backup.backup import run_locked

        made = run_locked(self.request.backup(), self.engine, self.places, self.repository, self.progress, self.journal)
        self.plan.warnings += made["warnings"]
        return str(made["snapshot_id"])

    def _named(self, one: Recipe) -> Recipe:
        """With its image by the name that it was made by: a tag that moved goes back first."""
        about = self.plan.containers[one.id]
        name, image = str(about["Config"]["Image"]), str(about["Image"])
        if name == one.body["Image"]:
            return one
        if self.record.tags.get(name) != image:  # it had moved before the pull
            if _NO_TAG.search(name) or self.record.names.setdefault(name, image) != image:
                return one
            with suppress(NotFoundError):
                self.record.tags.setdefault(name, str(self.engine.inspect_image(name)["Id"]))
        return replace(one, body={**one.body, "Image": name})

    def _have(self, reference: str) -> None:
        if not _is_here(self.engine, reference, self.request.compose.pull):
            self.project.pull_one(reference)

    def _phase(self, name: str) -> None:
        self.journal.phase(name)
        self.progress.phase(name)

    def _note(self) -> None:
        self.journal.note(KEY, self.record.as_json())
