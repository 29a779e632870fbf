# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volume of a stack a container keeps its store in, by the volume's key: its name inside the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Union

from ..capture.plan import volume_key
from ..filesystem import covers
from ..stores import registry
from ..stores.container import Container
from ..volumes import PROJECT_LABEL


class Keyed(Protocol):
    """A volume that a plan knows."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...


Inspected = Mapping[str, Any]
Containers = Union[Mapping[str, Inspected], Sequence[Inspected]]  # inspected ones, also by their ids
Keys = Union[Mapping[str, str], Sequence[Keyed], None]  # {Docker's name: key}, or planned volumes; None: ask the engine


@dataclass(frozen=True)
class StoreContainer:
    """A container that is a known store's. path is where it keeps its data, destination the mount that covers it."""

    inspected: Inspected
    kind: str
    key: str
    path: str
    destination: str

    @property
    def name(self) -> str:
        return str(self.inspected["Name"]).lstrip("/")


def each(containers: Containers) -> list[Inspected]:
    return list(containers.values() if isinstance(containers, Mapping) else containers)


def stores_of(engine: Any, containers: Containers, keys: Keys = None) -> list[StoreContainer]:
    """The known stores among inspected containers whose data is on a named volume, sorted by key.

    Of several containers on one volume the running one is given, else the first.
    """
    found: dict[str, StoreContainer] = {}
    for inspected in each(containers):
        recognised = registry.recognise(Container.from_inspect(inspected))
        if recognised is None:
            continue
        kind, paths, _extra = recognised
        mounts = mounts_by_key(engine, inspected, keys)
        for path in paths:
            inside = {
                key: str(mount["Destination"]) for key, mount in mounts.items() if covers(mount["Destination"], path)
            }
            if not inside:
                continue
            key = max(inside, key=lambda one: len(inside[one]))  # of nested mounts the longest holds it
            if key not in found or inspected["State"].get("Running"):
                found[key] = StoreContainer(inspected, kind, key, path, inside[key])
    return [found[key] for key in sorted(found)]


def mounts_by_key(engine: Any, inspected: Inspected, keys: Keys = None) -> dict[str, Mapping[str, Any]]:
    """{key: mount} of the named volumes that an inspected container mounts; without keys the engine is asked."""
    mounts = [mount for mount in inspected.get("Mounts") or [] if mount.get("Type") == "volume"]
    if keys is None:
        project = str((inspected["Config"].get("Labels") or {}).get(PROJECT_LABEL) or "")
        known = {str(volume["Name"]): volume_key(project, volume) for volume in engine.volumes()}
    elif isinstance(keys, Mapping):
        known = dict(keys)
    else:
        known = {volume.name: volume.key for volume in keys}
    return {known[mount["Name"]]: mount for mount in mounts if mount["Name"] in known}
