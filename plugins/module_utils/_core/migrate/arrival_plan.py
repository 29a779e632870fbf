# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target's part, before anything is changed: where each volume goes, and what stands in the way."""

from __future__ import annotations

import errno
import os
import socket
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..afresh import afresh
from ..capture.plan import volume_key
from ..engine import ACTIVE, Engine
from ..errors import StackError
from ..filesystem import existing_ancestor
from ..proof.gate import version_problem, version_warning
from ..restore.crew import Crew, service_of
from ..restore.targets import Target, existing_target
from ..room import require_room
from ..selection import select
from ..state import State, container_name
from ..stores.container import Container
from ..stores.registry import recognise
from ..volumes import PROJECT_LABEL

_NEVER = "0001-01-01T00:00:00Z"  # Docker's StartedAt of a container that has not been started
_PER_FILE = 4096  # bytes: a block's rest and an inode


@dataclass
class Offer:
    """What the source says of itself. volumes and images are as in a manifest (repository/manifest.py)."""

    host: str
    project: str
    architecture: str
    volumes: dict[str, dict[str, Any]]
    images: dict[str, dict[str, Any]]
    services: list[str]  # that ran there


@dataclass
class ArrivalPlan:
    """containers are all of the project's, by id; none of them runs. crew are those whose service ran on the source."""

    targets: list[Target]
    crew: Crew
    containers: dict[str, dict[str, Any]]
    warnings: list[str] = field(default_factory=list)


@afresh
def make_plan(engine: Engine, project: str, name_map: Mapping[str, str], offer: Offer) -> ArrivalPlan:
    """Raises StackError with what stands in the way; changes nothing."""
    state = State(engine)
    mine = [one for one in state.containers if (one.get("Labels") or {}).get(PROJECT_LABEL) == project]
    for container in mine:
        if container["State"] in ACTIVE:
            raise StackError(
                f"The container {container_name(container)} of the stack {project} runs on the target; a stack is "
                "moved to where there is none, so stop and remove it there first."
            )
    if not mine:
        raise StackError(f"The target has no containers of the stack {project}; deploy it there with state: created.")
    inspected = {str(one["Id"]): engine.inspect_container(one["Id"]) for one in mine}
    targets = [_target(key, about, project, name_map, state, inspected) for key, about in sorted(offer.volumes.items())]
    names = [target.name for target in targets]
    for target in targets:
        if names.count(target.name) > 1:
            raise StackError(f"Two volumes would go to the volume {target.name} of the target; correct name_map.")
    ran = {one: about for one, about in inspected.items() if service_of(about) in offer.services}
    plan = ArrivalPlan(targets, Crew(engine, project, ran), inspected)
    _gate(plan, engine, offer)
    _refuse_ports(inspected)
    _require_room(targets)
    own = str(engine.info().get("Architecture"))
    if own != offer.architecture:
        plan.warnings.append(f"The target's processor is {own}, the source's {offer.architecture}.")
    return plan


def _target(
    key: str,
    about: Mapping[str, Any],
    project: str,
    name_map: Mapping[str, str],
    state: State,
    inspected: Mapping[str, Mapping[str, Any]],
) -> Target:
    of_project = {
        volume_key(project, state.volumes[name]): name
        for name in select(state.volumes, compose_project=project, users=state.users)
    }
    name = name_map.get(key) or of_project.get(key)
    if name is None or name not in state.volumes:
        raise StackError(
            f"The target has no volume {name or key} for the source's {about['name']}; it has "
            f"{', '.join(sorted(of_project)) or 'none'}. Give name_map: {{{key}: VOLUME}}, or deploy it there first."
        )
    target = existing_target(key, name, about, state)
    for user in target.users:
        if user["Id"] not in inspected:
            raise StackError(
                f"The target's volume {name} is used by the container {container_name(user)}, which is not of the "
                f"stack {project}; remove that container first."
            )
    started = [user for user in target.users if inspected[user["Id"]]["State"]["StartedAt"] != _NEVER]
    if not target.empty and (started or not target.users):  # a container's making fills a volume from its image
        raise StackError(
            f"The target's volume {name} is not empty, and a stack is moved to empty volumes only; back it up and "
            "purge the stack there first, or correct name_map."
        )
    return target


def _gate(plan: ArrivalPlan, engine: Engine, offer: Offer) -> None:
    problems = []
    for about in plan.containers.values():
        known = recognise(Container.from_inspect(about))
        image = engine.inspect_image(about["Image"])
        for target in plan.targets:
            if known and known[0] == target.store and about["Id"] in {user["Id"] for user in target.users}:
                seen = offer, target.key, image, about["Config"]["Image"]
                problem, warning = version_problem(*seen), version_warning(*seen)
                problems += [problem.replace("The snapshot", "The source's data", 1)] if problem else []
                plan.warnings += [warning] if warning else []
    if problems:
        raise StackError(f"{' '.join(problems)} Deploy the source's versions on the target, and update it afterwards.")


def _refuse_ports(inspected: Mapping[str, Mapping[str, Any]]) -> None:
    """Whoever listens on a port of the stack would be found out only with the source frozen."""
    for about in inspected.values():
        for port, bindings in (about["HostConfig"].get("PortBindings") or {}).items():
            for binding in bindings or ():
                number = str(binding.get("HostPort") or "")
                if number.isdigit() and port.endswith("/tcp"):
                    _try_port(str(binding.get("HostIp") or ""), int(number), str(about["Name"]).lstrip("/"))


def _try_port(address: str, port: int, container: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise StackError(
                f"Port {port} of {address or 'all addresses'}, which {container} is to have, cannot be had on the "
                f"target ({error.strerror}); free it, or give the stack another one there."
            ) from error


def _require_room(targets: list[Target]) -> None:
    wanted: dict[int, int] = defaultdict(int)
    place: dict[int, str] = {}
    for target in targets:
        at = existing_ancestor(target.path if target.in_root else os.path.dirname(target.path))
        device = os.stat(at).st_dev
        wanted[device] += int(target.about["allocated_bytes"]) + _PER_FILE * int(target.about["files"])
        place[device] = at
    for device, needed in wanted.items():
        require_room(place[device], needed)
