# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stores whose data lies in their container's own layer, because their volume is mounted where they do not write.

Upstream's compose file once mounted Qdrant's volume at /mem0/storage (mem0 issue 2895): removing that container would
lose all vectors. They are moved into the volume of the target that was meant for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..capture.plan import Elsewhere
from ..engine import Engine
from ..errors import StackError
from ..filesystem import covers
from ..placement import find_misplaced
from ..selection import select
from ..sizes import is_empty
from ..state import State
from ..volumes import PROJECT_LABEL


def find_elsewhere(engine: Engine, project: str) -> dict[str, Elsewhere]:
    """{Docker volume: where its store's data really lies}; raises StackError where that cannot be reached."""
    state = State(engine)
    names = select(state.volumes, compose_project=project, users=state.users)
    found: dict[str, Elsewhere] = {}
    for container in state.containers:
        if (container.get("Labels") or {}).get(PROJECT_LABEL) != project:
            continue
        inspected = engine.inspect_container(container["Id"])
        for name in names:
            wrong = find_misplaced(name, inspected)
            if wrong is None or not _is_empty(state, name):
                continue
            directory = _directory(inspected, str(wrong["expected"]))
            if directory is not None:
                found[name] = Elsewhere(str(inspected["Id"]), directory, str(wrong["store"]))
    return found


def _is_empty(state: State, name: str) -> bool:
    """With something in the volume, whoever reads this knows more about it than we do."""
    try:
        return is_empty(state.real(str(state.volumes[name]["Mountpoint"])))
    except OSError:
        return False


def _directory(inspected: Mapping[str, Any], path: str) -> str | None:
    """The directory on this host that a path inside a container is, None if it is no directory."""
    for mount in inspected.get("Mounts") or ():  # an anonymous volume that the image has made
        if mount.get("Type") == "volume" and covers(mount["Destination"], path):
            inside = os.path.relpath(path, mount["Destination"])
            return os.path.normpath(os.path.join(mount["Source"], inside))
    driver = inspected.get("GraphDriver") or {}
    layers = driver.get("Data") or {}
    if "UpperDir" not in layers:
        raise StackError(
            f"The data of {str(inspected['Name']).lstrip('/')} lies in {path} inside the container only, where the "
            f"storage driver {driver.get('Name') or 'of this engine'} does not show it; copy it into the volume first."
        )
    below = [os.path.join(layer, path.lstrip("/")) for layer in str(layers.get("LowerDir") or "").split(":") if layer]
    if any(os.path.isdir(one) and not is_empty(one) for one in below):
        raise StackError(
            f"A part of the data of {str(inspected['Name']).lstrip('/')} lies in its image ({path}); copy it into the "
            "volume first."
        )
    directory = os.path.join(layers["UpperDir"], path.lstrip("/"))
    return directory if os.path.isdir(directory) else None
