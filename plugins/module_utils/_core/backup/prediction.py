# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup would do, for check mode."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from typing import Any

from ..capture.plan import CapturePlan, make_plan
from ..capture.staging import Staging, staging_root
from ..capture.way import check_space, choose
from ..engine import Engine
from ..errors import StackError
from ..filesystem import may_clone
from ..operation.places import Places
from ..repository.repository import Repository
from ..repository.snapshot import Snapshot
from . import copies, forgetting, regular
from .request import BackupRequest, not_of_one_instant, tags_of


def predict(
    request: BackupRequest, engine: Engine, places: Places, repository: Repository, config_dir: str
) -> dict[str, Any]:
    """The result of the module volume_backup in check mode; StackError for what would be refused."""
    plan = make_plan(engine, request.project, request.volumes, request.quiesce)
    _foresee(request, plan, places)
    actions = []
    there = repository.exists()
    if not there:
        if not request.init:
            raise no_repository(repository)
        actions.append(f"repository {repository.restic.shown} would be made")
    frozen = [plan.containers[key]["Name"].lstrip("/") for key in (*plan.pause, *plan.stop)]
    actions.append(f"snapshot of {', '.join(volume.name for volume in plan.volumes)} would be made")
    if frozen:
        actions.append(f"{', '.join(sorted(frozen))} would be frozen meanwhile")
    removed: list[Snapshot] = []
    warnings = [not_of_one_instant(plan.torn)] if plan.torn else []
    if there:
        if repository.restic.local_path and not request.keep:  # else it has been opened, or will be
            repository.open()
        tags = (*tags_of(request, plan), *regular.tags(plan, regular.is_usual(plan, config_dir)))
        new = Snapshot("new", "new", datetime.now(timezone.utc), tags, socket.gethostname(), ())
        removed = forgetting.predict(repository, request.project, request.keep, new) if request.keep else []
    if request.copies:
        more, told = copies.predict(request, places, repository)
        warnings += told
        actions += [*more, *(f"the new snapshot would be copied to {copy.name}" for copy in request.far())]
    actions += [f"snapshot {each.short_id} of {each.local_time} would be removed" for each in removed]
    return {
        "changed": True,
        "snapshot_id": None,
        "removed": [each.id for each in removed],
        "copies": [],
        "volumes": {
            volume.key: {"name": volume.name, "store": volume.store, "allocated_bytes": volume.size.allocated_bytes}
            for volume in plan.volumes
        },
        "actions": actions,
        "warnings": warnings,
    }


def _foresee(request: BackupRequest, plan: CapturePlan, places: Places) -> None:
    """Raise StackError where the copy would find no room, or not the file systems that its way needs."""
    paths = [volume.path for volume in plan.volumes]
    staging = Staging(staging_root(request.staging_dir, places.staging, request.project, paths, may_clone))
    way = choose(request.capture, plan.volumes, staging, request.freeze_budget, may_clone)
    check_space(plan.volumes, staging, way)


def no_repository(repository: Repository) -> StackError:
    shown = repository.restic.shown
    return StackError(
        f"There is no repository at {shown}; set init: true to have it made, or correct repository or mount its disk."
    )
