# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that shall not be: only those that nothing uses and that hold nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .byte_sizes import show_bytes
from .engine import Engine
from .errors import StackError
from .location import Location, locate
from .sizes import measure
from .state import State, container_name

_MEASURE_SECONDS = 10.0  # to say how much is in a volume that is not empty


@dataclass
class AbsentPlan:
    """The volumes that will be removed, with where each lies, and all that were named."""

    names: Sequence[str]
    state: State
    doomed: dict[str, Location]

    @property
    def changed(self) -> bool:
        return bool(self.doomed)

    @property
    def actions(self) -> list[str]:
        return [
            f"remove volume {name}" + (f"; its host directory {place.device} is left" if place.device else "")
            for name, place in self.doomed.items()
        ]

    @property
    def diff(self) -> dict[str, Any]:
        before = {
            name: {
                "backing": place.backing,
                "driver": self.state.volumes[name]["Driver"],
                "driver_opts": dict(self.state.volumes[name].get("Options") or {}),
                "labels": dict(self.state.volumes[name].get("Labels") or {}),
            }
            for name, place in self.doomed.items()
        }
        return {
            "before": {"directories": {}, "volumes": before},
            "after": {"directories": {}, "volumes": dict.fromkeys(before)},
        }


def plan_absent(engine: Engine, names: Sequence[str]) -> AbsentPlan:
    """Find what can go; raises StackError if any of the volumes is in use, is not empty, or cannot be looked into."""
    state = State(engine)
    doomed: dict[str, Location] = {}
    for name in names:
        if name in state.volumes:
            doomed[name] = locate(state.volumes[name], state)
            _refuse_used(name, state)
            _refuse_filled(name, doomed[name])
    return AbsentPlan(names, state, doomed)


def apply_absent(plan: AbsentPlan) -> None:
    """Remove the volumes. Host directories stay: Docker does not touch them."""
    for name in plan.doomed:
        plan.state.engine.remove_volume(name)


def describe_absent(plan: AbsentPlan) -> list[dict[str, Any]]:
    """For each volume named: whether it is removed, and the host directory that is left."""
    return [
        {
            "name": name,
            "removed": name in plan.doomed,
            "directory_left": plan.doomed[name].device if name in plan.doomed else None,
        }
        for name in plan.names
    ]


def _refuse_used(name: str, state: State) -> None:
    users = [f"{container_name(container)} ({container['State']})" for container in state.users.get(name, [])]
    if users:
        raise StackError(f"volume {name}: is used by {', '.join(users)}; remove what uses it first.")


def _refuse_filled(name: str, place: Location) -> None:
    if place.path is None:
        if place.gone:
            return
        raise StackError(
            f"volume {name}: nobody can say whether it is empty, so it is not removed ({place.problem}); look at it, "
            f"then use: docker volume rm {name}"
        )
    size = measure(place.path, time.monotonic() + _MEASURE_SECONDS)
    if size.files == 0 and size.complete:
        return
    least = "" if size.complete else "at least "
    raise StackError(
        f"volume {name}: is not empty, {place.path} holds {least}{size.files} files with {show_bytes(size.bytes)}; "
        f"save them, then use: docker volume rm {name}"
    )
