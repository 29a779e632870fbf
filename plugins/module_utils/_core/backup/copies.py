# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The far repositories of a stack: filled after each backup, each with what it lacks, none kept from it by another."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from ..errors import PartlyDoneError, StackError
from ..operation.last import read_last, record_last, record_repository
from ..operation.lock import OperationLock
from ..operation.places import Places
from ..operation.progress import Progress
from ..repository.copying import Copy, bring, missing_in
from ..repository.failures import NoRepositoryError
from ..repository.repository import Repository
from ..repository.snapshot import Snapshot, iso
from .request import BackupRequest
from .snapshots import own_of, retain

KIND = "copies"
_MADE = "The snapshot was made, but it"


def run(request: BackupRequest, near: Repository, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """Fill the far repositories without a new backup: {changed, copies, actions, warnings}.

    Raises StackError, and PartlyDoneError with the result where some of them failed.
    """
    request.check()
    if not request.copies:
        raise StackError(f"The stack {request.project} has no far repository; name some in copies.")
    places = Places.of(request.project, request.state_dir, create=not check_mode)
    if check_mode:
        predicted, warnings = predict(request, places, near)
        return {"changed": bool(predicted), "copies": [], "actions": predicted, "warnings": warnings}
    with OperationLock(places, "copy"):
        progress.attach(places.progress)
        result: dict[str, Any] = {"actions": [], "warnings": []}
        fill(request, places, near, progress, result)
        progress.done()
        if all(each["ok"] for each in result["copies"]):
            _put_right(places)
    result["changed"] = any(each["copied"] or each["made"] or each["removed"] for each in result["copies"])
    raise_for_failed(result)
    return result


def fill(request: BackupRequest, places: Places, near: Repository, progress: Progress, result: dict[str, Any]) -> None:
    """Fill each far repository, and remove there what its keep does not keep; result gets copies, actions, warnings.

    An entry of copies: {name, repository, ok, error, copied, bytes, seconds, made, removed}. One that fails is told in
    its entry (ok: False) and hinders no other. All is recorded on this host, for status and metrics.
    """
    host = socket.gethostname()
    here: list[Snapshot] | None = None
    result["copies"] = []
    for copy in request.far():
        progress.phase(f"copy to {copy.name}")
        far = copy.open(request.state_dir, near)
        done: dict[str, Any] = {"copied": [], "bytes": 0, "seconds": 0.0, "made": False}
        entry = {"name": copy.name, "repository": far.restic.shown, "ok": True, "error": "", **done, "removed": []}
        result["copies"].append(entry)
        try:
            if here is None:
                here = own_of(near, request.project, host)
            entry.update(bring(copy, far, here, request.project, places))
            _known(places, entry["repository"], here)
            if copy.keep:
                _retain(copy, far, places, host, entry, result)
        except (OSError, StackError) as error:
            entry.update(ok=False, error=str(error))
        result["actions"] += _actions(copy, entry)
    _record(places, result["copies"])


def raise_for_failed(result: dict[str, Any]) -> None:
    """PartlyDoneError, with the result, where a far repository lacks something; what to say of it in one sentence."""
    failed = [each for each in result.get(KIND) or () if not each["ok"]]
    if not failed:
        return
    names = " and ".join(each["name"] for each in failed)
    kept = _MADE if result.get("snapshot_id") else "What is missing there"
    raise PartlyDoneError(
        f"{kept} was not copied to {names}; the next run brings all that is missing there. {failed[0]['error']}", result
    )


def predict(request: BackupRequest, places: Places, near: Repository) -> tuple[list[str], list[str]]:
    """What would be copied, beside what a backup would add: (actions, warnings about those that cannot be asked)."""
    actions, warnings = [], []
    here = own_of(near, request.project, socket.gethostname()) if near.exists() else []
    for copy in request.far():
        far = copy.open(request.state_dir, patience_s=30.0)
        try:
            lacking, _there = missing_in(copy, far, far.identity(), here, request.project, places)
        except NoRepositoryError:
            lacking = here
            actions.append(f"repository {far.restic.shown} would be made")
        except StackError as error:
            warnings.append(f"Nobody knows what would be copied to {copy.name}: {error}")
            continue
        actions += [f"snapshot {each.short_id} would be copied to {copy.name}" for each in lacking]
    return actions, warnings


def _retain(
    copy: Copy, far: Repository, places: Places, host: str, entry: dict[str, Any], result: dict[str, Any]
) -> None:
    if copy.keep is None:
        return
    try:
        going = retain(far, places, copy.keep, host, copy.prune, result["warnings"])
        entry["removed"] = [each.id for each in going]
    except StackError as error:  # all is there, which is what counts
        result["warnings"].append(f"Nothing was removed from {copy.name}: {error}")


def _known(places: Places, shown: str, here: Sequence[Snapshot]) -> None:
    """For the metrics of each repository."""
    if here:
        with suppress(StackError):
            record_repository(places, shown, {"newest": iso(here[-1].time), "snapshot_id": here[-1].id})


def _put_right(places: Places) -> None:
    """A backup whose only failure was a far repository has not failed any more."""
    failed = read_last(places).get("backup_failed") or {}
    if str(failed.get("message", "")).startswith(_MADE):
        with suppress(StackError):
            record_last(places, "backup_failed", {})


def _actions(copy: Copy, entry: dict[str, Any]) -> list[str]:
    made = [f"repository {entry['repository']} made"] if entry["made"] else []
    copied = [f"snapshot {each[:8]} copied to {copy.name}" for each in entry["copied"]]
    removed = [f"snapshot {each[:8]} removed from {copy.name}" for each in entry["removed"]]
    return made + copied + removed


def _record(places: Places, entries: Sequence[dict[str, Any]]) -> None:
    """last.json: copies: {created, repositories: {name: {…, success: when it last held all}}}."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    before = (read_last(places).get(KIND) or {}).get("repositories") or {}
    found = {}
    for entry in entries:
        success = now if entry["ok"] else (before.get(entry["name"]) or {}).get("success")
        kept = {name: entry[name] for name in ("repository", "ok", "error", "bytes", "seconds")}
        found[entry["name"]] = {**kept, "copied": len(entry["copied"]), "success": success}
    if os.path.isdir(places.state):
        with suppress(StackError):  # a full disk makes no copy undone
            record_last(places, KIND, {"created": now, "repositories": found})
