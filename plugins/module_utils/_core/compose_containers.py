# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The containers of a Compose project, as the engine's one list of all containers tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .engine import Engine
from .errors import NotFoundError

SERVICE_LABEL = "com.docker.compose.service"
PROJECT_LABEL = "com.docker.compose.project"
_ONE_OFF_LABEL = "com.docker.compose.oneoff"


def project_containers(engine: Engine, project_name: str) -> list[dict[str, Any]]:
    """The project's containers as the engine lists them, without those of `docker compose run`."""
    return [
        container
        for container in engine.containers()
        if (container.get("Labels") or {}).get(PROJECT_LABEL) == project_name
        and (container.get("Labels") or {}).get(_ONE_OFF_LABEL, "False") != "True"
    ]


def service_of(container: Mapping[str, Any]) -> str:
    return str(container["Labels"].get(SERVICE_LABEL))


def health_of(container: Mapping[str, Any]) -> str:
    """healthy, unhealthy, starting, or none without a health check; from the engine's list, so without another call."""
    status = str(container.get("Status"))
    for word in ("unhealthy", "healthy", "starting"):
        if word in status.partition("(")[2]:
            return word
    return "none"


def health_in(state: Mapping[str, Any]) -> str:
    """As health_of(), of an inspected state, but "starting" for one that was paused, as by a backup: Docker calls it
    unhealthy until its next check, though none has failed (seen with 20.10 and 26.1).
    """
    health = state.get("Health") or {}
    found = str(health.get("Status", "none"))
    return "starting" if found == "unhealthy" and health.get("FailingStreak") == 0 else found


def health_now(engine: Engine, container: Mapping[str, Any]) -> str:
    """health_in() of a listed container; asks the engine only about one that is unhealthy."""
    listed = health_of(container)
    if listed != "unhealthy":
        return listed
    try:
        return health_in(engine.inspect_container(container["Id"])["State"])
    except NotFoundError:
        return listed
