# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the engine and this host have, read once: two API calls, whatever the number of volumes."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import Any

from .engine import Engine
from .filesystem import MountTable, real_path


class State:
    """Volumes by name, containers in all states and by the volume they use, and the mounts of the host."""

    def __init__(self, engine: Engine, mounts: MountTable | None = None):
        self.engine = engine
        self.is_local = engine.is_local
        self.mounts = mounts or MountTable.read()
        self.volumes = {volume["Name"]: volume for volume in engine.volumes()}
        self.containers = engine.containers()

    @cached_property
    def users(self) -> dict[str, list[dict[str, Any]]]:
        """Containers in any state, by the name of each volume that they mount."""
        users: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for container in sorted(self.containers, key=container_name):
            names = {mount.get("Name") for mount in container.get("Mounts") or []}
            for name in names - {None, ""}:
                users[str(name)].append(container)
        return users

    @cached_property
    def docker_root(self) -> str:
        """The engine's data directory. A volume's mount point tells it; without volumes it costs one API call."""
        for name, volume in self.volumes.items():
            before, separator, _after = volume["Mountpoint"].partition(f"/volumes/{name}/_data")
            if volume["Driver"] == "local" and separator:
                return str(before)
        return str(self.engine.info()["DockerRootDir"])

    def real(self, path: str) -> str:
        return real_path(path, self.mounts)


def container_name(container: dict[str, Any]) -> str:
    """The name of a container in the engine's list, without the slash and without the aliases of links."""
    names = [name.lstrip("/") for name in container.get("Names") or []]
    return next((name for name in names if "/" not in name), str(container["Id"])[:12])
