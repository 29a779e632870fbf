# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's part of a migration through a repository: stop, a last snapshot of what stands still, and retire.

The target restores that snapshot by the usual verb. The two hosts need not reach each other, so nothing but the word of
whoever watches both tells that the target runs: there is a way back, and it is never taken by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..backup.backup import open_repository, run_locked
from ..backup.request import BackupRequest
from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import STATE_DIR, Places, require_local
from ..operation.progress import Progress
from ..operation.recover import recover
from ..operation.retired import Retirement, read_retirement
from ..operation.watcher import Watcher
from ..repository.manifest import Manifest
from ..repository.repository import Repository
from ..restore.crew import Crew
from ..restore.restore import new_id
from ..volumes import PROJECT_LABEL
from .departure import make_plan
from .policies import restore_policies

KEY = "handover"  # in the journal
TAG = "migration"
STOPPING, RETIRED = "stopping", "retired"
_START_S = 300.0


@dataclass
class HandoverRequest:
    """The names are those of the module's options; target is the other host's name, for people and for the mark."""

    project: str
    target: str
    repository: str
    password_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    state_dir: str = STATE_DIR
    staging_dir: str | None = None

    def backup(self) -> BackupRequest:
        where = self.project, self.repository, self.password_file, self.environment
        return BackupRequest(
            *where, state_dir=self.state_dir, staging_dir=self.staging_dir, tags=[TAG], init=False, prune=False
        )


