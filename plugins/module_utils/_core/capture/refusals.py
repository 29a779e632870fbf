# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup refuses, each with one sentence: what could not be backed up is never a silent success."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import StackError
from ..filesystem import covers
from ..placement import find_misplaced
from ..state import State
from ..stores.container import Container
from ..stores.registry import recognise
from ..volumes import PROJECT_LABEL


def refuse_volume(entry: Mapping[str, Any], containers: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise StackError for a volume (as describe() has it) that cannot be seen, is empty, or lies beside its store."""
    name = entry["name"]
    if entry["problem"]:
        raise StackError(f"The volume {name} cannot be backed up: {entry['problem']}")
    for user in entry["containers"]:
        found = find_misplaced(name, containers[user["id"]]) if user["id"] in containers else None
        if found:
            raise StackError(
                f"The volume {name} is mounted at {found['destination']} in {found['container']}, but {found['store']} "
                f"writes to {found['expected']}, which no volume keeps: a backup of it would save nothing. Mount it at "
                f"{found['expected']}."
            )
    if entry["empty"]:
        raise StackError(
            f"The volume {name} is empty, and a backup of it would save nothing; if that is right, name the volumes to "
            "back up in volumes, without it."
        )


def refuse_project(
    project: str, state: State, chosen: Iterable[str], containers: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise StackError where a store of the project keeps its data on none of the chosen volumes."""
    names = set(chosen)
    for inspected in containers.values():
        if (inspected["Config"].get("Labels") or {}).get(PROJECT_LABEL) != project:
            continue
        container = Container.from_inspect(inspected)
        known = recognise(container)
        for path in known[1] if known else ():
            mounts = [mount for mount in inspected.get("Mounts") or () if covers(mount["Destination"], path)]
            nearest = max(mounts, key=lambda mount: len(mount["Destination"]), default=None)
            if nearest is not None and nearest.get("Name") in names:
                continue
            where = "inside the container only"
            if nearest is not None:
                where = f"on {nearest.get('Name') or nearest.get('Source')}, which is no volume of the project"
            wrong = _misplaced(inspected, names)
            raise StackError(
                f"{known[0] if known else ''} in container {container.name} writes to {path}, {where}{wrong}, so it "
                "would not be backed up; mount a volume of the project there, or have it write to one."
            )


def _misplaced(inspected: Mapping[str, Any], names: Iterable[str]) -> str:
    for name in names:
        found = find_misplaced(name, inspected)
        if found:
            return f" (its volume {name} is mounted at {found['destination']})"
    return ""
