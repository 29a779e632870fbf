# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small engine with a stack on it that can be purged: it removes as Docker does, and keeps what was changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError, StackError

from .conftest import FakeEngine

PROJECT = "com.docker.compose.project"


class Host(FakeEngine):
    """step is called before and after each change, with what is done."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.changes: list[str] = []
        self.nets: list[dict[str, Any]] = []
        self.directory = root.parent / "srv/place"
        self.step: Callable[[str], None] = lambda _what: None

    @classmethod
    def with_stack(cls, top: Path) -> Host:
        host = cls(top / "docker")
        host.directory.mkdir(parents=True)
        (host.directory / "file").write_text("data")
        made = host.add("om_data", labels={PROJECT: "om"})
        Path(made["Mountpoint"], "db").write_text("data")
        host.add("om_place", options={"type": "none", "o": "bind", "device": str(host.directory)})
        host.known["om_place"]["Labels"] = {PROJECT: "om"}
        for name in ("om-app", "om-store"):
            host.run(name, {"om_data": "/data", "om_place": "/place"})
        host.nets.append({"Id": "net-1", "Name": "om_default", "Labels": {PROJECT: "om"}})
        return host

    def run(
        self, name: str, volumes: dict[str, str], project: str | None = "om", state: str = "running"
    ) -> dict[str, Any]:
        container = self.use(volumes, name, state=state)
        container["Labels"] = {PROJECT: project} if project else {}
        about = self.inspections[container["Id"]]
        about.update(Id=container["Id"], State={"Status": state, "Running": state == "running"}, HostConfig={})
        about["Config"]["Labels"] = container["Labels"]
        return container

    def networks(self, label: str) -> list[dict[str, Any]]:
        key, _equals, value = label.partition("=")
        return [each for each in self.nets if each["Labels"].get(key) == value]

    def inspect_volume(self, name: str) -> dict[str, Any]:
        if name not in self.known:
            raise NotFoundError(name)
        return self.known[name]

    def stop(self, container: str, stop_timeout: int | None = None) -> None:
        self._change(f"stop {container}", lambda: self._state(container, "exited"))

    def start(self, container: str) -> None:
        self._change(f"start {container}", lambda: self._state(container, "running"))

    def remove_container(self, container: str) -> None:
        if container not in self.inspections:
            raise NotFoundError(container)
        self._change(f"remove container {container}", lambda: self._forget(container))

    def remove_network(self, network: str) -> None:
        if network not in [each["Id"] for each in self.nets]:
            raise NotFoundError(network)
        self._change(f"remove network {network}", self.nets.clear)

    def remove_volume(self, name: str) -> None:
        if any(mount.get("Name") == name for each in self.running for mount in each["Mounts"]):
            raise StackError(f"The Docker engine refused DELETE /volumes/{name}: volume is in use")
        self._change(f"remove volume {name}", lambda: self.known.pop(name))

    def _change(self, what: str, act: Callable[[], Any]) -> None:
        self.step(what)
        act()
        self.changes.append(what)
        self.step(what)

    def _state(self, container: str, state: str) -> None:
        self.inspections[container]["State"].update(Status=state, Running=state == "running")
        next(each for each in self.running if each["Id"] == container)["State"] = state

    def _forget(self, container: str) -> None:
        del self.inspections[container]
        self.running[:] = [each for each in self.running if each["Id"] != container]
