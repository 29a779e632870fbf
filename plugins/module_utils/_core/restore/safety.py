# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The safety capture: a snapshot of what is live, before a restore replaces it."""

from __future__ import annotations

import os
from dataclasses import replace

from ..backup.request import BackupRequest
from ..capture.staging import staging_root
from ..engine import Engine
from ..errors import StackError
from ..hidden import is_hidden
from ..operation.journal import Journal
from ..operation.places import Places
from ..operation.progress import Progress
from ..repository.repository import Repository
from ..sizes import is_empty
from .plan import RestorePlan
from .request import RestoreRequest


def open_repository(request: RestoreRequest, places: Places) -> Repository:
    """The repository of a request; nothing is asked of it yet."""
    from ..backup.backup import open_repository as open_it  # late: backup imports much that a plan does not need

    return open_it(backup_request(request), places)


def safety_capture(
    plan: RestorePlan,
    engine: Engine,
    places: Places,
    repository: Repository,
    progress: Progress,
    journal: Journal,
    warnings: list[str],
) -> str | None:
    """Make a snapshot of what is live and will be replaced; its id, None where there is nothing to save."""
    crashing = {about["Id"] for about in plan.containers.values() if about["State"].get("Restarting")}
    volumes, paths = [], []
    for target in plan.targets:
        if not target.exists or not os.path.isdir(target.path) or is_empty(target.path, leave_out=is_hidden):
            continue
        loose = any(user["Id"] in crashing for user in target.users)
        volumes.append({"name": target.name, "quiesce": "none" if loose else None})
        paths.append(target.path)
        if loose:
            warnings.append(
                f"A container on {target.name} keeps restarting and cannot be frozen, so the safety capture of "
                "that volume is not of one instant; the old data itself is kept as it is."
            )
    if not volumes:
        return None
    from ..backup.backup import run_locked

    journal.phase("safety")
    request = replace(backup_request(plan.request), volumes=volumes)
    try:
        root = staging_root(request.staging_dir, places.staging, request.project, paths)
        if not os.path.isdir(root):  # backups keep no copy here, or make it elsewhere
            request = replace(request, staging="discard")
            journal.add("remove", root)  # also of a capture that fails or dies
        result = run_locked(request, engine, places, repository, progress, journal)
        if request.staging == "discard":
            journal.drop("remove", root)
    except (OSError, StackError) as error:
        reason = error if isinstance(error, StackError) else f"{error.filename or 'a file'}: {error.strerror}."
        raise StackError(
            f"The safety capture of what is live failed: {reason} Set safety: false to restore without one (the old "
            "data is kept either way)."
        ) from error
    return str(result["snapshot_id"])


def backup_request(request: RestoreRequest) -> BackupRequest:
    return BackupRequest(
        project=request.project,
        repository=request.repository,
        password_file=request.password_file,
        environment=request.environment,
        state_dir=request.state_dir,
        staging_dir=request.staging_dir,
        verify="none",
        tags=("safety",),
        init=False,
    )
