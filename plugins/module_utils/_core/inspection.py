# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to say about a volume: one dictionary, the same for the module volume and for volume_info."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .filesystem import describe_filesystem
from .location import Location, locate
from .sizes import measure
from .state import State, container_name
from .stores import registry


def describe(
    volume: Mapping[str, Any], state: State, planned: bool = False, size_deadline: float | None = None
) -> dict[str, Any]:
    """Describe a volume of the engine's list, or one that a plan will make (planned).

    size_deadline is a time.monotonic(); without it sizes are left out. What cannot be seen is None, with a problem.
    """
    location = locate(volume, state, planned)
    entry: dict[str, Any] = {
        "name": volume["Name"],
        "backing": location.backing,
        "driver": volume["Driver"],
        "driver_opts": dict(volume.get("Options") or {}),
        "labels": dict(volume.get("Labels") or {}),
        "mountpoint": volume["Mountpoint"],
        "device": location.device,
        "filesystem": _filesystem(location, state),
        "containers": [_user(container, volume["Name"]) for container in state.users.get(volume["Name"], [])],
        "store": None,
        "empty": None,
        "problem": location.problem,
    }
    _look_inside(location, entry)
    if size_deadline is not None:
        entry.update(_size(location, size_deadline))
    return entry


def _look_inside(location: Location, entry: dict[str, Any]) -> None:
    if location.path is None:
        return
    if not os.path.isdir(location.path):  # planned, and locate() has found nothing wrong with that
        entry["empty"] = True
        return
    try:
        found = registry.look(location.path)
        entry["empty"] = found is None
    except OSError as error:
        advice = "use become: true" if isinstance(error, PermissionError) else "run it again"
        entry["problem"] = f"{error.filename} cannot be read ({error.strerror}); {advice}."
        return
    entry["store"] = found.as_result() if found else None


def _filesystem(location: Location, state: State) -> dict[str, Any] | None:
    if location.path is not None:
        return describe_filesystem(location.path, state.mounts)
    if location.filesystem is not None:
        return {"type": location.filesystem, "mount_point": None, "free_bytes": None, "total_bytes": None}
    return None


def _user(container: Mapping[str, Any], volume: str) -> dict[str, Any]:
    mount = next(mount for mount in container["Mounts"] if mount.get("Name") == volume)
    return {
        "name": container_name(dict(container)),
        "id": container["Id"],
        "image": container["Image"],
        "state": container["State"],
        "destination": mount["Destination"],
        "read_only": not mount.get("RW", True),
    }


def _size(location: Location, deadline: float) -> dict[str, Any]:
    if location.path is None:
        return {"size_bytes": None, "allocated_bytes": None, "files": None, "size_complete": False}
    try:
        size = measure(location.path, deadline)
    except FileNotFoundError:  # planned
        return {"size_bytes": 0, "allocated_bytes": 0, "files": 0, "size_complete": True}
    return {
        "size_bytes": size.bytes,
        "allocated_bytes": size.allocated_bytes,
        "files": size.files,
        "size_complete": size.complete,
    }
