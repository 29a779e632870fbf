# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which Docker volume each volume of a snapshot goes to, where its data lies, and how it can be swapped there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..capture.plan import place_of, reaches, volume_key
from ..engine import ACTIVE, Engine
from ..errors import StackError
from ..filesystem import covers
from ..hidden import HIDDEN, is_hidden
from ..location import locate
from ..repository.manifest import Manifest
from ..selection import select
from ..sizes import is_empty
from ..state import State, container_name
from ..volumes import PROJECT_LABEL, VOLUME_LABEL, is_bind
from .request import RestoreRequest

CONFIG_HASH_LABEL = "com.docker.compose.config-hash"  # without it Compose never offers to recreate a volume


@dataclass
class Target:
    """One volume to restore. about is its entry in the manifest.

    path is where its data lies or will lie; in_root says that this directory stays (a mount point) and only what is in
    it is swapped. users are containers of the engine's list. empty: there is no data that could be lost.
    """

    key: str
    name: str
    about: Mapping[str, Any]
    path: str
    exists: bool
    driver_opts: Mapping[str, str]
    labels: Mapping[str, str]
    in_root: bool = False
    empty: bool = True
    users: list[dict[str, Any]] = field(default_factory=list)

    @property
    def backing(self) -> str:
        return "path" if is_bind("local", self.driver_opts) else "managed"

    @property
    def store(self) -> str:
        return str(self.about.get("store") or "files")

    def beside(self, operation: str) -> str:
        """Our directory for this operation, on the file system of the data."""
        if self.in_root:
            return os.path.join(self.path, f"{HIDDEN}{operation}")
        parent = os.path.dirname(self.path)
        if self.backing == "managed":
            return os.path.join(parent, f".openmemory-restore-{operation}")
        return os.path.join(parent, f".openmemory-stack-{self.name}-{operation}")


def choose_keys(request: RestoreRequest, manifest: Manifest) -> list[str]:
    """The snapshot's volumes that are asked for, by key; raises StackError for a name that it does not have."""
    if request.volumes is None:
        return sorted(manifest.volumes)
    by_name = {str(about["name"]): key for key, about in manifest.volumes.items()}
    by_name.update({f"{request.project}_{key}": key for key in manifest.volumes})
    chosen: list[str] = []
    for name in request.volumes:
        key = name if name in manifest.volumes else by_name.get(name)
        if key is None:
            raise StackError(
                f"volumes names {name}, which is not in the snapshot; it holds {', '.join(sorted(manifest.volumes))}."
            )
        if key in chosen:
            raise StackError(f"volumes names {name} twice; name it once.")
        chosen.append(key)
    return chosen


def find_targets(request: RestoreRequest, manifest: Manifest, keys: Sequence[str], state: State) -> list[Target]:
    """A target for each key; raises StackError for what cannot or must not be restored to."""
    unknown = sorted(set(request.name_map) - set(manifest.volumes))
    if unknown:
        raise StackError(
            f"name_map names {unknown[0]}, which is not in the snapshot; it holds "
            f"{', '.join(sorted(manifest.volumes))}."
        )
    of_project = {
        volume_key(request.project, state.volumes[name]): name
        for name in select(state.volumes, compose_project=request.project, users=state.users)
    }
    targets = [_target(request, key, manifest.volumes[key], of_project, state) for key in keys]
    names = [target.name for target in targets]
    for target in targets:
        if names.count(target.name) > 1:
            raise StackError(f"Two volumes of the snapshot would go to the volume {target.name}; correct name_map.")
        for other in targets:
            if other is not target and covers(other.path, target.path):
                raise StackError(f"The volumes {other.name} and {target.name} lie in each other at {target.path}.")
    return targets


def _target(
    request: RestoreRequest, key: str, about: Mapping[str, Any], of_project: Mapping[str, str], state: State
) -> Target:
    own = f"{request.project}_{key}" if request.project != request.from_project else str(about["name"])
    if request.target == "new":
        prefix = request.new_prefix if request.new_prefix is not None else f"{request.project}-restored_"
        name = request.name_map.get(key) or prefix + key
        if name in state.volumes:
            raise StackError(
                f"target is new, and the volume {name} is there already; give another new_prefix or name_map, or "
                "restore in place."
            )
    else:
        name = request.name_map.get(key) or of_project.get(key) or own
    if name not in state.volumes:
        _refuse_lookalike(request, key, name, state)
        return _new(request, key, name, about, state)
    return existing_target(key, name, about, state, whole=request.path is None)


def _refuse_lookalike(request: RestoreRequest, key: str, name: str, state: State) -> None:
    """A new, empty volume beside the one that was meant is the classic way to lose a restore."""
    mapped = name if key in request.name_map else None
    meant = [other for other in sorted(state.volumes) if mapped and other.endswith(f"_{mapped}")]
    if request.target == "in_place" and not meant:
        of_others = [
            other
            for other in sorted(state.volumes)
            if (other == key or other.endswith(f"_{key}")) and other != name and _is_loose(request, other, state)
        ]
        meant = of_others
    if meant:
        raise StackError(
            f"There is no volume {name} on this host, and it would be made anew beside {', '.join(meant)}; if that is "
            f"the one, say so with name_map ({key}: {meant[0]}) or correct compose_project; otherwise choose another "
            "name."
        )


def _is_loose(request: RestoreRequest, name: str, state: State) -> bool:
    """Whether a volume may be the stack's own under another prefix: no other Compose project claims it."""
    project = (state.volumes[name].get("Labels") or {}).get(PROJECT_LABEL)
    projects = {(user.get("Labels") or {}).get(PROJECT_LABEL) for user in state.users.get(name, ())}
    return {project, *projects} <= {None, request.project}


