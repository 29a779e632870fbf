# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to restore: the snapshots of a repository with their manifests, its size and its health."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

from ..errors import StackError
from ..operation.places import Places
from ..repository.kept_manifests import forget_manifests, manifest_of
from ..repository.repository import Repository
from ..repository.retention import Keep, to_remove
from ..repository.snapshot import Snapshot, of_the_future, own_regular, whole_first

_AT_ONCE = 2  # each call is half a second of computing


def snapshots_info(
    repository: Repository,
    places: Places | None,
    project: str | None = None,
    tags: Sequence[str] = (),
    newest_only: bool = False,
    manifests: bool = True,
    health: bool | str = False,
    since: datetime | None = None,
    until: datetime | None = None,
    host: str | None = None,
) -> dict[str, Any]:
    """What volume_backup_info returns.

    snapshots: newest first, each with id, short_id, time, project, host, way, verified, safety, tags, and manifest
    (None where it is not wanted, or damaged: then manifest_problem says why). repository: {location, size_bytes,
    snapshots, health}; health is "unchecked", or with health=True ("10%": that part of the data read again) "good",
    or a list of what is wrong. newest_age_s: seconds since the snapshot among these that "latest" would be, None
    without one; newest_only gives that one.
    Filters: project, all of tags, since and until (aware), host. places: where manifests are kept (None: not kept).
    Costs one call of restic, one for each manifest that is not kept yet, one for health. StackError where the
    repository cannot be read.
    """
    found = [
        each
        for each in reversed(repository.snapshots(project, tags))
        if (since is None or each.time >= since)
        and (until is None or each.shown_time <= until)
        and host in (None, each.hostname)
    ]
    regular = whole_first(own_regular(found, socket.gethostname()))  # as "latest" is chosen
    now = datetime.now(timezone.utc)
    ahead = of_the_future(regular, now)  # one of them must not hide that there are no new ones
    present = [each for each in regular if each not in ahead] or regular
    newest_age = (now - present[0].time).total_seconds() if present else None
    if newest_only:
        found = present[:1] or found[:1]
    results = [each.as_result() for each in found]
    if manifests:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for result, more in zip(results, pool.map(lambda each: _manifest(repository, places, each), found)):
                result.update(more)
    return {
        "snapshots": results,
        "repository": {
            "location": repository.restic.shown,
            **repository.stats(),
            "health": _health(repository, health),
        },
        "newest_age_s": newest_age,
    }


def retain(
    repository: Repository, places: Places, keep: Keep, host: str, prune: bool, warnings: list[str] | None = None
) -> list[Snapshot]:
    """Remove what keep does not keep of the snapshots that this host made of the project; those removed.

    Only this host's, as another one may keep a stack of the same name in the same repository. warnings gets a sentence
    on those of the future. Raises StackError.
    """
    own = own_of(repository, places.project, host)
    if warnings is not None:
        warnings += warnings_of(repository, own)
    going = to_remove(own, keep, datetime.now(timezone.utc))
    repository.forget([each.id for each in going], prune=prune)
    forget_manifests(places, [each.id for each in going])
    return going


def own_of(repository: Repository, project: str, host: str) -> list[Snapshot]:
    """The snapshots that a host made of a project, oldest first."""
    return [each for each in repository.snapshots(project) if each.hostname == host]


def warnings_of(repository: Repository, snapshots: Sequence[Snapshot]) -> list[str]:
    """A sentence on those that say they are of the future, if there are."""
    ahead = of_the_future(snapshots, datetime.now(timezone.utc))
    if not ahead:
        return []
    named = ", ".join(f"{each.short_id} ({each.local_time})" for each in ahead[:3])
    more = f" and {len(ahead) - 3} more" if len(ahead) > 3 else ""
    return [
        f"In {repository.restic.shown} snapshots say that they are of the future: {named}{more}; they are kept and not "
        "counted. Look at the clock of this host, and remove them with restic if they are worth nothing."
    ]


def _manifest(repository: Repository, places: Places | None, snapshot: Snapshot) -> dict[str, Any]:
    try:
        return {"manifest": manifest_of(repository, places, snapshot.id)}
    except StackError as error:
        return {"manifest": None, "manifest_problem": str(error)}


def _health(repository: Repository, wanted: bool | str) -> str | list[str]:
    damaged = [f"snapshot {each} is damaged and cannot be listed" for each in repository.unreadable]
    if not wanted:
        return damaged or "unchecked"
    return [*damaged, *repository.check(wanted if isinstance(wanted, str) else False)] or "good"
