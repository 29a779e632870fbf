# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup from the request to the result: plan, capture, check, commit, retention."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from ..capture.plan import CapturePlan, make_plan
from ..capture.staging import Staging, staging_root
from ..capture.way import Way, check_space, choose
from ..engine import Engine
from ..errors import StackError
from ..monitoring.watch import Watch, watched
from ..operation.beside import beside
from ..operation.journal import Journal
from ..operation.last import read_last, record_last
from ..operation.lock import OperationLock
from ..operation.places import CONFIG_DIR, Places
from ..operation.progress import Progress
from ..operation.recover import recover, recover_from
from ..operation.retired import refuse_retired
from ..repository.ahead import CommitAhead
from ..repository.known_packs import KnownPacks
from ..repository.repository import Commit, Repository
from ..repository.restic import Restic
from ..repository.snapshot import OURS, SAFETY
from ..restore.kept import purge_expired
from . import head_start, regular
from .request import BackupRequest, not_of_one_instant, tags_of

if TYPE_CHECKING:
    from ..capture.capture import Captured
    from ..repository.manifest import Manifest

_LOCK_WAIT_S = 15.0  # another stack's backup into the same repository holds a lock while it copies


def run(
    request: BackupRequest,
    engine: Engine,
    progress: Progress,
    check_mode: bool = False,
    config_dir: str = CONFIG_DIR,
) -> dict[str, Any]:
    """Make one snapshot of one instant. Returns the result of the module volume_backup; raises StackError.

    In check mode nothing is changed, and the result says what would be done. Else how it ended is recorded,
    and with settings of monitoring in config_dir also written as metrics and told to people.
    """
    if check_mode:
        return _run(request, engine, progress, check_mode, config_dir)

    def measure() -> tuple[str, dict[str, Any]]:
        return measured(Places.of(request.project, request.state_dir, create=False), request)

    def counts(result: dict[str, Any]) -> bool:
        return regular.is_regular(Places.of(request.project, request.state_dir, create=False), result)

    watch = Watch(request.project, "backup", request.state_dir, config_dir, measure, counts=counts)
    return watched(watch, lambda: _run(request, engine, progress, check_mode, config_dir))


def _run(
    request: BackupRequest, engine: Engine, progress: Progress, check_mode: bool, config_dir: str
) -> dict[str, Any]:
    request.check()
    places = Places.of(request.project, request.state_dir, create=False)
    refuse_retired(places)
    repository = open_repository(request, places)
    if check_mode or not os.path.isdir(places.state):  # what is refused the first time leaves not even a directory
        from .prediction import predict  # late: most runs are no first one

        predicted = predict(request, engine, places, repository, config_dir)
        if check_mode:
            return predicted
    Places.of(request.project, request.state_dir)
    with OperationLock(places, "backup"), ExitStack() as begun:
        progress.attach(places.progress)
        ahead = head_start.like_the_last(request, places, repository, progress, begun)
        repaired = recover(engine, places, lock_held=True)
        with suppress(StackError):  # a list of kept data that cannot be read must not stop a backup
            repaired += purge_expired(places)
        try:
            journal = Journal.begin(places, "backup", uuid.uuid4().hex)
            result = _Backup(request, engine, places, repository, progress, journal, ahead, config_dir).run()
        except OSError as error:
            failed = StackError(
                f"The backup failed at {error.filename or 'a file'} ({error.strerror}); nothing was put into the "
                "repository. Make room or repair the disk, then run it again."
            )
            recover_from(failed, engine, places)
            raise failed from error
        except BaseException as error:
            recover_from(error, engine, places)
            raise
        return {**result, "actions": [*repaired, *result["actions"]]}


def measured(places: Places, request: BackupRequest) -> tuple[str, dict[str, Any]]:
    """The repository as it may be shown, and what record_repository() takes; a remote one is not asked again."""
    repository = open_repository(request, places)
    last = read_last(places).get("backup") or {}
    about = {"newest": last.get("created"), "snapshot_id": last.get("snapshot_id")}
    return repository.restic.shown, {**about, **(repository.stats() if repository.restic.local_path else {})}


