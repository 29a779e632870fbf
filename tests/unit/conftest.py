# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small engine that keeps its volumes in a directory of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError


class FakeEngine(Engine):
    """Answers as Docker does, and keeps the calls that it got."""

    def __init__(self, root: Path):
        super().__init__(None, "", "unix:///fake.sock")
        self.root = root
        self.calls: list[str] = []
        self.known: dict[str, dict[str, Any]] = {}
        self.running: list[dict[str, Any]] = []
        self.inspections: dict[str, dict[str, Any]] = {}
        self.happened: list[dict[str, Any]] = []

    def volumes(self) -> list[dict[str, Any]]:
        self.calls.append("volumes")
        return list(self.known.values())

    def containers(self) -> list[dict[str, Any]]:
        self.calls.append("containers")
        return self.running

    def events(self, since: float, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        self.calls.append("events")
        return self.happened

    def info(self) -> dict[str, Any]:
        self.calls.append("info")
        return {"DockerRootDir": str(self.root)}

    def inspect_container(self, name: str) -> dict[str, Any]:
        self.calls.append(f"inspect {name}")
        if name not in self.inspections:
            raise NotFoundError(name)
        return self.inspections[name]

    def create_volume(
        self, name: str, driver: str, driver_opts: dict[str, str], labels: dict[str, str]
    ) -> dict[str, Any]:
        self.calls.append(f"create {name}")
        return self.add(name, driver, driver_opts, labels)

    def remove_volume(self, name: str) -> None:
        self.calls.append(f"remove {name}")
        del self.known[name]

    def add(
        self,
        name: str,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """A volume that Docker has."""
        place = self.root / "volumes" / name / "_data"
        place.mkdir(parents=True)
        self.known[name] = {
            "Name": name,
            "Driver": driver,
            "Options": options or None,
            "Labels": labels or None,
            "Mountpoint": str(place),
        }
        return self.known[name]

    def add_path(self, name: str, path: Path | str) -> dict[str, Any]:
        """A volume that Docker has bound to a host directory."""
        return self.add(name, options={"type": "none", "o": "bind", "device": str(path)})

    def use(
        self,
        volumes: dict[str, str],
        name: str = "user",
        image: str = "busybox",
        state: str = "running",
        env: list[str] | None = None,
    ) -> dict[str, Any]:
        """A container that mounts volumes ({name: destination})."""
        mounts = [
            {"Type": "volume", "Name": volume, "Destination": place, "RW": True} for volume, place in volumes.items()
        ]
        container = {"Id": name * 8, "Names": ["/" + name], "Image": image, "State": state, "Mounts": mounts}
        self.running.append(container)
        config = {"Image": image, "Env": env or [], "WorkingDir": ""}
        self.inspections[container["Id"]] = {"Name": "/" + name, "Config": config, "Mounts": mounts}
        return container


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    return FakeEngine(tmp_path / "docker")
