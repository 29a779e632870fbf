# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that a report tells of the stacks of this host, in one look: what stack_info returns.

A part that cannot be read is a sentence in `problems`, and the others are told nevertheless.
"""

from __future__ import annotations

import glob
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..command.settings import Settings, UsageError, load
from ..compose_containers import health_now, project_containers, service_of
from ..engine import Engine
from ..errors import StackError
from ..operation.last import read_last
from ..operation.places import STATE_DIR
from ..operation.retired import read_retirement
from ..operation.unfinished import unfinished
from ..repository.repository import Repository
from ..repository.restic import Restic
from ..restore import kept
from ..volume_report import report_volumes
from .history import history
from .schedule import schedule

_TOLD = {
    "backup": ("created", "finished", "snapshot_id", "freeze_s", "verify"),
    "backup_failed": ("created", "message"),
    "drill": ("created", "finished", "snapshot_id", "seconds", "memories"),
    "drill_failed": ("created", "message"),
    "check": ("created", "finished"),
    "check_failed": ("created", "message"),
    "update": ("created", "updated"),
    "recovered": ("created", "message"),
}
_VOLUME = ("name", "backing", "driver", "device", "filesystem", "empty", "problem", "orphaned", "misplaced")
_SIZES = ("size_bytes", "allocated_bytes", "files", "size_complete")


@dataclass(frozen=True)
class Wanted:
    """What to look at. snapshots: how many manifests at most; the times are in seconds; size_seconds 0: no sizes."""

    config_dir: str
    state_dir: str = STATE_DIR
    snapshots: int = 30
    manifest_seconds: float = 20.0
    size_seconds: float = 20.0
    keep_manifests: bool = True


def projects(config_dir: str) -> list[str]:
    """The stacks that have settings on this host, by name. StackError where they cannot be seen."""
    if os.path.isdir(config_dir) and not os.access(config_dir, os.R_OK | os.X_OK):
        raise StackError(f"{config_dir} cannot be read; use become: true.")
    names = [os.path.basename(path)[: -len(".json")] for path in glob.glob(os.path.join(config_dir, "*.json"))]
    return sorted(name for name in names if "." not in name)  # no project has one; PROJECT.monitoring.json does


def overview(names: Sequence[str], connect: Callable[[], Engine], wanted: Wanted) -> dict[str, Any]:
    """{host, now, stacks}: the stacks that were named, or that have settings here; now is this host's clock.

    connect: to the engine of stacks without settings; the others' settings name it. Raises StackError where nothing can
    be told.
    """
    now = datetime.now(timezone.utc)
    found = [_stack(name, connect, wanted, now) for name in sorted({*names, *projects(wanted.config_dir)})]
    return {"host": socket.gethostname(), "now": now.isoformat(timespec="seconds"), "stacks": found}


def _stack(name: str, connect: Callable[[], Engine], wanted: Wanted, now: datetime) -> dict[str, Any]:
    problems: list[dict[str, str]] = []
    found: dict[str, Any] = {"project": name, "repository": None, "snapshots": None, "containers": [], "volumes": []}
    found.update({"copies": [], "unfinished": None, "kept": [], "last": {}, "moved": None})
    settings = Settings(name, state_dir=wanted.state_dir)
    with _part("settings", problems):
        settings = load(wanted.config_dir, {"project": name})
    found["settings"] = bool(settings.repository)
    with _part("docker", problems):
        engine = settings.engine() if settings.repository else connect()
        found["containers"] = [_container(engine, each) for each in project_containers(engine, name)]
        timeout = wanted.size_seconds or None
        volumes = report_volumes(engine, compose_project=name, size_timeout=timeout)["volumes"]
        found["volumes"] = [_volume(each) for each in volumes]
    with _part("state", problems):
        _state(found, settings)
    with _part("repository", problems):
        _repository(found, settings, wanted, now)
    found["schedule"] = schedule(name)
    found["problems"] = problems
    return found


@contextmanager
def _part(name: str, problems: list[dict[str, str]]) -> Iterator[None]:
    try:
        yield
    except StackError as error:
        problems.append({"part": name, "message": str(error)})


def _state(found: dict[str, Any], settings: Settings) -> None:
    places = settings.places(create=False)
    if os.path.isdir(places.state) and not os.access(places.state, os.R_OK | os.X_OK):
        raise StackError(f"{places.state} cannot be read; use become: true.")
    last = read_last(places)
    found["last"] = {
        kind: {name: last[kind].get(name) for name in names} for kind, names in _TOLD.items() if last.get(kind)
    }
    found["copies"] = _copies(settings, last.get("copies") or {})
    found["kept"] = [entry.as_result() for entry in kept.load(places)]
    moved = read_retirement(places)
    found["moved"] = {"target": moved.target, "at": moved.at} if moved else None
    found["unfinished"] = unfinished(places)


def _copies(settings: Settings, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The far repositories as the last run left them: {name, location, ok, error, tried, success (when it had all)}."""
    told = record.get("repositories") or {}
    names = [str(each.get("name")) for each in settings.copies]
    found = []
    for name in names:
        about = told.get(name) or {}
        found.append(
            {
                "name": name,
                "location": about.get("repository"),
                "ok": about.get("ok"),
                "error": about.get("error") or None,
                "tried": record.get("created") if about else None,
                "success": about.get("success"),
            }
        )
    return found


def _repository(found: dict[str, Any], settings: Settings, wanted: Wanted, now: datetime) -> None:
    if not settings.repository:
        return
    try:
        given = settings.repository_options()
    except UsageError as error:
        raise StackError(f"{error} Run backup.yml, which sets it up.") from error
    places = settings.places(create=False)
    cache = os.path.join(settings.state_dir, "cache")
    repository = Repository(Restic(given["repository"], given["password_file"], given["environment"], cache_dir=cache))
    found["repository"] = {"location": repository.restic.shown, "stored_bytes": None, "snapshots": None}
    there = places if os.path.isdir(places.state) else None
    limits = max(1, wanted.snapshots), wanted.manifest_seconds
    found["snapshots"] = history(repository, there, settings.project, *limits, now, wanted.keep_manifests)
    stats = repository.stats()
    found["repository"].update({"stored_bytes": stats["size_bytes"], "snapshots": stats["snapshots"]})


def _container(engine: Engine, container: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": container["Names"][0].lstrip("/"),
        "service": service_of(container),
        "image": container["Image"],
        "state": container["State"],
        "health": health_now(engine, container),
    }


def _volume(volume: Mapping[str, Any]) -> dict[str, Any]:
    store = volume.get("store") or {}
    return {
        **{name: volume.get(name) for name in _VOLUME},
        **{name: volume[name] for name in _SIZES if name in volume},
        "store": {name: store.get(name) for name in ("kind", "version", "health", "findings")} if store else None,
    }
