# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a purge refuses, each with one sentence: what is not the stack's alone, and what it promises to leave alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import StackError
from ..filesystem import covers
from ..restore.targets import users_of
from ..state import State, container_name
from ..volumes import PROJECT_LABEL
from .record import Doomed

_SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
_SHALLOW = ("/home", "/root", "/run", "/var")  # what lies directly in these is the system's or a person's
_REPOSITORY = ("config", "data", "index", "keys", "snapshots")  # what a repository of restic consists of
_DEPTH = 3  # how deep below a directory that goes a repository is looked for


def refuse_shared_volume(name: str, path: str | None, project: str, state: State) -> None:
    """Raise StackError for a volume that is another project's, or that a container of somebody else uses.

    In any state: what is stopped today is missed when it starts tomorrow.
    """
    owner = (state.volumes[name].get("Labels") or {}).get(PROJECT_LABEL)
    if owner not in (None, project):
        named = ", ".join(container_name(user) for user in state.users.get(name, []))
        raise StackError(
            f"The volume {name} is of the project {owner} and is used by {named} of {project}, so it is not removed "
            f"with {project}; remove that container first."
        )
    users = users_of(name, path, state) if path else state.users.get(name, [])
    for user in users:
        of = (user.get("Labels") or {}).get(PROJECT_LABEL)
        if of != project:
            raise StackError(
                f"The volume {name} is also used by the container {container_name(user)} ({user['State']}) "
                f"{_whose(of)}; remove that container first, or keep the stack."
            )


def refuse_shared_network(network: Mapping[str, Any], project: str, state: State) -> None:
    """Raise StackError where a container of somebody else is connected to a network: Docker would not remove it."""
    for container in state.containers:
        joined = ((container.get("NetworkSettings") or {}).get("Networks") or {}).values()
        of = (container.get("Labels") or {}).get(PROJECT_LABEL)
        if of != project and any(each.get("NetworkID") == network["Id"] for each in joined):
            name = container_name(container)
            raise StackError(
                f"The network {network['Name']} is also used by the container {name} {_whose(of)}; disconnect it "
                f"first: docker network disconnect {network['Name']} {name}"
            )


def refuse_place(volume: str, path: str, going: Iterable[str], state: State, state_dir: str) -> None:
    """Raise StackError for a volume's directory that is not only this stack's; going are the volumes that go."""
    where = f"The volume {volume} lies in {path}"
    if is_system(path) or covers(path, state.real(state.docker_root)) or covers(path, state_dir):
        raise StackError(
            f"{where}, which is not the stack's alone but the system's; remove what is the stack's in it yourself, "
            f"then the volume: docker volume rm {volume}"
        )
    refuse_mounted(volume, path, state)
    for other, about in state.volumes.items():
        device = (about.get("Options") or {}).get("device")
        place = state.real(str(device or about["Mountpoint"])) if other not in going else None
        if place and place != "/" and (covers(place, path) or covers(path, place)):
            relation = "is there, too" if place == path else f"lies at {place}"
            raise StackError(f"{where}, and the volume {other}, which is not of this stack, {relation}; move it first.")


def refuse_mounted(volume: str, path: str, state: State, plain: bool = False) -> None:
    """Raise StackError where something is mounted in a volume's directory: whoever removes it would remove that, too.

    plain: a managed volume without options, which Docker removes; then also where the directory is a mount point.
    """
    mounted = [*([path] if plain and state.mounts.is_point(path) else []), *state.mounts.below(path)]
    if mounted:
        raise StackError(
            f"The volume {volume} lies in {path}, and another file system is mounted in it at {mounted[0]}; unmount "
            "that first."
        )


def is_system(path: str) -> bool:
    """Whether a directory is one that a system has, or a person's home."""
    shallow = any(os.path.dirname(path) == parent for parent in _SHALLOW)
    return path.count("/") < 2 or shallow or any(covers(place, path) for place in _SYSTEM)


def refuse_what_stays(doomed: Iterable[Doomed], stays: Mapping[str, str | None]) -> None:
    """Raise StackError where something that stays ({what: its path}) lies in a directory that goes, or around it."""
    for each in doomed:
        for what, place in stays.items():
            real = os.path.realpath(place) if place else None
            if real and (covers(each.path, real) or covers(real, each.path)):
                raise StackError(
                    f"The {what} {place} and {each.path} ({each.what}), which would be removed, lie in each other; "
                    f"move the {what} to another place first."
                )
        found = find_repository(each.path)
        if found:
            raise StackError(
                f"There is a repository of restic at {found}, inside {each.path} ({each.what}), which would be "
                "removed; move the repository to another place first."
            )


def find_repository(path: str) -> str | None:
    """A repository of restic not far below a directory."""
    for place, directories, files in os.walk(path):
        if {*_REPOSITORY} <= {*directories, *files}:
            return place
        if os.path.relpath(place, path).count(os.sep) >= _DEPTH - 1 and place != path:
            directories.clear()
    return None


def _whose(project: str | None) -> str:
    return f"of the project {project}" if project else "of no Compose project"
