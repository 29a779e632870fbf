# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volumes are captured, whose containers are frozen for it, and what is known of them beforehand."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..afresh import afresh
from ..engine import ACTIVE, Engine
from ..errors import StackError
from ..filesystem import covers
from ..inspection import describe
from ..selection import select
from ..sizes import Size, measure
from ..state import State, container_name
from ..volumes import PROJECT_LABEL, VOLUME_LABEL, is_bind
from .refusals import refuse_project, refuse_volume

_LOGS = "/logs"  # Neo4j's; nothing in it belongs to the one instant
_MEASURE_SECONDS = 600.0
_OFF = ("created", "exited", "dead", "removing")


@dataclass(frozen=True)
class PlannedVolume:
    """A volume to capture. path is its real directory on this host; size is what it held when the plan was made."""

    key: str
    name: str
    path: str
    backing: str
    driver: str
    driver_opts: Mapping[str, str]
    labels: Mapping[str, str]
    filesystem: str
    store: str
    store_version: str | None
    quiesce: str
    size: Size


@dataclass(frozen=True)
class Elsewhere:
    """Where the data that a volume is for really lies: the id of the container that writes it, directory, store."""

    container: str
    path: str
    store: str


@dataclass
class CapturePlan:
    """containers are inspected ones by id: all of the project's and all that mount a planned volume.

    pause and stop are the ids of all that can write to a volume; those that do not run are watched, not touched. torn
    are the names of volumes whose store goes on writing while it is copied (quiesce: none).
    """

    project: str
    volumes: list[PlannedVolume]
    containers: dict[str, dict[str, Any]]
    pause: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)
    whole: bool = True  # whether volumes are all that the project has
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)  # by the name in Docker
    torn: list[str] = field(default_factory=list)

    @property
    def keys(self) -> dict[str, str]:
        """The name in the snapshot by the name in Docker."""
        return {volume.name: volume.key for volume in self.volumes}

    @property
    def frozen(self) -> list[PlannedVolume]:
        """The volumes that are copied inside the freeze window."""
        return [volume for volume in self.volumes if volume.quiesce != "none"]

    @property
    def live(self) -> list[PlannedVolume]:
        return [volume for volume in self.volumes if volume.quiesce == "none"]


@afresh
def make_plan(
    engine: Engine,
    project: str,
    asked: Sequence[Mapping[str, Any]] | None = None,
    quiesce: str = "pause",
    elsewhere: Mapping[str, Elsewhere] | None = None,
) -> CapturePlan:
    """Look at the engine and the host; raise StackError for all that promise 6 refuses. Nothing is changed.

    asked are {name, quiesce}, by the name in Docker or in the project. Without it: all volumes of the project; those
    mounted at /logs are then copied outside the freeze window. elsewhere: for Docker volumes whose store writes beside
    them, what is captured instead.
    """
    elsewhere = elsewhere or {}
    if not engine.is_local:
        raise StackError(
            f"docker_host is {engine.docker_host}, and volumes are captured on the engine's own host; run it there."
        )
    state = State(engine)
    of_project = select(state.volumes, compose_project=project, users=state.users)
    chosen = _chosen(state, project, of_project, asked)
    containers = _inspected(engine, state, project, list(chosen))
    if asked is None:
        placed = {one.container for one in elsewhere.values()}
        refuse_project(project, state, chosen, {key: about for key, about in containers.items() if key not in placed})
    plan = CapturePlan(project, [], containers, whole=set(of_project) <= set(chosen), elsewhere=elsewhere)
    deadline = time.monotonic() + _MEASURE_SECONDS
    for name, how in chosen.items():
        entry = describe(state.volumes[name], state)
        path = _path(state, entry)
        if name in elsewhere:
            path = state.real(elsewhere[name].path)
            entry = {**entry, "store": {"kind": elsewhere[name].store, "version": None}}
        else:
            refuse_volume(entry, containers)
        size = measure(path, deadline)
        how = how or (_default_quiesce(entry) if quiesce == "pause" else quiesce)
        plan.volumes.append(_planned(project, entry, path, how, size))
    _refuse_same_keys(plan)
    _choose_containers(plan, state)
    plan.torn = [volume.name for volume in plan.live if volume.store != "files" and _is_written(volume, state)]
    used = {container["Id"] for volume in plan.volumes for container in state.users.get(volume.name, ())}
    used |= {*plan.pause, *plan.stop}
    containers |= {key: engine.inspect_container(key) for key in used - containers.keys()}
    plan.containers = {key: about for key, about in containers.items() if key in used or _project_of(about) == project}
    return plan


