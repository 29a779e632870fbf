# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a stack's data grew and how long its freezes were, by its snapshots' manifests, bounded in number and time."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from ..command.wording import census
from ..errors import StackError
from ..operation.places import Places
from ..repository.kept_manifests import manifest_of
from ..repository.repository import Repository
from ..repository.snapshot import iso, own_regular, whole_first

_AT_ONCE = 2  # each call is half a second of computing
_T = TypeVar("_T")


def history(
    repository: Repository,
    places: Places | None,
    project: str,
    limit: int,
    seconds: float,
    now: datetime,
    keep: bool = True,
) -> dict[str, Any]:
    """{count, newest, oldest, points, unread, damaged} of the project's snapshots.

    newest: the one that "latest" would be, with id, time (ISO, UTC), age_s, way, verified, freeze_s, partial and what
    its volumes hold; None without one. oldest: its time. points: at most limit, oldest first, each {id, time, freeze_s,
    way, seconds, volumes: {name: bytes allocated}}; of more snapshots than that some, spread evenly, both ends among
    them. unread: how many manifests were left out, as reading took longer than `seconds`. damaged: sentences. keep:
    keep manifests on this host that had to be read from the repository. StackError where that cannot be read.
    """
    found = repository.snapshots(project)
    regular = whole_first(own_regular(found, socket.gethostname()))  # as "latest" is chosen, oldest first
    wanted = spread(regular, limit)
    until = time.monotonic() + seconds

    def read(identity: str) -> tuple[dict[str, Any] | None, str | None]:
        if time.monotonic() > until:
            return None, None
        try:
            return manifest_of(repository, places, identity, keep), None
        except StackError as error:
            return None, str(error)

    with ThreadPoolExecutor(_AT_ONCE) as pool:  # the newest first, which matters most
        newest_first = list(pool.map(read, [each.id for each in reversed(wanted)]))
    read_ones = list(zip(wanted, reversed(newest_first)))
    damaged = [f"Snapshot {each} is damaged and cannot be listed." for each in repository.unreadable]
    newest = None
    if regular:
        last = regular[-1]
        newest = {
            "id": last.short_id,
            "time": iso(last.time),
            "age_s": round((now - last.time).total_seconds()),
            "way": last.way,
            "verified": last.verified,
            "partial": last.partial,
            **_held(read_ones[-1][1][0] if read_ones else None),
        }
    return {
        "count": len(found),
        "newest": newest,
        "oldest": iso(min(each.time for each in found)) if found else None,
        "points": [_point(each.short_id, iso(each.time), manifest) for each, (manifest, _why) in read_ones if manifest],
        "unread": sum(manifest is None and why is None for _each, (manifest, why) in read_ones),
        "damaged": [*damaged, *(why for _each, (_manifest, why) in read_ones if why)],
    }


def spread(items: Sequence[_T], limit: int) -> list[_T]:
    """At most limit of the items in their order, evenly spread, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    if limit < 2:
        return list(items[len(items) - limit :])
    last = len(items) - 1
    return [items[round(number * last / (limit - 1))] for number in range(limit)]


def _held(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    if manifest is None:
        return {"freeze_s": None, "volumes": {}}
    volumes = {_name(key, about): _volume(about) for key, about in _of(manifest).items()}
    return {"freeze_s": manifest["freeze_s"], "volumes": volumes}


def _of(manifest: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    volumes: Mapping[str, Mapping[str, Any]] = manifest["volumes"]
    return volumes


def _name(key: str, volume: Mapping[str, Any]) -> str:
    return str(volume.get("name") or key)


def _volume(volume: Mapping[str, Any]) -> dict[str, Any]:
    counted = volume.get("census")
    checked = volume.get("check") or {}
    return {
        "store": volume.get("store"),
        "holds": census(counted) if counted else None,
        "checked": checked.get("level") if checked.get("ok") else None,
    }


def _point(short_id: str, when: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": short_id,
        "time": when,
        "freeze_s": manifest["freeze_s"],
        "way": manifest["way"],
        "seconds": round(sum(manifest["timings"].values()), 1),
        "volumes": {_name(key, volume): volume.get("allocated_bytes") for key, volume in _of(manifest).items()},
    }
