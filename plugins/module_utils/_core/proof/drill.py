# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill: the newest snapshot restored beside the live stack, started, counted, read, and thrown away."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..backup.request import BackupRequest, check_project
from ..capture.order import start_order
from ..capture.plan import volume_key
from ..engine import Engine
from ..errors import StackError
from ..monitoring.watch import Watch, watched
from ..operation.journal import Journal
from ..operation.last import record_last
from ..operation.lock import OperationLock
from ..operation.places import CONFIG_DIR, STATE_DIR, Places, private_directory, require_local
from ..operation.progress import Progress
from ..operation.recover import recover, recover_from
from ..repository.manifest import Manifest
from ..repository.repairing import repair
from ..repository.repository import Repository
from ..repository.snapshot import Snapshot
from ..restore.fetch import LISTING, VOLUMES
from ..room import require_room
from ..stores import neo4j, qdrant, sqlite
from . import census, memories
from .ask import LoginError
from .cast import aliases, binds, cast_of, live_cast
from .checks import FULL, check_staged, refusal
from .ids import disagreements
from .probe import scratch_directory
from .throwaway import Changes, Throwaway
from .trial import SERVERS, wait_ready
from .volume_keys import stores_of


@dataclass
class DrillRequest:
    """The names are those of the command's options; timeout is in seconds, for each service's start."""

    project: str
    repository: str
    password_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    snapshot: str = "latest"
    state_dir: str = STATE_DIR
    timeout: float = 300.0
    config_dir: str = CONFIG_DIR


