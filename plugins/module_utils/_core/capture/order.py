# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order containers start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DEPENDS_ON = "com.docker.compose.depends_on"
SERVICE = "com.docker.compose.service"


def start_order(containers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Inspected containers, each after those it depends on; otherwise by name.

    Dependencies are Compose's label "qdrant:service_healthy:false,neo4j:…" and namespaces shared with another
    container. A circle, which Compose refuses, is cut at the first name.
    """
    waiting = sorted(containers, key=name_of)
    needs = {str(container["Id"]): _needs(container, waiting) for container in waiting}
    ordered: list[Mapping[str, Any]] = []
    while waiting:
        left = {str(container["Id"]) for container in waiting}
        ready = next((c for c in waiting if not needs[str(c["Id"])] & left - {str(c["Id"])}), waiting[0])
        waiting.remove(ready)
        ordered.append(ready)
    return ordered


def name_of(container: Mapping[str, Any]) -> str:
    """The name of an inspected container, without Docker's slash."""
    return str(container["Name"]).lstrip("/")


def _needs(container: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> set[str]:
    services = {entry.split(":")[0] for entry in _labels(container).get(DEPENDS_ON, "").split(",")}
    host_config = container.get("HostConfig") or {}
    modes = [str(host_config.get(f"{kind}Mode") or "") for kind in ("Network", "Pid", "Ipc")]
    shared = {mode.partition(":")[2] for mode in modes if mode.startswith("container:")}
    return {
        str(other["Id"])
        for other in others
        if _labels(other).get(SERVICE) in services or other["Id"] in shared or name_of(other) in shared
    }


def _labels(container: Mapping[str, Any]) -> dict[str, str]:
    return dict((container.get("Config") or {}).get("Labels") or {})
