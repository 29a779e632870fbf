# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A purge from the request to the result: list, stop, save, check what was saved, and only then remove."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from ..backup.backup import open_repository, run_locked
from ..capture.plan import make_plan as make_capture_plan
from ..engine import Engine
from ..errors import StackError
from ..monitoring import metrics
from ..monitoring import settings as monitoring
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import CONFIG_DIR, Places, require_local
from ..operation.progress import Progress
from ..operation.recover import recover
from ..repository.manifest import Manifest
from ..repository.repository import Repository
from ..restore.restore import new_id
from .plan import PurgePlan, make_plan
from .record import KEY, REMOVING
from .request import PurgeRequest
from .undo import finish, leave

_WITHOUT = "or set snapshot: none to purge without one"


def run(request: PurgeRequest, engine: Engine, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """Remove a stack with its data, and return the result of the module stack_purge; raises StackError.

    Until the snapshot is made and found readable, an error leaves all as it was and running. In check mode nothing is
    changed, and the result says what would be done.
    """
    request.check()
    require_local(engine)
    places = Places.of(request.project, request.state_dir, create=False)
    repository = open_repository(request.backup(), places) if request.snapshot == "make" else None
    if check_mode or not os.path.isdir(places.state):  # what is refused the first time leaves not even a directory
        plan = _checked_plan(request, engine, places, repository, new_id())
        if plan.nothing:
            return _nothing(plan, repository)
        if check_mode:
            return {**_result(plan), "snapshot_id": None, "actions": plan.actions, "timings": {}}
        _refuse_unconfirmed(plan)
    Places.of(request.project, request.state_dir)
    with OperationLock(places, "purge"):
        progress.attach(places.progress)
        said = recover(engine, places, lock_held=True)
        progress.phase("plan")
        operation = new_id()
        plan = _checked_plan(request, engine, places, repository, operation)
        if plan.nothing:
            leave(places)
            found = {} if said else _nothing(plan, repository)
            return {**_result(plan), "snapshot_id": None, "timings": {}, "actions": [], **found, **_said(said)}
        _refuse_unconfirmed(plan)
        journal = Journal.begin(places, "purge", operation)
        purge = _Purge(plan, engine, places, repository, progress, journal)
        try:
            result = purge.run()
        except BaseException as error:
            purge.take_back(error)
            raise
        return {**result, "actions": [*said, *result["actions"], *_metrics(places)]}


def _metrics(places: Places) -> list[str]:
    """Take the metrics away of what is no more, or an alert would say for ever that it is not backed up."""
    with suppress(StackError):
        settings = monitoring.load(CONFIG_DIR, places.project)
        if settings is not None and metrics.remove(places, settings):
            return ["remove the metrics of its backups"]
    return []


class _Purge:
    def __init__(
        self,
        plan: PurgePlan,
        engine: Engine,
        places: Places,
        repository: Repository | None,
        progress: Progress,
        journal: Journal,
    ):
        self.plan = plan
        self.engine = engine
        self.places = places
        self.repository = repository
        self.progress = progress
        self.journal = journal
        self.record = plan.record

    def run(self) -> dict[str, Any]:
        crew, record = self.plan.crew, self.record
        record.stopped = [{"id": identity, "name": crew.name(identity)} for identity in crew.ids]
        self.journal.notes({KEY: record.as_json(), "phase": "stop"})
        self.progress.phase("stop")
        crew.stop(self.journal, self.plan.request.stop_timeout)
        snapshot = self._save()
        self._phase("look again")
        self._refuse_changes()
        record.stage, record.stopped = REMOVING, []
        # one write: from here on nothing is started any more, and all of this goes
        self.journal.notes({KEY: record.as_json(), "stopped": [], "phase": "removing"})
        self.progress.phase("remove")
        finish(self.engine, self.journal, record)
        self.journal.end()
        self.progress.done()
        leave(self.places)
        actions = [action for action in self.plan.actions if not action.startswith("make the snapshot")]
        if snapshot:
            actions.insert(1 if crew.ids else 0, f"snapshot {snapshot[:8]} of {', '.join(record.volumes)} made")
        timings = {name: round(seconds, 3) for name, seconds in self.progress.timings.items()}
        return {**_result(self.plan), "snapshot_id": snapshot, "actions": actions, "timings": timings}

    def take_back(self, error: BaseException) -> None:
        """All runs again, unless the removal has begun. Raises StackError with what was done, for a StackError."""
        begun = (self.journal.data.get(KEY) or {}).get("stage") == REMOVING
        if begun:
            if isinstance(error, StackError):
                raise StackError(
                    f"{error} The removal has begun and cannot be taken back; when that is repaired, run the purge "
                    "again or openmemory-stack recover, which finishes it."
                ) from error
            return
        try:
            if isinstance(error, StackError):
                with suppress(StackError):  # what does not become healthy is started all the same
                    self.plan.crew.start(60.0)
            recover(self.engine, self.places, lock_held=True)
        except StackError as second:
            raise StackError(
                f"{error} What was stopped could not be started: {second} Run openmemory-stack recover when that is "
                "repaired; nothing was removed."
            ) from error
        if isinstance(error, StackError):
            again = ", ".join(self.plan.crew.names())
            runs = f", and {again} started again" if again else ""
            raise StackError(f"{error} Nothing was removed{runs}.") from error

    def _save(self) -> str | None:
        """The snapshot of what stands still, read back from the repository; its id."""
        if self.repository is None or not self.record.volumes:
            return None
        request = self.plan.request.backup()
        try:
            made = run_locked(request, self.engine, self.places, self.repository, self.progress, self.journal)
        except OSError as error:
            place = error.filename or "a file"
            raise StackError(f"The snapshot failed at {place} ({error.strerror}); make room.") from error
        self._phase("read back")
        identity = str(made["snapshot_id"])
        manifest = Manifest.from_json(self.repository.manifest_text(identity), identity)
        missing = {*self.record.volumes} - {str(about["name"]) for about in manifest.volumes.values()}
        problems = [f"it lacks the volume {name}" for name in sorted(missing)] or self.repository.check()
        if problems:
            shown = self.repository.restic.shown
            raise StackError(
                f"The snapshot {identity[:8]} in {shown} cannot be relied on: {'; '.join(problems[:3])}; repair that "
                f"repository or name another one, {_WITHOUT}."
            )
        return identity

    def _refuse_changes(self) -> None:
        """Raise StackError where the stack is not what the plan has found, or runs again: that is in no snapshot."""
        now = make_plan(self.plan.request, self.engine, self.places, str(self.journal.data["id"]))
        for kind in ("containers", "networks", "volumes", "directories", "files"):
            if getattr(now.record, kind) != getattr(self.record, kind):
                raise StackError(f"The {kind} of the stack changed while the purge was under way; run it again.")
        running = [now.crew.name(each) for each in now.crew.ids if self.engine.is_active(each)]
        if running:
            raise StackError(f"The container {running[0]} was started while the purge was under way; run it again.")

    def _phase(self, name: str) -> None:
        self.journal.phase(name)
        self.progress.phase(name)


def _checked_plan(
    request: PurgeRequest, engine: Engine, places: Places, repository: Repository | None, operation: str
) -> PurgePlan:
    """The plan, with all that stops a snapshot known before a container is stopped for it."""
    plan = make_plan(request, engine, places, operation)
    if repository is None or not plan.record.volumes:
        return plan
    try:
        if not repository.exists():
            raise StackError(f"There is no repository at {repository.restic.shown}.")
        repository.open()
        _refuse_empty(request, engine)
    except StackError as error:
        raise StackError(
            f"No snapshot of the stack {request.project} can be made, so nothing was removed: {error} Repair that, "
            f"{_WITHOUT}."
        ) from error
    return plan


def _refuse_empty(request: PurgeRequest, engine: Engine) -> None:
    """Raise StackError for what a backup refuses; of an empty volume in words that fit."""
    try:
        make_capture_plan(engine, request.project, None, "none")
    except StackError as error:
        sentence = str(error).partition(" is empty, and a backup")
        if sentence[1]:
            raise StackError(f"{sentence[0]} is empty, and nobody can say whether its data is elsewhere.") from error
        raise


def _refuse_unconfirmed(plan: PurgePlan) -> None:
    project = plan.request.project
    if plan.request.confirm != project:
        how = "after a snapshot" if plan.request.snapshot == "make" else "without a snapshot"
        raise StackError(
            f"This would remove the stack {project} with all of its data, {how}: {plan.summary}; set "
            f"confirm: {project} to have it done."
        )


def _nothing(plan: PurgePlan, repository: Repository | None) -> dict[str, Any]:
    """The result where nothing is left; StackError where no snapshot tells that there ever was such a stack."""
    project = plan.request.project
    if repository is not None and not (repository.exists() and repository.snapshots(project)):
        raise StackError(
            f"compose_project is {project}, and nothing of it is on this host, nor a snapshot of it in "
            f"{repository.restic.shown}; correct compose_project."
        )
    said = [f"nothing of the stack {project} is on this host"]
    return {**_result(plan), "changed": False, "snapshot_id": None, "actions": said, "timings": {}}


def _said(said: list[str]) -> dict[str, Any]:
    return {"changed": True, "actions": said} if said else {}


def _result(plan: PurgePlan) -> dict[str, Any]:
    return {"changed": True, "removed": plan.removed, "warnings": plan.warnings, "diff": plan.diff}