def refuse_others(engine: Engine, plan: CapturePlan, since: float | None = None) -> None:
    """Raise StackError where a container that the plan does not freeze runs and can write to a volume of the instant.

    Asked right before and right after the freeze, outside of its window: one that came since the plan was made. With
    since (seconds since 1970) also one that was started after it and runs no more, as docker run --rm leaves none.
    """
    came = {} if since is None else _came(engine, since)
    state = State(engine)
    known = {*plan.pause, *plan.stop}
    for volume in plan.frozen:
        names = {
            container["Id"]: container_name(container)
            for container in writers(state, volume.name, volume.path)
            if container["State"] not in _OFF or container["Id"] in came
        }
        for identity, (name, mounted) in came.items():
            if any(reaches({"Name": each}, volume.name, volume.path, state) for each in mounted):
                names.setdefault(identity, name)
        for identity in names.keys() - known:
            raise StackError(
                f"Container {names[identity]} was started on the volume {volume.name} while it was backed up, so the "
                "copy would not be of one instant; nothing was backed up; try again."
            )


def _came(engine: Engine, since: float) -> dict[str, tuple[str, list[str]]]:
    """{id: (name, Docker volumes that it got to write to)} of the containers that were started after since."""
    found: dict[str, tuple[str, list[str]]] = {}
    mounts: dict[str, list[str]] = {}
    for event in engine.events(since, {"type": ["container", "volume"], "event": ["start", "mount"]}):
        actor = event["Actor"]
        if event["Type"] == "container":
            found[actor["ID"]] = str(actor["Attributes"].get("name")), mounts.setdefault(actor["ID"], [])
        elif actor["Attributes"].get("read/write") == "true":
            mounts.setdefault(str(actor["Attributes"].get("container")), []).append(actor["ID"])
    return found


def writers(state: State, name: str, path: str) -> list[dict[str, Any]]:
    """Containers in any state that can write to a volume: by its name, or through its directory (path, resolved)."""
    return [
        container
        for container in state.containers
        if any(mount.get("RW", True) and reaches(mount, name, path, state) for mount in container.get("Mounts") or ())
    ]


def reaches(mount: Mapping[str, Any], name: str, path: str, state: State) -> bool:
    """Whether a container's mount leads to a volume (path: where it lies, resolved), to a part of it, or contains it.

    By its name, by a bind mount, or by another volume at the same place, above or below.
    """
    if mount.get("Type") == "bind":
        return touches(str(mount.get("Source") or "/"), path, state)
    if mount.get("Name") == name:
        return True
    place = place_of(state.volumes.get(str(mount.get("Name"))) or {})
    return place is not None and touches(place, path, state)


def place_of(volume: Mapping[str, Any]) -> str | None:
    """The host directory that a volume of the driver "local" is, not resolved; None for what Docker mounts itself."""
    options = volume.get("Options") or {}
    if volume.get("Driver") != "local" or (options.get("type") and not is_bind("local", options)):
        return None
    return str(options.get("device") or volume["Mountpoint"])


def touches(source: str, path: str, state: State) -> bool:
    """Whether a bind mount of source reaches what lies in the directory path (resolved), or a part of it.

    Who mounts all of the host's or of Docker's data, as agents do, looks after it and is not counted.
    """
    real, root = state.real(source), state.docker_root
    whole = ("/", "/var", "/var/lib", root, f"{root}/volumes")
    return covers(path, real) or (covers(real, path) and real not in whole)


def volume_key(project: str, volume: Mapping[str, Any]) -> str:
    """The volume's name inside its project: Compose's label, or Docker's name without the project's prefix."""
    labels = volume.get("labels") or volume.get("Labels") or {}
    name = str(volume.get("name") or volume.get("Name"))
    if labels.get(PROJECT_LABEL) == project and labels.get(VOLUME_LABEL):
        return str(labels[VOLUME_LABEL])
    return name[len(project) + 1 :] if name.startswith(f"{project}_") else name


