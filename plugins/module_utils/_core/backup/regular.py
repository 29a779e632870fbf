# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which backups count as the stack's own: one of some volumes, made by hand, must not hide that there are no others."""

from __future__ import annotations

import os
from typing import Any

from ..capture.plan import CapturePlan
from ..errors import StackError
from ..operation.durable_json import read_json

REGULAR, OF_SOME = "backup", "backup_of_some"  # under which the results are kept, see operation/last.py


def kind_of(plan: CapturePlan, config_dir: str) -> str:
    """REGULAR for one of all volumes, or of all that the stack's settings name; OF_SOME for one of less.

    Without settings (PROJECT.json in config_dir) whatever is backed up is what is wanted.
    """
    if plan.whole:
        return REGULAR
    try:
        settings = read_json(os.path.join(config_dir, f"{plan.project}.json"))
    except StackError:  # the command tells; a snapshot that is there already is no reason to fail
        settings = None
    if not isinstance(settings, dict):
        return REGULAR
    there = {name for volume in plan.volumes for name in (volume.key, volume.name)}
    usual = _names(settings.get("options"))
    return REGULAR if usual and usual <= there else OF_SOME


def _names(options: Any) -> set[str]:
    volumes = options.get("volumes") if isinstance(options, dict) else None
    return {str(each["name"]) for each in volumes or () if isinstance(each, dict) and "name" in each}
