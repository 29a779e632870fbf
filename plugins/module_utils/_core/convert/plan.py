# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a conversion, checked as a whole before anything changes: check mode shows it as it is."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from ..afresh import afresh
from ..capture.plan import volume_key
from ..capture.refusals import refuse_project
from ..drift import find_drift
from ..engine import Engine
from ..errors import StackError
from ..filesystem import covers, existing_ancestor
from ..hidden import is_hidden
from ..moving.rebuild import Recipe, recipe, shares
from ..placement import find_misplaced
from ..places import check_new, check_places
from ..restore.crew import Crew
from ..restore.plan import crew_of, inspect_users
from ..restore.targets import CONFIG_HASH_LABEL, Target, existing_target
from ..room import require_room
from ..sizes import measure
from ..state import State, container_name
from ..stores.registry import look
from ..volumes import PROJECT_LABEL, VolumeSpec, is_bind
from .redefine import Definition
from .request import ConvertRequest

_MEASURE_SECONDS = 600.0
_DOCKER_FILES = ("_data", "opts.json")


@dataclass
class Conversion:
    """One volume: source is where its data lies, target where it will. bytes is what a copy takes on disk."""

    spec: VolumeSpec
    source: Target
    target: Target
    bytes: int
    store: str

    @property
    def same_place(self) -> bool:
        """Only the definition changes; the data stays, or goes aside and comes back."""
        return self.source.path == self.target.path

    @property
    def before(self) -> Definition:
        return Definition("local", self.source.driver_opts, self.source.labels)

    @property
    def after(self) -> Definition:
        """As asked for, with the labels that it has besides; Compose's hash would be of the old definition."""
        labels = {**self.source.labels, **self.spec.labels}
        labels.pop(CONFIG_HASH_LABEL, None)
        return Definition(self.spec.driver, dict(self.spec.driver_opts), labels)


@dataclass
class ConvertPlan:
    """crew are the containers to stop and start; recipes are all that refer to the volumes, also those that stand."""

    request: ConvertRequest
    docker_root: str
    conversions: list[Conversion]
    containers: dict[str, dict[str, Any]]
    crew: Crew
    recipes: list[Recipe] = field(default_factory=list)

    @property
    def keys(self) -> dict[str, str]:
        """The volume's name in the project by its name in Docker."""
        return {one.spec.name: one.source.key for one in self.conversions}

    @property
    def actions(self) -> list[str]:
        """What is done, in order, for people."""
        found = []
        for one in self.conversions:
            where = f"from {one.source.path} to {one.target.path}"
            kept = f"; what is in the old place is kept for {self.request.keep_days:g} days"
            moved = "with its data where it is" if one.same_place else f"{where}{kept}"
            found.append(f"convert volume {one.spec.name} {moved}")
        if self.crew.ids:
            found += [f"stop {', '.join(reversed(self.crew.names()))}", f"start {', '.join(self.crew.names())}"]
        return found

    @property
    def diff(self) -> dict[str, Any]:
        """{before, after}: the volumes' definitions."""
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        for one in self.conversions:
            for found, definition in ((before, one.before), (after, one.after)):
                found[one.spec.name] = asdict(definition)
        return {"before": {"volumes": before}, "after": {"volumes": after}}

    def beside(self, place: Target, operation: str, new: bool) -> str:
        """Our directory on the file system of a place; never inside Docker's directory of a volume, which goes."""
        if place.in_root:
            return place.beside(operation)
        parent = os.path.dirname(place.path) if is_bind("local", place.driver_opts) else self.docker_root
        return os.path.join(parent, f".openmemory-stack-{place.name}{'.new' if new else ''}-{operation}")


@afresh
def make_plan(request: ConvertRequest, engine: Engine) -> ConvertPlan | None:
    """Find what differs and check all of it. None where nothing does. Raises StackError; changes nothing."""
    state = State(engine)
    specs = [
        spec for spec in request.specs if spec.name in state.volumes and find_drift(spec, state.volumes[spec.name])
    ]
    if not specs:
        return None
    check_places(request.specs, state)
    check_new(specs, state)
    docker_root = state.real(state.docker_root)
    conversions = [_conversion(request, spec, state, docker_root) for spec in specs]
    sources = [one.source for one in conversions]
    for source in sources:
        _refuse_others(source, request.project)
    containers = inspect_users(engine, request.project, sources)
    crew = crew_of(engine, request.project, sources, containers)
    _refuse_sharing(sources, containers)
    _refuse_misplaced(request, state, conversions, containers)
    _check_room(conversions)
    used = {user["Id"] for source in sources for user in source.users}
    order = [*crew.ids, *sorted(used - set(crew.ids))]
    recipes = [recipe(engine, containers[identity]) for identity in order]
    return ConvertPlan(request, docker_root, conversions, containers, crew, recipes)