def _chosen(
    state: State, project: str, of_project: Sequence[str], asked: Sequence[Mapping[str, Any]] | None
) -> dict[str, str | None]:
    if asked is None:
        if not of_project:
            raise StackError(
                f"compose_project is {project}, and no volume of it exists on this host; there are volumes of "
                f"{_names(state.volumes[name].get('Labels') or {} for name in state.volumes) or 'no project'}."
            )
        return dict.fromkeys(of_project)
    by_key = {volume_key(project, state.volumes[name]): name for name in of_project}
    chosen: dict[str, str | None] = {}
    for item in asked:
        name = str(item["name"])
        found = name if name in state.volumes else by_key.get(name)
        if found is None:
            prefixed = [other for other in sorted(state.volumes) if other.endswith(f"_{name}")]
            hint = f"did you mean {' or '.join(prefixed)}?" if prefixed else f"there are {', '.join(sorted(by_key))}."
            raise StackError(f"There is no volume {name} on this host, and nothing was backed up; {hint}")
        if found in chosen:
            raise StackError(f"volumes names {found} twice; name it once.")
        chosen[found] = item.get("quiesce")
    return chosen


def _inspected(engine: Engine, state: State, project: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    users = {container["Id"] for name in names for container in state.users.get(name, ())}
    wanted = [
        container["Id"]
        for container in state.containers
        if container["Id"] in users or (container.get("Labels") or {}).get(PROJECT_LABEL) == project
    ]
    return {identity: engine.inspect_container(identity) for identity in wanted}


def _planned(project: str, entry: Mapping[str, Any], path: str, quiesce: str, size: Size) -> PlannedVolume:
    return PlannedVolume(
        key=volume_key(project, entry),
        name=entry["name"],
        path=path,
        backing=entry["backing"],
        driver=entry["driver"],
        driver_opts=entry["driver_opts"],
        labels=entry["labels"],
        filesystem=entry["filesystem"]["type"],
        store=entry["store"]["kind"],
        store_version=entry["store"]["version"],
        quiesce=quiesce,
        size=size,
    )


def _path(state: State, entry: Mapping[str, Any]) -> str:
    return state.real(str(entry["device"] if entry["backing"] == "path" else entry["mountpoint"]))


def _default_quiesce(entry: Mapping[str, Any]) -> str:
    places = {container["destination"] for container in entry["containers"]}
    return "none" if places == {_LOGS} and entry["store"]["kind"] == "files" else "pause"


def _choose_containers(plan: CapturePlan, state: State) -> None:
    """All that can write; a container with one volume to stop for is stopped."""
    how: dict[str, str] = {}
    for volume in plan.frozen:
        for container in writers(state, volume.name, volume.path):
            if container["State"] == "restarting":
                raise StackError(
                    f"Container {container_name(container)}, which uses the volume {volume.name}, keeps restarting, so "
                    "it cannot be frozen; see its log, then stop it or repair it."
                )
            if how.get(container["Id"]) != "stop":
                how[container["Id"]] = volume.quiesce
    plan.pause = [identity for identity, way in how.items() if way == "pause"]
    plan.stop = [identity for identity, way in how.items() if way == "stop"]


def _is_written(volume: PlannedVolume, state: State) -> bool:
    return any(container["State"] in ACTIVE for container in writers(state, volume.name, volume.path))


def _refuse_same_keys(plan: CapturePlan) -> None:
    seen: dict[str, str] = {}
    for volume in plan.volumes:
        if volume.key in seen:
            raise StackError(
                f"The volumes {seen[volume.key]} and {volume.name} would have one name, {volume.key}, in the snapshot; "
                "back them up in two runs."
            )
        seen[volume.key] = volume.name


def _project_of(inspected: Mapping[str, Any]) -> str | None:
    return (inspected["Config"].get("Labels") or {}).get(PROJECT_LABEL)


def _names(labels: Any) -> str:
    return ", ".join(sorted({found[PROJECT_LABEL] for found in labels if PROJECT_LABEL in found}))