def open_repository(request: BackupRequest, places: Places) -> Repository:
    """The repository of a request; nothing is asked of it yet."""
    cache = os.path.join(request.state_dir, "cache")
    where = request.repository, request.password_file, request.environment
    return Repository(Restic(*where, cache_dir=cache, lock_wait_s=_LOCK_WAIT_S))


def run_locked(
    request: BackupRequest,
    engine: Engine,
    places: Places,
    repository: Repository,
    progress: Progress,
    journal: Journal,
) -> dict[str, Any]:
    """Like run, for who holds the operation lock and has a journal, such as a restore for its safety capture.

    The journal is ended only if it is a backup's own.
    """
    return _Backup(request, engine, places, repository, progress, journal).run()


class _Backup:
    def __init__(
        self,
        request: BackupRequest,
        engine: Engine,
        places: Places,
        repository: Repository,
        progress: Progress,
        journal: Journal,
        ahead: CommitAhead | None = None,
        config_dir: str = CONFIG_DIR,
    ):
        self.request = request
        self.engine = engine
        self.places = places
        self.repository = repository
        self.progress = progress
        self.journal = journal
        self.actions: list[str] = []
        self.warnings: list[str] = []
        self.ahead = ahead
        self.config_dir = config_dir
        self.usual: bool | None = None

    def run(self) -> dict[str, Any]:
        request, progress = self.request, self.progress
        progress.phase("plan")
        plan = make_plan(self.engine, request.project, request.volumes, request.quiesce)
        self.usual = regular.is_usual(plan, self.config_dir)
        paths = [volume.path for volume in plan.volumes]
        staging = Staging(staging_root(request.staging_dir, self.places.staging, request.project, paths))
        progress.phase("repository")
        made = self._have_repository()
        staging.prepare([volume.key for volume in plan.volumes], plan.whole)
        way = choose(request.capture, plan.volumes, staging, request.freeze_budget)
        check_space(plan.volumes, staging, way)
        with ExitStack() as opened:
            ready = self._open(plan, staging, way, opened, made)
            from .sound_copy import SoundCopy  # late: read while restic is busy with its key

            same = request, self.engine, self.places, self.journal, progress, plan, staging, way
            captured, manifest = SoundCopy(*same, self.warnings).make(ready)
            if plan.torn and SAFETY not in request.tags:  # a safety capture says it in its own words
                self.warnings.append(not_of_one_instant(plan.torn))
            self.journal.phase("commit")
            progress.phase("commit", sum(report.bytes_total for report in captured.reports.values()))
            commit = self._commit(plan, staging, captured)
        removed = [] if request.copies else self._retain(commit)
        KnownPacks(self.repository.restic).keep()
        if request.staging == "discard":
            self._discard(plan, staging)
        if self.journal.data.get("operation") == "backup":
            self.journal.end()
        progress.done()
        result = self._result(plan, captured, manifest, commit, removed)
        return self._spread(commit, result) if request.copies else result

    def _spread(self, commit: Commit, result: dict[str, Any]) -> dict[str, Any]:
        """Fill the far repositories while the near one still has all of its snapshots; only then remove some there."""
        from . import copies  # late: only where there are some

        copies.fill(self.request, self.places, self.repository, self.progress, result)
        result["removed"] = self._retain(commit)
        self.progress.done()
        result["timings"] = {name: round(seconds, 3) for name, seconds in self.progress.timings.items()}
        copies.raise_for_failed(result)
        return result

    def _have_repository(self) -> bool:
        """Whether it was made just now: then restic has proven already that the password is right."""
        if self.repository.exists():
            KnownPacks(self.repository.restic).refuse_lost(self.repository.check)
            return False
        if not self.request.init:
            from .prediction import no_repository  # late, as above

            raise no_repository(self.repository)
        self.repository.init()
        self.actions.append(f"repository {self.repository.restic.shown} made")
        return True

    def _open(self, plan: CapturePlan, staging: Staging, way: Way, opened: ExitStack, made: bool) -> Callable[[], None]:
        """Have restic read its key while the data is copied, which takes most of a second; what is returned waits for
        it, and raises StackError for a wrong password.

        The commit itself is begun where what comes before it should be short.
        """
        tags, keys = self._tags(plan, way.name), [volume.key for volume in plan.volumes]
        short = head_start.is_short(self.request, self.repository, staging, way.name, keys)
        ahead = self.ahead
        if ahead is not None and (made or not short or not ahead.is_for(staging.root, staging.targets(), tags)):
            ahead.break_off()
            ahead = None
        if ahead is None and short:
            begun = head_start.begin(self.repository, staging, tags, self.places, self.progress)
            ahead = opened.enter_context(begun)
        self.ahead = ahead
        if ahead is not None:
            return ahead.opened
        if made:
            return lambda: None
        return beside(self.repository.open).result

    def _commit(self, plan: CapturePlan, staging: Staging, captured: Captured) -> Commit:
        names, tags = staging.targets(), self._tags(plan, captured.way)
        if self.journal.data.get("operation") == "backup":
            keys = [volume.key for volume in plan.volumes]
            head_start.remember(self.request, self.places, staging, tags, captured.way, keys)
        if self.ahead is not None and self.ahead.is_for(staging.root, names, tags):
            commit = self.ahead.finish()
            if commit is not None:
                return commit
        follow = self.progress.follow()
        return self.repository.commit(staging.root, names, tags, progress=follow, instant=captured.instant)

    def _tags(self, plan: CapturePlan, way: str) -> list[str]:
        return [OURS, f"way={way}", *tags_of(self.request, plan), *regular.tags(plan, self.usual)]

    def _retain(self, commit: Commit) -> list[str]:
        if self.request.keep is None:
            return []
        from .snapshots import retain  # late, as it only comes after a snapshot

        self.progress.phase("retention")
        try:
            same = self.repository, self.places, self.request.keep, socket.gethostname(), self.request.prune
            going = retain(*same, self.warnings)
        except (OSError, StackError) as error:
            self.warnings.append(f"The snapshot {commit.snapshot_id[:8]} was made, but none was removed: {error}")
            return []
        self.actions += [f"snapshot {snapshot.short_id} of {snapshot.local_time} removed" for snapshot in going]
        return [snapshot.id for snapshot in going]

    def _discard(self, plan: CapturePlan, staging: Staging) -> None:
        try:
            staging.discard([volume.key for volume in plan.volumes])
        except OSError as error:
            self.warnings.append(f"The snapshot was made, but {staging.root} was not removed ({error.strerror}).")

    def _keep(self, snapshot_id: str, manifest: Manifest, result: dict[str, Any]) -> None:
        """What is kept on this host only saves asking the repository, so a full disk is no failure any more."""
        from ..repository.kept_manifests import remember_manifest

        kind = SAFETY if SAFETY in self.request.tags else regular.kind_of(self.usual)
        try:
            remember_manifest(self.places, snapshot_id, manifest)
            record_last(self.places, kind, {**result, "created": manifest.created, "verify": manifest.verify})
        except StackError as error:
            self.warnings.append(f"The snapshot was made, but its record on this host was not kept: {error}")

    def _result(
        self, plan: CapturePlan, captured: Captured, manifest: Manifest, commit: Commit, removed: list[str]
    ) -> dict[str, Any]:
        passes = [*captured.earlier, *captured.reports.values()]
        read = sum(report.bytes_read for report in passes)
        result: dict[str, Any] = {
            "changed": True,
            "snapshot_id": commit.snapshot_id,
            "freeze_s": manifest.freeze_s,
            "way": captured.way,
            "files_read": sum(report.files_read for report in passes),
            "files_changed": commit.files_changed,
            "files_stored": commit.files,
            "bytes_read": read,
            "bytes_changed": read + sum(report.bytes_shared for report in passes),
            "bytes_stored": commit.bytes_stored,
            "volumes": {key: dict(about) for key, about in manifest.volumes.items()},
            "exports": manifest.exports,
            "timings": {name: round(seconds, 3) for name, seconds in self.progress.timings.items()},
            "removed": removed,
            "copies": [],
            "warnings": self.warnings,
        }
        self._keep(commit.snapshot_id, manifest, result)
        self.actions.append(f"snapshot {commit.snapshot_id[:8]} of {len(plan.volumes)} volumes made")
        result["actions"] = self.actions
        return result