def _new(request: RestoreRequest, key: str, name: str, about: Mapping[str, Any], state: State) -> Target:
    if about.get("driver", "local") != "local":
        raise StackError(
            f"The volume {key} was made by the volume driver {about['driver']}, whose place is not known here; "
            f"create {name} yourself and restore in place."
        )
    options = {str(option): str(value) for option, value in (about.get("driver_opts") or {}).items()}
    if options and not is_bind("local", options):
        raise StackError(
            f"The volume {key} was mounted by Docker from {options.get('device', '?')}; create {name} yourself, on a "
            "file system that this host mounts, and restore in place."
        )
    if options and request.target == "new":
        options["device"] = os.path.join(os.path.dirname(os.path.normpath(options["device"])), name)
    path = state.real(options["device"] if options else os.path.join(state.docker_root, "volumes", name, "_data"))
    target = Target(key, name, about, path, False, options, _labels(request, key, name, about))
    if options:
        _look(target, state)
        for other, volume in state.volumes.items():
            device = (volume.get("Options") or {}).get("device")
            if device and (covers(state.real(device), path) or covers(path, state.real(device))):
                raise StackError(f"The new volume {name} would lie at {path}, where Docker's volume {other} is.")
    return target


def _labels(request: RestoreRequest, key: str, name: str, about: Mapping[str, Any]) -> dict[str, str]:
    """Those of the snapshot; Compose's only where Compose would look for the volume by this name."""
    labels = {str(label): str(value) for label, value in (about.get("labels") or {}).items()}
    labels.pop(CONFIG_HASH_LABEL, None)
    inside = labels.pop(VOLUME_LABEL, key)
    if labels.pop(PROJECT_LABEL, None) is None:
        return labels
    project = name[: -len(inside) - 1] if name.endswith(f"_{inside}") else ""
    if request.target == "in_place":
        project = request.project
    return {**labels, PROJECT_LABEL: project, VOLUME_LABEL: inside} if project else labels


def existing_target(key: str, name: str, about: Mapping[str, Any], state: State, whole: bool = True) -> Target:
    """The target that a volume of this host is; raises StackError where nothing can be swapped in it.

    whole: all of it will be swapped, so that nothing else may lie in it.
    """
    volume = state.volumes[name]
    options = dict(volume.get("Options") or {})
    if volume["Driver"] != "local" or (options.get("type") and not is_bind(volume["Driver"], options)):
        raise StackError(
            f"The volume {name} is mounted by Docker itself ({options.get('type') or volume['Driver']}) and not there "
            "while its containers are stopped, so nothing can be swapped in; mount it on the host and use a volume "
            "with a path."
        )
    location = locate(volume, state)
    if location.path is None and not location.gone:
        raise StackError(f"The volume {name} cannot be restored to: {location.problem}")
    path = location.path or state.real(str(location.device or volume["Mountpoint"]))
    target = Target(key, name, about, path, True, options, dict(volume.get("Labels") or {}))
    target.users = users_of(name, path, state)
    if whole:
        _refuse_nested(target, state)
    _look(target, state, whole)
    return target


def _refuse_nested(target: Target, state: State) -> None:
    """A rename of the one would take the data of the other along."""
    for other, volume in sorted(state.volumes.items()):
        place = place_of(volume) if other != target.name else None
        real = state.real(place) if place else target.path
        if real != target.path and covers(target.path, real):
            raise StackError(
                f"The volume {other} ({real}) lies inside the volume {target.name} ({target.path}), which cannot be "
                "replaced without it; give each a directory of its own, or restore single paths."
            )


def users_of(name: str, path: str, state: State) -> list[dict[str, Any]]:
    """Containers in any state that mount the volume, or its directory by themselves or through another volume."""
    users = list(state.users.get(name, ()))
    known = {user["Id"] for user in users}
    for container in state.containers:
        mounts = container.get("Mounts") or ()
        if container["Id"] not in known and any(reaches(mount, name, path, state) for mount in mounts):
            users.append(container)
    return users


def _look(target: Target, state: State, whole: bool = True) -> None:
    path = target.path
    if not os.path.lexists(path):
        return
    inside = state.mounts.below(path)
    if whole and inside:
        raise StackError(
            f"The volume {target.name} has another file system mounted at {inside[0]}, which cannot be swapped; "
            "unmount it first, or restore single paths."
        )
    same = os.lstat(path).st_dev == os.lstat(os.path.dirname(path)).st_dev
    target.in_root = state.mounts.is_point(path) or not same
    try:
        target.empty = is_empty(path, leave_out=is_hidden)
    except OSError as error:
        raise StackError(f"{error.filename} cannot be read ({error.strerror}); use become: true.") from error


def refuse_foreign(target: Target, project: str) -> None:
    """Raise StackError where a container that is not of the project uses the volume right now."""
    for user in target.users:
        owner = (user.get("Labels") or {}).get(PROJECT_LABEL)
        if owner != project and user["State"] in ACTIVE:
            of_whom = f"of the project {owner}" if owner else "of no Compose project"
            raise StackError(
                f"The volume {target.name} is in use by the container {container_name(user)} {of_whom}, not {project}; "
                "stop that container first."
            )


def refuse_active(targets: Sequence[Target], engine: Engine, operation: str = "restore") -> None:
    """Raise StackError where a container uses a target now; for when all of the plan's have been stopped.

    One that was started or made since the plan would go on writing to the old data after the swap. operation is what is
    under way, for people.
    """
    state = State(engine)
    for target in targets:
        for user in users_of(target.name, target.path, state):
            if user["State"] in ACTIVE and engine.is_active(user["Id"]):
                raise StackError(
                    f"The container {container_name(user)} was started on the volume {target.name} while the "
                    f"{operation} was under way, so nothing was put in place; stop it, or repeat the {operation} with "
                    "it running."
                )