def _conversion(request: ConvertRequest, spec: VolumeSpec, state: State, docker_root: str) -> Conversion:
    volume = state.volumes[spec.name]
    if spec.driver != "local" or (spec.driver_opts and not is_bind(spec.driver, spec.driver_opts)):
        raise StackError(
            f"volume {spec.name}: is asked for on {spec.driver_opts.get('type') or spec.driver}, which Docker mounts "
            "by itself, so its data cannot be moved there; mount it on the host and give its directory as path."
        )
    source = existing_target(volume_key(request.project, volume), spec.name, {}, state)
    if not os.path.isdir(source.path):
        raise StackError(f"volume {spec.name}: its directory {source.path} is gone; mount its disk or restore it.")
    path = str(spec.driver_opts["device"]) if spec.driver_opts else f"{docker_root}/volumes/{spec.name}/_data"
    target = Target(source.key, spec.name, {}, state.real(path), False, dict(spec.driver_opts), dict(spec.labels))
    if target.path != source.path:
        _check_target(target, source, state)
    if source.backing == "managed" or target.backing == "managed":
        _check_docker(spec.name, docker_root)
    if source.backing == "managed":
        _refuse_kept(source)
    size = measure(source.path, time.monotonic() + _MEASURE_SECONDS)
    found = look(source.path)
    return Conversion(spec, source, target, size.allocated_bytes, found.kind if found else "files")


def _check_target(target: Target, source: Target, state: State) -> None:
    name, path = target.name, target.path
    if covers(source.path, path) or covers(path, source.path):
        raise StackError(f"volume {name}: {path} and {source.path} lie in each other; choose another path.")
    if target.backing == "managed":
        return
    if os.path.isdir(path):
        inside = state.mounts.below(path)
        if inside:
            raise StackError(f"volume {name}: {inside[0]} is mounted inside {path}; unmount it or choose another path.")
        if any(not is_hidden(name) and name != "lost+found" for name in os.listdir(path)):
            raise StackError(
                f"volume {name}: its new place {path} is not empty, and nothing there is overwritten; empty it or "
                "choose another path."
            )
        same = os.lstat(path).st_dev == os.lstat(os.path.dirname(path)).st_dev
        target.in_root = state.mounts.is_point(path) or not same


def _check_docker(name: str, docker_root: str) -> None:
    """Our directory lies beside Docker's volumes, and only on one file system can a directory be renamed."""
    if os.stat(docker_root).st_dev != os.stat(os.path.join(docker_root, "volumes")).st_dev:
        raise StackError(
            f"volume {name}: {docker_root}/volumes is a file system of its own, so data cannot be moved between it and "
            f"{docker_root}; convert to a path, or back up and restore."
        )


def _refuse_kept(source: Target) -> None:
    above = os.path.dirname(source.path)
    others = sorted(set(os.listdir(above)) - set(_DOCKER_FILES))
    if others:
        raise StackError(
            f"volume {source.name}: {os.path.join(above, others[0])} lies beside its data and would be removed with "
            "the old definition (restores keep old data there); move it elsewhere, or remove it if it is not needed."
        )


def _refuse_others(source: Target, project: str) -> None:
    for user in source.users:
        owner = (user.get("Labels") or {}).get(PROJECT_LABEL)
        if owner != project:
            of_whom = f"of the project {owner}" if owner else "of no Compose project"
            raise StackError(
                f"The volume {source.name} is used by the container {container_name(user)} {of_whom}, not {project}; "
                "remove that container first."
            )
        if all(mount.get("Name") != source.name for mount in user.get("Mounts") or ()):
            raise StackError(
                f"The container {container_name(user)} mounts {source.path}, the directory of the volume "
                f"{source.name}, by itself, and would go on with the old place; have it use the volume."
            )


def _refuse_sharing(sources: list[Target], containers: dict[str, dict[str, Any]]) -> None:
    """Who lives in the network or processes of a container that is made again would be left in what is gone."""
    used = {user["Id"] for source in sources for user in source.users}
    names = {containers[identity]["Name"].lstrip("/") for identity in used}
    for inspected in containers.values():
        if shares(inspected) & (used | names):
            raise StackError(
                f"Container {inspected['Name'].lstrip('/')} shares the network, processes or volumes of a container "
                "that has to be made again; remove it, and make it again afterwards."
            )


def _refuse_misplaced(
    request: ConvertRequest, state: State, conversions: list[Conversion], containers: dict[str, dict[str, Any]]
) -> None:
    """What a container keeps in its own layer would be lost with the container."""
    names = [one.spec.name for one in conversions]
    users = {identity: containers[identity] for one in conversions for identity in (u["Id"] for u in one.source.users)}
    for name in names:
        for inspected in users.values():
            found = find_misplaced(name, inspected)
            if found:
                raise StackError(
                    f"The volume {name} is mounted at {found['destination']} in {found['container']}, but "
                    f"{found['store']} writes to {found['expected']}, inside the container, which has to be made anew: "
                    f"that would be lost. Mount a volume at {found['expected']} and move the data first."
                )
    refuse_project(request.project, state, list(state.volumes), users)


def _check_room(conversions: list[Conversion]) -> None:
    wanted: dict[int, int] = {}
    for one in conversions:
        if one.same_place:
            continue
        place = existing_ancestor(one.target.path)
        device = os.stat(place).st_dev
        wanted[device] = wanted.get(device, 0) + one.bytes
        require_room(place, wanted[device])
