# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore from the request to the result: fetch beside, check, swap by rename, and the way back."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..capture.durable import OpenFileSystems
from ..engine import Engine
from ..errors import StackError
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import Places, private_directory, require_local
from ..operation.progress import Progress
from ..operation.recover import recover
from ..repository.repository import Repository
from ..stores import sqlite
from . import fetch, kept
from .exchange import Exchange, not_foreseen, take_back
from .plan import RestorePlan, make_plan, path_names
from .request import RestoreRequest
from .safety import open_repository, safety_capture
from .swap import Move, Record, Root, Swap, in_root_moves
from .targets import Target, refuse_active
from .verdict import Verdict

_DAY = 86400.0


def run(request: RestoreRequest, engine: Engine, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """Restore, and return the result of the module volume_restore; raises StackError, with the data as before then.

    In check mode nothing is changed, and the result says what would be done.
    """
    request.check()
    require_local(engine)
    places = Places.of(request.project, request.state_dir, create=False)
    repository = open_repository(request, places)
    if check_mode or not os.path.isdir(places.state):  # what is refused the first time leaves not even a directory
        predicted = _predict(make_plan(request, engine, repository, places=places))
        if check_mode:
            return predicted
    Places.of(request.project, request.state_dir)
    with OperationLock(places, "restore"):
        progress.attach(places.progress)
        said = recover(engine, places, lock_held=True)
        said += kept.purge_expired(places)
        progress.phase("plan")
        plan = make_plan(request, engine, repository, places=places, ask=False)
        journal = Journal.begin(places, "restore", new_id())
        try:
            result = _Restore(plan, engine, places, repository, progress, journal).run()
        except OSError as error:
            failed = not_foreseen(error, "restore")
            take_back(failed, engine, places, plan.crew, journal, request.wait_timeout)
            raise failed from error
        except BaseException as error:
            take_back(error, engine, places, plan.crew, journal, request.wait_timeout)
            raise
        if request.keep_days == 0:
            said += kept.purge_expired(places)
        return {**result, "actions": [*said, *result["actions"]]}


def new_id() -> str:
    """An operation's id, as the names of our directories end."""
    return f"{time.strftime('%Y%m%dt%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


def _predict(plan: RestorePlan) -> dict[str, Any]:
    return {
        "changed": True,
        "snapshot_id": plan.snapshot.id,
        "volumes": {target.key: _about(target) for target in plan.targets},
        "downtime_s": None,
        "kept": [],
        "actions": plan.actions,
        "warnings": plan.warnings,
        "diff": plan.diff,
    }


def _about(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "path": target.path,
        "backing": target.backing,
        "store": target.store,
        "created": not target.exists,
    }


class _Restore:
    def __init__(
        self,
        plan: RestorePlan,
        engine: Engine,
        places: Places,
        repository: Repository,
        progress: Progress,
        journal: Journal,
    ):
        self.plan = plan
        self.request = plan.request
        self.engine = engine
        self.places = places
        self.repository = repository
        self.progress = progress
        self.journal = journal
        self.record = Record(str(journal.data["id"]), plan.snapshot.id, places.state)
        self.warnings = list(plan.warnings)
        timeouts = self.request.stop_timeout, self.request.wait_timeout
        self.exchange = Exchange(plan.crew, journal, self.record, progress, *timeouts)
        self.names: list[str] = []  # of a single path and what belongs to it
        self.verdict = Verdict(plan, self.record.id, engine, places, journal, progress, self.warnings)

    def run(self) -> dict[str, Any]:
        plan, progress, journal = self.plan, self.progress, self.journal
        journal.phase("fetch")
        self._prepare()
        with OpenFileSystems(target.beside(self.record.id) for target in plan.targets) as systems:
            self._fetch()
            journal.phase("check")
            self._check(systems)
            self.verdict.set_password()
            self.verdict.probe()
            safety = self._safety()
            progress.phase("sync")
            systems.flush()
        downtime = self.exchange.run(
            self._swaps,
            self.request.start,
            self.verdict.login,
            self.verdict.compare,
            self.request.keep_days * _DAY,
            self.verdict.begin,
        )
        progress.done()
        entries = [entry.as_result() for entry in kept.load(self.places) if entry.operation == self.record.id]
        return {
            "changed": True,
            "snapshot_id": plan.snapshot.id,
            "safety_snapshot_id": safety,
            "operation": self.record.id,
            "volumes": {
                target.key: {**_about(target), "census": self.verdict.census.get(target.key)} for target in plan.targets
            },
            "downtime_s": round(downtime, 3),
            "kept": entries,
            "census": self.verdict.census,
            "stopped": plan.crew.names(),
            "started_again": plan.crew.names() if self.request.start else [],
            "timings": {name: round(seconds, 3) for name, seconds in progress.timings.items()},
            "actions": [*plan.actions, *self.verdict.extra],
            "warnings": self.warnings,
            "diff": plan.diff,
        }

    def _prepare(self) -> None:
        """Volumes and our directories; the journal has each before it is made."""
        self.record.created = [target.name for target in self.plan.targets if not target.exists]
        self.record.beside = [target.beside(self.record.id) for target in self.plan.targets]
        self.record.directories = [
            target.path
            for target in self.plan.targets
            if not target.exists and target.backing == "path" and not os.path.lexists(target.path)
        ]
        self.exchange.note()
        private_directory(self.places.scratch)
        for target in self.plan.targets:
            beside = target.beside(self.record.id)
            try:
                if target.path in self.record.directories:
                    os.makedirs(os.path.dirname(target.path), mode=0o755, exist_ok=True)
                    os.mkdir(target.path, 0o700)
                if not target.exists:
                    self.engine.create_volume(target.name, "local", dict(target.driver_opts), dict(target.labels))
                os.mkdir(beside, 0o700)
                if target.in_root or self.request.path:
                    os.mkdir(os.path.join(beside, "old"), 0o700)
                if self.request.path:
                    os.mkdir(os.path.join(beside, "new"), 0o700)
            except OSError as error:
                raise StackError(
                    f"The place beside the data of the volume {target.name} cannot be made ({error.filename}: "
                    f"{error.strerror}); use become: true, or make room."
                ) from error

    def _fetch(self) -> None:
        plan = self.plan
        if self.request.path:
            self.names = fetch.fetch_path(
                self.repository, plan.snapshot, plan.targets[0], self.request.path, self.record.id, self.progress
            )
        else:
            fetch.fetch(self.repository, plan.snapshot, plan.targets, self.record.id, self.progress)

    def _check(self, systems: OpenFileSystems) -> None:
        """Most of the writing out takes place meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(systems.flush)
            self.verdict.check()
        written.result()

    def _safety(self) -> str | None:
        if not self.request.safety:
            return None
        self.journal.phase("safety")
        self.progress.phase("safety")
        same = self.plan, self.engine, self.places, self.repository, self.progress, self.journal
        made = safety_capture(*same, self.warnings)
        if made:
            self.verdict.extra.append(f"safety snapshot {made[:8]} of what was live made")
        return made

    def _swaps(self) -> list[Swap]:
        refuse_active(self.plan.targets, self.engine)
        return [self._swap_of(target) for target in self.plan.targets]

    def _swap_of(self, target: Target) -> Swap:
        beside = target.beside(self.record.id)
        new, old = os.path.join(beside, "new"), os.path.join(beside, "old")
        made = not target.exists
        base = Swap(target.name, target.key, target.path, beside, created=made)
        if self.request.path:
            moves = []
            names = path_names(self.request.path)
            if not self._is_database(target, new):
                names = [name for name in names if name == self.request.path or name in self.names]
            for name in names:
                live, leaf = os.path.join(target.path, name), os.path.basename(name)
                places = live, os.path.join(new, leaf), os.path.join(old, leaf)
                moves.append(Move(*places, os.path.lexists(live), name in self.names))
            return replace(base, moves=moves)  # also of side files that nobody has yet: a container may make them
        if target.in_root:
            moves = in_root_moves(target.path, new, old)
            return replace(base, moves=moves, before=Root.read(target.path), after=Root.read(new))
        return replace(base, moves=[Move(target.path, new, old, os.path.lexists(target.path), True)])

    def _is_database(self, target: Target, new: str) -> bool:
        """Whether a single path is one of SQLite, now or as it comes: nothing else has side files."""
        path = str(self.request.path)
        files = os.path.join(target.path, path), os.path.join(new, os.path.basename(path))
        return any(sqlite.starts_with(file, sqlite.MAGIC) for file in files)