def run(request: DrillRequest, engine: Engine, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """Prove that a snapshot can be restored. Nothing live is touched, and nothing is left behind.

    Returns {changed, snapshot_id, created (ISO, UTC), volumes, census, memories (how many were read back through the
    API, None without it), seconds, timings, actions, warnings}, which is also recorded as the last drill. Raises
    StackError with what does not hold.
    """
    check_project(request.project)
    require_local(engine)
    places = Places.of(request.project, request.state_dir, create=not check_mode)
    repository = _repository(request, places)
    if check_mode:
        snapshot = repository.resolve(request.snapshot, request.project)
        action = f"snapshot {snapshot.short_id} would be restored beside the live stack, started and compared"
        return {"changed": False, "snapshot_id": snapshot.id, "actions": [action], "warnings": []}
    watch = Watch(request.project, "drill", request.state_dir, request.config_dir)
    return watched(watch, lambda: _run(request, engine, progress, places, repository))


def _run(
    request: DrillRequest, engine: Engine, progress: Progress, places: Places, repository: Repository
) -> dict[str, Any]:
    with OperationLock(places, "drill"):
        progress.attach(places.progress)
        said = recover(engine, places, lock_held=True)
        journal = Journal.begin(places, "drill", os.urandom(8).hex())
        try:
            result = _Drill(request, engine, places, repository, progress, journal).run()
        except BaseException as error:
            recover_from(error, engine, places)
            raise
        journal.end()
        record_last(places, "drill", result)
    return {**result, "actions": [*said, *result["actions"]]}


def _repository(request: DrillRequest, places: Places) -> Repository:
    from ..backup.backup import open_repository  # late: it imports much

    settings = request.project, request.repository, request.password_file, request.environment
    return open_repository(BackupRequest(*settings, state_dir=request.state_dir), places)


class _Drill:
    def __init__(
        self,
        request: DrillRequest,
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
        self.warnings: list[str] = []
        self.started: dict[str, str] = {}  # name of the live container: that of its twin
        self.ready: dict[str, dict[str, Any]] = {}  # inspected twins of the stores, by kind
        self.app: str | None = None  # OpenMemory's twin

    def run(self) -> dict[str, Any]:
        begun = time.monotonic()
        self.progress.phase("plan")
        snapshot = self.repository.resolve(self.request.snapshot, self.request.project)
        manifest = Manifest(**self.repository.manifest(snapshot.id))
        cast = live_cast(self.engine, self.request.project)
        keys = self._keys(cast, manifest)
        cast = cast or cast_of(self.engine, manifest)
        needed = sum(int(about.get("size_bytes") or 0) for about in manifest.volumes.values())
        private_directory(self.places.scratch)
        require_room(self.places.scratch, needed)
        with scratch_directory(self.journal, self.places.scratch, "drill") as place:
            directories = self._fetch(snapshot, manifest, place, needed)
            counted = self._check(manifest, directories, place)
            users = self._users(manifest, directories, place)
            self.progress.phase("start")
            self.journal.phase("start")
            with Throwaway(self.engine, self.journal, self.request.project) as throwaway:
                counted.update(self._start(throwaway, cast, keys, directories, manifest))
                read = self._read(throwaway, users)
                self.progress.phase("clean up")
        self.progress.done()
        app = None if read is None else f"read {read} memories back through the API"
        return {
            "changed": False,
            "ok": True,
            "snapshot_id": snapshot.id,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "volumes": sorted(directories),
            "census": counted,
            "memories": read,
            "seconds": round(time.monotonic() - begun, 1),
            "timings": dict(self.progress.timings),
            "actions": [
                f"restored {', '.join(sorted(directories))} beside the live stack",
                f"started {', '.join(sorted(self.started))} on it, without ports and in a network of their own",
                *(f"{key}: {census.total(value)}, as the snapshot says" for key, value in sorted(counted.items())),
                *([app] if app else []),
                "removed all of it again",
            ],
            "warnings": self.warnings,
        }

    def _keys(self, cast: Sequence[Mapping[str, Any]], manifest: Manifest) -> dict[str, str]:
        """{Docker's name: key} of the live volumes; without a live stack the keys stand for themselves."""
        if not cast:
            return {key: key for key in manifest.volumes}
        project = self.request.project
        named = {str(about["name"]): key for key, about in manifest.volumes.items()}
        found = {str(volume["Name"]): volume_key(project, volume) for volume in self.engine.volumes()}
        return {name: named.get(name, key) for name, key in found.items()}

    def _fetch(self, snapshot: Snapshot, manifest: Manifest, place: str, total: int) -> dict[str, str]:
        self.progress.phase("fetch", total)
        self.journal.phase("fetch")
        volumes = os.path.join(place, "volumes")
        os.mkdir(volumes, 0o700)
        directories = {key: os.path.join(volumes, key) for key in sorted(manifest.volumes)}
        file = os.path.join(volumes, ".listing.jsonl")
        wanted = {f"{VOLUMES}/{key}": path for key, path in directories.items()}
        self.repository.restore_all(snapshot.id, {**wanted, LISTING: file}, self.progress.follow(), total_bytes=total)
        for key, path in directories.items():
            repair(path, file, key)
        return directories

    def _check(self, manifest: Manifest, directories: Mapping[str, str], place: str) -> dict[str, Any]:
        self.progress.phase("check")
        self.journal.phase("check")
        staged = {key: (manifest.volumes[key].get("store"), path) for key, path in directories.items()}
        results = check_staged(staged, os.path.join(place, "check"), FULL)
        problem = refusal(results)
        if problem:
            raise StackError(problem)
        counted = {key: result.census for key, result in results.items() if result.census is not None}
        self._compare(manifest, counted)
        return counted

    def _compare(self, manifest: Manifest, counted: Mapping[str, Any]) -> None:
        expected = {key: manifest.volumes[key].get("census") for key in counted}
        wrong = census.compare(expected, counted)
        if wrong:
            raise StackError(f"The restored copy does not hold what the snapshot says: {' '.join(wrong)}")

    def _users(self, manifest: Manifest, directories: Mapping[str, str], place: str) -> dict[str, set[str]]:
        """Before the application starts, so that what it writes at its start is not counted."""
        found: dict[str, set[str]] = {}
        for key, path in directories.items():
            if manifest.volumes[key].get("store") == sqlite.KIND:
                found.update(memories.owners(path, os.path.join(place, "check")))
        return found

    def _start(
        self,
        throwaway: Throwaway,
        cast: Sequence[Mapping[str, Any]],
        keys: Mapping[str, str],
        directories: Mapping[str, str],
        manifest: Manifest,
    ) -> dict[str, Any]:
        """Start the stores and wait for them, then all others; the census of the stores."""
        stores = {str(store.inspected["Id"]): store for store in stores_of(self.engine, cast, keys)}
        servers = {key: store for key, store in stores.items() if store.kind in SERVERS and store.key in directories}
        counted: dict[str, Any] = {}
        order = start_order(cast)
        for about in order:
            if about["Id"] in servers:
                self._start_one(throwaway, about, keys, directories)
        deadline = time.monotonic() + self.request.timeout
        for store in servers.values():
            try:
                inspected = wait_ready(throwaway, store, self.started[store.name], deadline)
            except LoginError as error:
                raise StackError(
                    f"{store.name} on the restored data refuses the password of this host's settings: the snapshot was "
                    "made with another one, so a restore of it needs set_password: true."
                ) from error
            self.ready[store.kind] = inspected
            counted[store.key] = census.count(store.kind, inspected)
        self._compare(manifest, counted)
        for about in order:
            if about["Id"] not in servers:
                name = self._start_one(throwaway, about, keys, directories)
                store_of = stores.get(str(about["Id"]))
                if store_of is not None and store_of.kind == sqlite.KIND:
                    self.app = name
        return counted

    def _start_one(
        self,
        throwaway: Throwaway,
        about: Mapping[str, Any],
        keys: Mapping[str, str],
        directories: Mapping[str, str],
    ) -> str:
        name = str(about["Name"]).lstrip("/")
        changes = Changes(binds(self.engine, about, directories, keys), aliases=aliases(about))
        self.started[name] = throwaway.start(about, name, changes, networked=True)
        return self.started[name]

    def _read(self, throwaway: Throwaway, users: Mapping[str, set[str]]) -> int | None:
        if self.app is None:
            self.warnings.append("The stack has no OpenMemory service, so no memory was read back through its API.")
            return None
        self.progress.phase("read")
        self.journal.phase("read")
        name = self.app
        try:
            service = memories.wait_for(lambda: throwaway.inspect(name), self.request.timeout)
            read, problems = memories.read_back(service, users)
        except StackError as error:
            raise StackError(f"{error} {throwaway.last_lines(name)}") from error
        every = sorted(set().union(*users.values())) if users else []
        problems += disagreements(every, self.ready.get(qdrant.KIND), self.ready.get(neo4j.KIND))
        if problems:
            raise StackError(f"The restored stack does not agree with itself: {' '.join(problems)}")
        return read
