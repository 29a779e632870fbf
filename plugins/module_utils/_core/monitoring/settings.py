# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host was told of monitoring: PROJECT.monitoring.json beside the settings of its command.

Without that file a stack is not watched: nothing is written outside our own directories, nobody is told anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from ..errors import StackError

DEBIAN_TEXTFILES = "/var/lib/prometheus/node-exporter"  # Debian's prometheus-node-exporter reads it by default
AUTO = "auto"
ON = ("failure", "recovery")


@dataclass(frozen=True)
class MonitoringSettings:
    """metrics_dir: absolute, "" for no metrics, "auto" for Debian's directory of node_exporter if it is there.

    max_age_s: {operation: seconds after which its last success is too old}. notify_on: any of ON. targets_file: of
    Apprise, a line NAME=URL each.
    """

    metrics_dir: str = AUTO
    max_age_s: Mapping[str, float] = field(default_factory=dict)
    notify_on: tuple[str, ...] = ON
    targets_file: str = ""

    @property
    def textfiles(self) -> str | None:
        """The directory for metrics, None for none."""
        if self.metrics_dir == AUTO:
            return DEBIAN_TEXTFILES if os.path.isdir(DEBIAN_TEXTFILES) else None
        return self.metrics_dir or None


def load(config_dir: str, project: str) -> MonitoringSettings | None:
    """The settings of a stack, None where it is not watched. Raises StackError for a file that cannot be meant."""
    path = os.path.join(config_dir, f"{project}.monitoring.json")
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StackError(f"{path} cannot be read ({error}); correct it.") from error
    known = {each.name for each in fields(MonitoringSettings)} - {"targets_file"}
    if not isinstance(found, dict) or set(found) - known:
        odd = sorted(set(found) - known)[0] if isinstance(found, dict) else "no table"
        raise StackError(f"{path} holds {odd!r}, which is no setting; use {', '.join(sorted(known))}.")
    directory = found.get("metrics_dir", AUTO)
    if directory not in (AUTO, "") and not (isinstance(directory, str) and os.path.isabs(directory)):
        raise StackError(f"metrics_dir in {path} is {directory!r}; give an absolute path, 'auto', or '' for none.")
    wanted = tuple(found.get("notify_on", ON))
    if set(wanted) - {*ON}:
        raise StackError(f"notify_on in {path} is {', '.join(wanted)}; use {' and '.join(ON)}.")
    try:
        ages = {str(name): float(seconds) for name, seconds in found.get("max_age_s", {}).items() if seconds}
    except (AttributeError, TypeError, ValueError) as error:
        raise StackError(f"max_age_s in {path} is no table of seconds; correct it.") from error
    targets = os.path.join(config_dir, f"{project}.apprise")
    return MonitoringSettings(directory, ages, wanted, targets if os.path.exists(targets) else "")
