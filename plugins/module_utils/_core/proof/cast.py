# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The containers that a drill starts: those of the live stack, or what a snapshot's images need where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..compose_containers import SERVICE_LABEL, project_containers
from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..repository.manifest import Manifest
from ..stores import neo4j, qdrant, registry, sqlite
from ..stores.container import Container
from .volume_keys import mounts_by_key

# What the images need beside their data; upstream's names. No key of a user is needed to read memories.
_ENVIRONMENT = {
    qdrant.KIND: [],
    neo4j.KIND: ["NEO4J_AUTH=none"],
    sqlite.KIND: [
        "DATABASE_URL=sqlite:////usr/src/openmemory/data/openmemory.db",
        "GOOGLE_API_KEY=drill",
        "NEO4J_PASSWORD=drill-has-no-login",
    ],
}
_PLACES = {qdrant.KIND: "/qdrant/storage", neo4j.KIND: "/data", sqlite.KIND: "/usr/src/openmemory/data"}


def live_cast(engine: Engine, project: str) -> list[dict[str, Any]]:
    """The inspected containers of the project, running or not, one for each service."""
    found: dict[str, dict[str, Any]] = {}
    for container in project_containers(engine, project):
        about = engine.inspect_container(container["Id"])
        service = str(about["Config"]["Labels"].get(SERVICE_LABEL) or about["Name"])
        if service not in found or about["State"].get("Running"):
            found[service] = about
    return [found[service] for service in sorted(found)]


def cast_of(engine: Engine, manifest: Manifest) -> list[dict[str, Any]]:
    """Containers as inspecting would show them, for the snapshot's known images; StackError if an image is missing."""
    by_store = {str(about.get("store")): key for key, about in sorted(manifest.volumes.items())}
    made = []
    for service, image in sorted(manifest.images.items()):
        reference = str(image["reference"])
        known = registry.recognise(Container(service, reference))
        if known is None or known[0] not in by_store:
            continue
        kind = known[0]
        here = _image(engine, service, image)
        mount = {"Type": "volume", "Name": by_store[kind], "Destination": _PLACES[kind], "RW": True}
        made.append(
            {
                "Id": f"drill-{service}",
                "Name": f"/{service}",
                "Image": here["Id"],
                "Config": {
                    "Image": reference,
                    "Env": [*((here.get("Config") or {}).get("Env") or []), *_ENVIRONMENT[kind]],
                    "WorkingDir": (here.get("Config") or {}).get("WorkingDir") or "",
                    "Labels": {SERVICE_LABEL: service},
                },
                "HostConfig": {},
                "State": {"Running": False},
                "Mounts": [mount],
                "NetworkSettings": {"Networks": {}},
            }
        )
    if not made:
        raise StackError(
            "The stack has no containers on this host, and the snapshot names no image of a known store; create the "
            "stack's containers (docker compose create), then run the drill again."
        )
    return made


def aliases(inspected: Mapping[str, Any]) -> list[str]:
    """The names by which the other containers of a stack reach this one."""
    labels = inspected["Config"].get("Labels") or {}
    names = {str(inspected["Name"]).lstrip("/"), str(labels.get(SERVICE_LABEL) or "")}
    for network in ((inspected.get("NetworkSettings") or {}).get("Networks") or {}).values():
        names |= set((network or {}).get("Aliases") or ())
    return sorted(name for name in names if name and not str(inspected["Id"]).startswith(name))


def binds(
    engine: Engine, inspected: Mapping[str, Any], directories: Mapping[str, str], keys: Mapping[str, str]
) -> dict[str, str]:
    """{path in the container: directory} for the restored volumes ({key: directory}) that a container mounts."""
    mounts = mounts_by_key(engine, inspected, keys)
    return {str(mount["Destination"]): directories[key] for key, mount in mounts.items() if key in directories}


def _image(engine: Engine, service: str, image: Mapping[str, Any]) -> dict[str, Any]:
    for name in (image.get("id"), image.get("digest"), image.get("reference")):
        if name:
            try:
                return engine.inspect_image(str(name))
            except NotFoundError:
                continue
    raise StackError(f"The image {image.get('reference')} of the service {service} is not on this host; pull it first.")
