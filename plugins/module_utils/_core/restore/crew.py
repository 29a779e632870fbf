# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The containers of a restore: stopped with dependents first, started as Compose would, and waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..compose_containers import SERVICE_LABEL
from ..compose_health import Waiter
from ..engine import ACTIVE, Engine
from ..errors import NotFoundError, StackError
from ..operation.journal import Journal
from ..project_secrets import mask_of

DEPENDS_LABEL = "com.docker.compose.depends_on"
_WORKERS = 8  # containers of one level are stopped and started together, as Compose does


class Crew:
    """Inspected containers of one project, {id: inspected}, in the order of their dependencies."""

    def __init__(self, engine: Engine, project: str, containers: Mapping[str, Mapping[str, Any]]):
        self.engine = engine
        self.project = project
        self.containers = dict(containers)
        self.levels = levels(containers)

    @property
    def ids(self) -> list[str]:
        """In start order."""
        return [identity for level in self.levels for identity in level]

    def name(self, identity: str) -> str:
        return str(self.containers[identity]["Name"]).lstrip("/")

    def names(self) -> list[str]:
        return [self.name(identity) for identity in self.ids]

    def stop(
        self,
        journal: Journal,
        stop_timeout: int | None = None,
        before: Callable[[Sequence[str]], None] = lambda _identities: None,
    ) -> None:
        """Stop them, dependents first; the journal knows all of them before the first one stops.

        before is called with the ids of each level when all that depend on it have stopped.
        """
        journal.note("stopped", [{"id": identity, "name": self.name(identity)} for identity in self.ids])
        for level in reversed(self.levels):
            before(level)
            self._each(level, lambda identity: self._stop(identity, stop_timeout))

    def _stop(self, identity: str, stop_timeout: int | None) -> None:
        grace = self.containers[identity]["Config"].get("StopTimeout") or 10
        self.engine.stop(identity, grace if stop_timeout is None else stop_timeout)

    def start(self, wait_timeout: float, on_healthy: Callable[[], None] = lambda: None) -> None:
        """Start them; one that depends on a healthy service waits for it, at most wait_timeout seconds.

        on_healthy is called after each such wait, before those that waited are started.
        """
        for level in self.levels:
            needed = {
                service
                for identity in level
                for service, condition in dependencies(self.containers[identity])
                if condition == "service_healthy"
            }
            if needed & set(self.services()):
                self.wait(wait_timeout, needed)
                on_healthy()
            self._each(level, self.engine.start)

    def services(self) -> dict[str, dict[str, Any]]:
        """{service: its restart policy}, as compose_health wants it."""
        found = {}
        for about in self.containers.values():
            policy = (about["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
            found[service_of(about)] = {"restart": policy}
        return found

    def wait(self, timeout: float, only: Iterable[str] | None = None) -> None:
        """Return when all services (or only some) really work; StackError with their state and last lines of log."""
        services = {name: service for name, service in self.services().items() if only is None or name in set(only)}
        if services:
            Waiter(self.engine, self.project, services, self._logs, mask_of(self.containers.values())).wait(timeout)

    def inspect(self) -> list[dict[str, Any]]:
        """As they are now."""
        return [self.engine.inspect_container(identity) for identity in self.ids]

    def _logs(self, service: str) -> str:
        wanted = [key for key, about in self.containers.items() if service_of(about) == service]
        try:
            return "\n".join(self.engine.logs(identity) for identity in wanted)
        except StackError:
            return ""

    def _each(self, identities: Sequence[str], act: Callable[[str], None]) -> None:
        if len(identities) == 1:
            act(identities[0])
            return
        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(act, identities))  # the first error is raised when all have ended


def stop_if_active(engine: Engine, identities: Sequence[str]) -> list[str]:
    """Stop, last one first, those of the containers that run; the names of those. One that is gone is no error."""
    names = []
    for identity in reversed(identities):
        try:
            about = engine.inspect_container(identity)
            if about["State"]["Status"] in ACTIVE:
                if about["State"]["Status"] == "paused":
                    engine.unpause(identity)
                engine.stop(identity)
                names.append(str(about["Name"]).lstrip("/"))
        except NotFoundError:
            continue
    return names


def service_of(inspected: Mapping[str, Any]) -> str:
    """The Compose service of an inspected container; without one, as compose_health calls it."""
    return str((inspected["Config"].get("Labels") or {}).get(SERVICE_LABEL))


def dependencies(inspected: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(service, condition) of each service that a container depends on, by Compose's label."""
    text = (inspected["Config"].get("Labels") or {}).get(DEPENDS_LABEL) or ""
    parts = [entry.split(":") for entry in text.split(",") if entry]
    return [(part[0], part[1] if len(part) > 1 else "service_started") for part in parts]


def levels(containers: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The ids in levels: each depends on earlier levels only. A circle, which Compose refuses, ends in the last one."""
    waiting = dict(sorted(containers.items(), key=lambda item: str(item[1]["Name"])))
    found: list[list[str]] = []
    while waiting:
        services = {service_of(about) for about in waiting.values()}
        free = [
            identity
            for identity, about in waiting.items()
            if not {service for service, _condition in dependencies(about)} & services
        ]
        found.append(free or list(waiting))
        for identity in found[-1]:
            del waiting[identity]
    return found
