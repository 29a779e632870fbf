# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention by itself: what the policy of a stack removes, in the near repository and in each far one."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from typing import Any

from ..operation.lock import OperationLock
from ..operation.places import Places
from ..repository.failures import NoRepositoryError
from ..repository.repository import Repository
from ..repository.retention import Keep, to_remove
from ..repository.snapshot import Snapshot, of_the_future
from .request import BackupRequest
from .snapshots import own_of, retain, warnings_of


def run(request: BackupRequest, near: Repository, check_mode: bool = False) -> dict[str, Any]:
    """Remove what is not kept any more; in check mode only list it. Raises StackError.

    {changed, repositories, removed (ids, near), actions, warnings}; an entry of repositories is {name, repository,
    kept, removed, future}, the last three lists of snapshots as volume_backup_info shows them, oldest first.
    """
    request.check()
    places = Places.of(request.project, request.state_dir, create=not check_mode)
    if check_mode:
        return _run(request, near, places, True)
    with OperationLock(places, "forget"):
        return _run(request, near, places, False)


def _run(request: BackupRequest, near: Repository, places: Places, check_mode: bool) -> dict[str, Any]:
    host = socket.gethostname()
    result: dict[str, Any] = {"repositories": [], "actions": [], "warnings": []}
    targets: list[tuple[str, Repository, Keep | None, bool]] = [("near", near, request.keep, request.prune)]
    for copy in request.far():
        targets.append((copy.name, copy.open(request.state_dir), copy.keep, copy.prune))
    for name, repository, keep, prune in targets:
        try:
            own = own_of(repository, request.project, host)
        except NoRepositoryError:
            if name == "near":
                raise
            own = []  # it is made by the first copy
        going = to_remove(own, keep or Keep(), datetime.now(timezone.utc))
        result["warnings"] += warnings_of(repository, own)
        result["repositories"].append(_entry(name, repository, own, going))
        would = "would be removed" if check_mode else "removed"
        result["actions"] += [f"{_named(each)} {would} from {name}" for each in going]
        if going and keep and not check_mode:
            retain(repository, places, keep, host, prune)
    removed = [each["id"] for each in result["repositories"][0]["removed"]]
    return {"changed": bool(result["actions"]), "removed": removed, **result}


def predict(near: Repository, project: str, keep: Keep, new: Snapshot) -> list[Snapshot]:
    """What a backup that adds `new` would remove from the near repository."""
    own = own_of(near, project, new.hostname)
    return [each for each in to_remove([*own, new], keep, new.time) if each.id != new.id]


def _entry(name: str, repository: Repository, own: list[Snapshot], going: list[Snapshot]) -> dict[str, Any]:
    gone = {each.id for each in going}
    return {
        "name": name,
        "repository": repository.restic.shown,
        "kept": [each.as_result() for each in own if each.id not in gone],
        "removed": [each.as_result() for each in going],
        "future": [each.as_result() for each in of_the_future(own, datetime.now(timezone.utc))],
    }


def _named(snapshot: Snapshot) -> str:
    return f"snapshot {snapshot.short_id} of {snapshot.local_time}"
