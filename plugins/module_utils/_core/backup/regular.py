# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backups count as the stack's own: one of some volumes, made by hand, must not hide that there are no others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import StackError
from ..operation.durable_json import read_json
from ..operation.last import read_last
from ..operation.places import Places

if TYPE_CHECKING:
    from ..capture.plan import CapturePlan

REGULAR, OF_SOME = "backup", "backup_of_some"  # under which the results are kept, see operation/last.py


def is_usual(plan: CapturePlan, config_dir: str) -> bool | None:
    """Whether it is of all volumes that the stack's settings (PROJECT.json in config_dir) name, or of all of the stack.

    None for some volumes of a stack without settings: nobody knows which are usual.
    """
    if plan.whole:
        return True
    try:
        settings = read_json(os.path.join(config_dir, f"{plan.project}.json"))
    except StackError:  # the command tells; a snapshot can be made all the same
        settings = None
    if not isinstance(settings, dict):
        return None
    there = {name for volume in plan.volumes for name in (volume.key, volume.name)}
    usual = _names(settings.get("options"))
    return bool(usual) and usual <= there


def tags(plan: CapturePlan, usual: bool | None) -> list[str]:
    """By which "latest" and retention know what a snapshot counts as; none where it is of all volumes.

    volumes= is one of those that the settings name, which counts as one of all does; partial= counts by itself.
    """
    if plan.whole:
        return []
    key = "volumes" if usual else "partial"
    return [f"{key}={'+'.join(sorted(volume.key for volume in plan.volumes))}"]


def kind_of(usual: bool | None) -> str:
    """REGULAR, or OF_SOME for one of less than the settings name; without settings, what is backed up is meant."""
    return OF_SOME if usual is False else REGULAR


def is_regular(places: Places, result: Mapping[str, Any]) -> bool:
    """Whether the run with this result was recorded as the stack's own, or could not be recorded at all."""
    some = read_last(places).get(OF_SOME) or {}
    return bool(some.get("snapshot_id") != result.get("snapshot_id"))


def _names(options: Any) -> set[str]:
    volumes = options.get("volumes") if isinstance(options, dict) else None
    return {str(each["name"]) for each in volumes or () if isinstance(each, dict) and "name" in each}
