# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of the places that volumes are asked to lie in, for the whole list, before anything changes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from .byte_sizes import show_bytes
from .errors import StackError
from .filesystem import covers, existing_ancestor, free_and_total, unsupported_by_qdrant
from .state import State
from .volumes import VolumeSpec, is_bind


def check_places(specs: Sequence[VolumeSpec], state: State) -> None:
    """Raise StackError for a path that cannot be a volume's, or that is or holds the place of another volume."""
    asked = [spec for spec in specs if spec.path is not None]
    if asked and not state.is_local:
        raise StackError(
            f"volume {asked[0].name}: backing: path needs the engine of this host, and docker_host is "
            f"{state.engine.docker_host}; run the task on that host."
        )
    for spec in asked:
        _check_path(spec)
    taken: dict[str, VolumeSpec] = {}
    for spec in asked:
        real = state.real(str(spec.path))
        _refuse_docker_root(spec, real, state.real(state.docker_root))
        if real in taken:
            raise _overlap(spec, "also that of", f"volume {taken[real].name} of the list")
        taken[real] = spec
    for real, spec in taken.items():
        for parent in _parents(real):
            if parent in taken:
                raise _overlap(spec, f"inside {parent} of", f"volume {taken[parent].name} of the list")
    if taken:
        _refuse_places_of_others(taken, state)


def _refuse_places_of_others(taken: dict[str, VolumeSpec], state: State) -> None:
    others: dict[str, list[str]] = defaultdict(list)
    for name, volume in state.volumes.items():
        if is_bind(volume["Driver"], volume.get("Options") or {}):
            others[state.real(volume["Options"]["device"])].append(name)
    for real, spec in taken.items():
        for place in (real, *_parents(real)):
            for name in others.get(place, []):
                if name != spec.name:
                    relation = "also that of" if place == real else f"inside {place} of"
                    raise _overlap(spec, relation, f"Docker's volume {name}")
    for place, names in others.items():
        for parent in _parents(place):
            for name in names:
                if parent in taken and name != taken[parent].name:
                    raise _overlap(taken[parent], f"around {place} of", f"Docker's volume {name}")


def check_new(specs: Sequence[VolumeSpec], state: State) -> None:
    """Raise StackError where the file system of a volume to be made is not what it needs, or has too little room."""
    if not state.is_local:
        return
    for spec in specs:
        if spec.store == "qdrant" and spec.driver == "local":
            _check_filesystem(spec, state.real(spec.path or state.docker_root), state)
    _check_room(specs, state)


def _check_room(specs: Iterable[VolumeSpec], state: State) -> None:
    wanted: dict[str, int] = defaultdict(int)
    for spec in specs:
        if not spec.min_free:
            continue
        place = state.real(spec.path or state.docker_root)
        point = state.mounts.of(place).point
        wanted[point] += spec.min_free
        free, _total = free_and_total(place)
        if free is not None and free < wanted[point]:
            raise StackError(
                f"volume {spec.name}: no room: the new volumes on {point} want {show_bytes(wanted[point])} free "
                f"(min_free), and {show_bytes(free)} are; make room or choose another path."
            )


def _check_path(spec: VolumeSpec) -> None:
    path = str(spec.path)
    nearest = existing_ancestor(path)
    if os.path.islink(nearest) and not os.path.exists(nearest):
        raise StackError(
            f"volume {spec.name}: path {path} goes through {nearest}, a symbolic link to "
            f"{os.readlink(nearest)}, which does not exist; correct the link or the path."
        )
    if not os.path.isdir(nearest):
        what = "is a file" if nearest == path else f"lies below {nearest}, which is a file"
        raise StackError(f"volume {spec.name}: path {path} {what}; give a directory.")


def _check_filesystem(spec: VolumeSpec, real: str, state: State) -> None:
    kind = state.mounts.of(real).type
    refused = unsupported_by_qdrant(kind)
    if spec.store == "qdrant" and refused:
        raise StackError(
            f"volume {spec.name}: {real} is on {kind}, and Qdrant does not support {refused}; give it a directory on a "
            "local file system."
        )


def _refuse_docker_root(spec: VolumeSpec, real: str, root: str) -> None:
    if covers(root, real):
        raise StackError(f"volume {spec.name}: path {spec.path} is inside Docker's own {root}; choose another.")
    if covers(real, root):
        raise StackError(f"volume {spec.name}: path {spec.path} holds Docker's own {root}; choose another.")


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _overlap(spec: VolumeSpec, relation: str, whose: str) -> StackError:
    return StackError(
        f"volume {spec.name}: path {spec.path} is {relation} {whose}; give each volume a place of its own."
    )