def run(request: HandoverRequest, engine: Engine, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """{changed, snapshot_id, retired, volumes, timings, actions, warnings}; raises StackError, and all runs then.

    The snapshot is read back from the repository before the stack is retired.
    """
    request.backup().check()
    require_local(engine)
    places = Places.of(request.project, request.state_dir, create=False)
    retirement = read_retirement(places)
    if retirement is not None:
        snapshot = retirement.snapshot
        return {**retirement.as_result(), "changed": False, "snapshot_id": snapshot, "actions": [], "warnings": []}
    repository = open_repository(request.backup(), places)
    if not repository.exists():
        raise StackError(f"There is no repository at {repository.restic.shown}; make a backup into it first.")
    plan = make_plan(request.project, engine)
    names = [volume.name for volume in plan.volumes]
    actions = ["stop the stack", f"make a last snapshot of {', '.join(names)}", "retire the stack; its data stays"]
    if check_mode:
        return {"changed": True, "snapshot_id": None, "retired": None, "actions": actions, "warnings": []}
    with OperationLock(places, "migrate"):
        progress.attach(places.progress)
        said = recover(engine, places, lock_held=True)
        journal = Journal.begin(places, "handover", new_id())
        try:
            with Watcher(engine, places):
                result = _Handover(request, engine, places, repository, progress, journal).run()
        except BaseException as error:
            _take_back(error, engine, places)
            raise
    return {**result, "actions": [*said, *actions]}


class _Handover:
    def __init__(
        self,
        request: HandoverRequest,
        engine: Engine,
        places: Places,
        repository: Repository,
        progress: Progress,
        journal: Journal,
    ):
        self.request = request
        self.engine = engine
        self.places = places
        self.repository = repository
        self.progress = progress
        self.journal = journal

    def run(self) -> dict[str, Any]:
        self._snapshot()  # while all runs: what it saves, the last one need not
        mine = {
            str(one["Id"]): self.engine.inspect_container(one["Id"])
            for one in self.engine.containers()
            if (one.get("Labels") or {}).get(PROJECT_LABEL) == self.request.project
        }
        policies = {identity: about["HostConfig"]["RestartPolicy"] for identity, about in mine.items()}
        self.journal.note(KEY, {"stage": STOPPING, "target": self.request.target, "policies": policies})
        self._phase("stop")
        running = {identity: about for identity, about in mine.items() if about["State"]["Running"]}
        Crew(self.engine, self.request.project, running).stop(self.journal)
        snapshot = self._snapshot()
        self._phase("read back")
        missing = set(make_plan(self.request.project, self.engine).keys) - self._held(snapshot)
        if missing or self.repository.check():
            raise StackError(f"The snapshot {snapshot[:8]} in {self.repository.restic.shown} cannot be relied on.")
        if any(self.engine.is_active(identity) for identity in mine):
            raise StackError("A container of the stack was started while its last snapshot was made; try again.")
        for identity in mine:
            self.engine.set_restart_policy(identity, {"Name": "no"})
        # one write: from here on nothing of it is started again
        self.journal.notes({KEY: {"stage": RETIRED, "snapshot": snapshot}, "stopped": []})
        retirement = finish(self.places, self.journal)
        self.journal.end()
        self.progress.done()
        timings = {name: round(seconds, 3) for name, seconds in self.progress.timings.items()}
        return {
            **retirement.as_result(), "changed": True, "snapshot_id": snapshot, "timings": timings, "warnings": []
        }  # fmt: skip

    def _snapshot(self) -> str:
        request = self.request.backup()
        made = run_locked(request, self.engine, self.places, self.repository, self.progress, self.journal)
        return str(made["snapshot_id"])

    def _held(self, snapshot: str) -> set[str]:
        manifest = Manifest.from_json(self.repository.manifest_text(snapshot), snapshot)
        return {str(about["name"]) for about in manifest.volumes.values()}

    def _phase(self, name: str) -> None:
        self.journal.phase(name)
        self.progress.phase(name)


def finish(places: Places, journal: Journal) -> Retirement:
    """The stack is retired: the mark, which says where it is now and from which snapshot."""
    record = journal.data[KEY]
    project, operation = str(journal.data["project"]), str(journal.data["id"])
    retirement = Retirement(operation, project, record["target"], "", snapshot=record["snapshot"])
    retirement.policies = record["policies"]
    retirement.write(places)
    return retirement


def undo(engine: Engine, journal: Journal) -> list[str]:
    """What recovery does; it starts what was stopped by itself afterwards. Sentences."""
    record = journal.data.get(KEY) or {}
    if record.get("stage") == RETIRED:
        places = Places.of(str(journal.data["project"]), _state_dir(journal), create=False)
        finish(places, journal)
        return [f"The stack was retired here for {record['target']}."]
    restore_policies(engine, record.get("policies") or {})
    return ["The stack was not moved."] if record else []


def come_back(project: str, state_dir: str, engine: Engine, check_mode: bool = False) -> dict[str, Any]:
    """Let a retired stack run here again, with its data of then; {changed, actions}. Raises StackError.

    Whoever asks for it knows that it does not run on the other host.
    """
    require_local(engine)
    places = Places.of(project, state_dir, create=False)
    retirement = read_retirement(places)
    if retirement is None:
        return {"changed": False, "actions": []}
    actions = [f"start the stack here again; it had been moved to {retirement.target}"]
    if check_mode:
        return {"changed": True, "actions": actions}
    with OperationLock(places, "migrate"):
        recover(engine, places, lock_held=True)
        found: dict[str, Mapping[str, Any]] = {}
        for identity in retirement.policies:
            with suppress(NotFoundError):
                found[identity] = engine.inspect_container(identity)
        restore_policies(engine, retirement.policies)
        retirement.remove(places)
        crew = Crew(engine, project, found)
        crew.start(_START_S)
        crew.wait(_START_S)
    return {"changed": True, "actions": actions}


def _state_dir(journal: Journal) -> str:
    return journal.path.rsplit("/", 2)[0]


def _take_back(error: BaseException, engine: Engine, places: Places) -> None:
    try:
        recover(engine, places, lock_held=True)
    except StackError as second:
        raise StackError(
            f"{error} It could not be taken back: {second} Run openmemory-stack recover when that is repaired."
        ) from error
    if isinstance(error, StackError):
        raise StackError(f"{error} Nothing was moved: the stack runs here as before.") from error
