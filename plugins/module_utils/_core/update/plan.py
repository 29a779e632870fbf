# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of an update, checked as a whole before anything changes: check mode shows it as it is."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..afresh import afresh
from ..capture.plan import touches, volume_key
from ..capture.refusals import refuse_project
from ..compose_containers import PROJECT_LABEL
from ..engine import ACTIVE, Engine
from ..errors import StackError
from ..moving.rebuild import Recipe, recipe
from ..proof.volume_keys import stores_of
from ..restore.crew import Crew, service_of
from ..restore.plan import crew_of, inspect_users
from ..restore.targets import Target, existing_target, refuse_foreign
from ..room import require_room
from ..selection import select
from ..sizes import measure
from ..state import State
from ..stores.registry import look
from .request import UpdateRequest
from .services import Service, find_services, judge

_MEASURE_SECONDS = 600.0
_LOGS = {"/logs"}  # Neo4j's; nothing in it is needed to go back


@dataclass
class UpdatePlan:
    """crew are the containers to stop: those that run on the targets. recipes are all of the project, to go back.

    containers are all of the project's, inspected. stores is {volume's key: kind of its store}.
    """

    request: UpdateRequest
    services: list[Service]
    targets: list[Target]
    stores: dict[str, str]
    containers: dict[str, dict[str, Any]]
    crew: Crew
    recipes: list[Recipe]
    bytes: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def newer(self) -> list[Service]:
        return [service for service in self.services if service.newer]

    @property
    def keys(self) -> dict[str, str]:
        """The volume's name in the project by its name in Docker."""
        return {target.name: target.key for target in self.targets}

    @property
    def touched(self) -> dict[str, str]:
        """{key: kind of its store} of the volumes that services with a newer image use: their format may move."""
        names = {service.name for service in self.newer}
        found = {}
        for about in self.containers.values():
            if service_of(about) in names:
                mounted = {mount.get("Name") for mount in about.get("Mounts") or ()}
                found.update({one.key: self.stores[one.key] for one in self.targets if one.name in mounted})
        return found

    @property
    def actions(self) -> list[str]:
        """What is done, in order, for people."""
        found: list[str] = []
        if not self.newer:
            return found
        if self.request.snapshot == "make":
            found.append("make a snapshot")
        names = ", ".join(target.name for target in self.targets)
        days = f"{self.request.keep_days:g} day{'' if self.request.keep_days == 1 else 's'}"
        kept = f", kept for {days}" if self.request.keep_days else ""
        found.append(f"copy {names} beside the live data{kept}")
        found.append(f"stop {', '.join(reversed(self.crew.names()))}")
        for service in self.newer:
            found += [f"run {step} on the data of {service.name} in between" for step in service.steps]
            found.append(f"update {service.name} from {shown(service.before)} to {shown(service.after)}")
        return found


@afresh
def make_plan(
    request: UpdateRequest, engine: Engine, config: Mapping[str, Any], ask_registry: bool = False
) -> UpdatePlan:
    """Find what there is and check all of it; config is the project as Compose resolves it. Changes nothing.

    ask_registry: nothing was pulled, so the registry is asked what it has. Raises StackError.
    """
    project = request.project
    state = State(engine)
    of_project = select(state.volumes, compose_project=project, users=state.users)
    targets = [
        existing_target(volume_key(project, state.volumes[name]), name, {}, state)
        for name in of_project
        if not _only_logs(name, state)
    ]
    containers = inspect_users(engine, project, targets)
    own = {
        identity: about
        for identity, about in containers.items()
        if (about["Config"].get("Labels") or {}).get(PROJECT_LABEL) == project
    }
    if not own:
        raise StackError(
            f"There is no container of the stack {project} on this host, so there is nothing to update; deploy it with "
            "site.yml."
        )
    services, warnings = find_services(engine, config, list(own.values()), ask_registry)
    warnings += judge(services, request.steps)
    plan = UpdatePlan(request, services, targets, {}, own, Crew(engine, project, {}), [], warnings=warnings)
    if not any(service.newer is not False for service in services):
        return plan  # what follows is asked for by an update only
    for target in targets:
        refuse_foreign(target, project)
    refuse_project(project, state, list(state.volumes), own)
    plan.crew = crew_of(engine, project, targets, containers)
    _refuse_standing(engine, plan)
    order = [*plan.crew.ids, *sorted(set(own) - set(plan.crew.ids))]
    plan.recipes = [recipe(engine, own[identity]) for identity in order]
    plan.warnings += _host_paths(plan, state)
    _look(plan)
    return plan


def shown(image: Any) -> str:
    """An image for people: its reference, and the start of its digest, as a tag may stay the same."""
    digest = f" ({image.digest[:19]})" if image.digest else ""
    return f"{image.reference}{digest}"


def _only_logs(name: str, state: State) -> bool:
    mounts = [mount for user in state.users.get(name, ()) for mount in user["Mounts"] if mount.get("Name") == name]
    return bool(mounts) and {mount["Destination"] for mount in mounts} <= _LOGS


def _refuse_standing(engine: Engine, plan: UpdatePlan) -> None:
    """A store that stands still cannot be counted, and one that nobody can count may lose data unseen."""
    for store in stores_of(engine, plan.containers, plan.keys):
        if store.inspected["State"]["Status"] not in ACTIVE:
            raise StackError(
                f"Container {store.name} does not run, so nobody could say afterwards whether it lost data; start it "
                "(site.yml), then update."
            )


def _host_paths(plan: UpdatePlan, state: State) -> list[str]:
    """A sentence for each path of the host that a newer version may write to, and that no copy is made of."""
    names, found = {service.name for service in plan.newer}, []
    for about in plan.containers.values():
        for mount in about.get("Mounts") or () if service_of(about) in names else ():
            source = str(mount.get("Source") or "")
            data = mount.get("Type") == "bind" and mount.get("RW") and (os.path.isdir(source) or os.path.isfile(source))
            if data and not any(touches(source, target.path, state) for target in plan.targets):
                found.append(
                    f"{about['Name'].lstrip('/')} writes to {source} of this host, which is no volume: no copy is made "
                    "of it, so it stays as the new version leaves it also where the old one comes back."
                )
    return found


def _look(plan: UpdatePlan) -> None:
    """What lies in the volumes, and whether a copy has room beside it."""
    deadline = time.monotonic() + _MEASURE_SECONDS
    wanted: dict[int, int] = {}
    for target in plan.targets:
        found = look(target.path)
        plan.stores[target.key] = found.kind if found else "files"
        size = measure(target.path, deadline).allocated_bytes
        plan.bytes += size
        place = target.path if target.in_root else os.path.dirname(target.path)
        device = os.stat(place).st_dev
        wanted[device] = wanted.get(device, 0) + size
        require_room(place, wanted[device])


def images_text(services: Sequence[Service], after: bool) -> str:
    """A line for each service with its image, for a diff."""
    lines = [f"{one.name}: {shown(one.after if after and one.newer else one.before)}\n" for one in services]
    return "".join(lines)
