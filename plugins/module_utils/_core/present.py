# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes as asked for: the plan, checked as a whole before anything changes, and its execution."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .directories import DirectoryPlan, apply_directory, plan_directory
from .drift import explain_drift, find_drift
from .engine import Engine
from .errors import StackError
from .inspection import describe
from .places import check_new, check_places
from .state import State
from .volumes import VolumeSpec


@dataclass
class PresentPlan:
    """What differs and what will be done. Check mode shows it as it is; nothing is found out later."""

    specs: Sequence[VolumeSpec]
    state: State
    new: dict[str, VolumeSpec] = field(default_factory=dict)
    directories: dict[str, DirectoryPlan] = field(default_factory=dict)
    drift: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.actions)

    @property
    def actions(self) -> list[str]:
        """What is done, in order: a directory comes before its volume."""
        actions = []
        for spec in self.specs:
            directory = self.directories.get(spec.name)
            if directory and directory.changes:
                actions.append(directory.action)
            if spec.name in self.new:
                actions.append(f"create volume {spec.name}")
        return actions

    @property
    def diff(self) -> dict[str, Any]:
        before: dict[str, Any] = {"directories": {}, "volumes": {}}
        after: dict[str, Any] = {"directories": {}, "volumes": {}}
        for directory in self.directories.values():
            if directory.changes:
                before["directories"][directory.path] = directory.before and directory.before.as_result()
                after["directories"][directory.path] = directory.after.as_result()
        for spec in self.new.values():
            before["volumes"][spec.name] = None
            after["volumes"][spec.name] = _definition(spec)
        return {"before": before, "after": after}


def plan_present(engine: Engine, specs: Sequence[VolumeSpec], on_drift: str = "fail") -> PresentPlan:
    """Compare what is asked for with what is there; raises StackError for whatever stands in the way of any volume.

    on_drift "fail" makes a difference in an existing volume such an obstacle, "ignore" only reports it.
    """
    state = State(engine)
    plan = PresentPlan(specs, state)
    for spec in specs:
        if spec.name in state.volumes:
            plan.drift[spec.name] = find_drift(spec, state.volumes[spec.name])
        else:
            plan.new[spec.name] = spec
    drifted = {name: drift for name, drift in plan.drift.items() if drift}
    if drifted and on_drift == "fail":
        raise StackError(explain_drift(drifted))
    check_places(specs, state)
    check_new(list(plan.new.values()), state)
    for spec in specs:
        if spec.path is not None and spec.name not in drifted:
            plan.directories[spec.name] = plan_directory(spec)
            if spec.name not in plan.new and plan.directories[spec.name].before is None:
                raise StackError(
                    f"volume {spec.name}: exists, and its directory {spec.path} is gone; mount its disk or restore it, "
                    "or create the directory yourself if it shall start empty."
                )
    return plan


def apply_present(plan: PresentPlan) -> None:
    """Do what the plan says. A failure leaves what was done before it, which the next run finds and keeps."""
    for spec in plan.specs:
        directory = plan.directories.get(spec.name)
        if directory and directory.changes:
            apply_directory(directory)
        if spec.name in plan.new:
            created = plan.state.engine.create_volume(spec.name, spec.driver, dict(spec.driver_opts), dict(spec.labels))
            plan.state.volumes[spec.name] = created


def describe_present(plan: PresentPlan, size_deadline: float | None = None) -> list[dict[str, Any]]:
    """The volumes after the run; in check mode, as they would be."""
    entries = []
    for spec in plan.specs:
        volume = plan.state.volumes.get(spec.name) or _predicted(spec, plan.state)
        entry = describe(volume, plan.state, spec.name in plan.new, size_deadline)
        directory = plan.directories.get(spec.name)
        entry["directory"] = directory.after.as_result() if directory else None
        entry["drift"] = plan.drift.get(spec.name, [])
        entries.append(entry)
    return entries


def _definition(spec: VolumeSpec) -> dict[str, Any]:
    return {
        "backing": spec.backing,
        "driver": spec.driver,
        "driver_opts": dict(spec.driver_opts),
        "labels": dict(spec.labels),
    }


def _predicted(spec: VolumeSpec, state: State) -> dict[str, Any]:
    """The volume as the engine will tell it. Only the local driver's mount points can be known beforehand."""
    place = os.path.join(state.docker_root, "volumes", spec.name, "_data") if spec.driver == "local" else ""
    return {
        "Name": spec.name,
        "Driver": spec.driver,
        "Options": dict(spec.driver_opts),
        "Labels": dict(spec.labels),
        "Mountpoint": place,
    }
