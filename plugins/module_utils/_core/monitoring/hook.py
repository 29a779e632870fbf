# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd starts when a unit of ours has failed (OnFailure=): also a run that was killed is recorded and told."""

from __future__ import annotations

import subprocess
from typing import Any

from ..operation.last import outcome, read_last
from ..operation.places import Places
from .metrics import OPERATIONS
from .watch import Watch, failed, refresh

_BUSY = "4"  # exit code of the command
_ASKED = ("ActiveState", "Result", "ExecMainStatus", "InvocationID")


def unit_of(operation: str, project: str) -> str:
    """The service that runs an operation of a stack by itself."""
    return f"openmemory-stack-{operation}@{project}.service"


def run(project: str, state_dir: str, config_dir: str) -> dict[str, Any]:
    """Record and tell each failure of the stack's units that the run itself could not. Returns {changed, actions,
    warnings}; raises nothing of its own.
    """
    actions: list[str] = []
    warnings: list[str] = []
    for operation in OPERATIONS:
        about = show(unit_of(operation, project))
        if about.get("ActiveState") != "failed":
            continue
        watch = Watch(project, operation, state_dir, config_dir)
        if _is_recorded(watch.places(), operation, about.get("InvocationID", "")):
            warnings += refresh(watch)
            actions.append(f"{operation}: it failed, and had said so itself")
        else:
            invocation = about.get("InvocationID", "")
            warnings += failed(watch, _sentence(unit_of(operation, project), about), None, invocation=invocation)
            actions.append(f"{operation}: its failure was recorded")
    return {"changed": bool(actions), "actions": actions, "warnings": list(dict.fromkeys(warnings))}


def failed_units(project: str) -> list[str]:
    """The stack's units that systemd lists as failed; [] where there is no systemd."""
    units = [unit_of(operation, project) for operation in OPERATIONS]
    return [unit for unit in units if show(unit).get("ActiveState") == "failed"]


def show(unit: str) -> dict[str, str]:
    """What systemd says of a unit; {} where there is no systemd."""
    command = ["systemctl", "show", unit, f"--property={','.join(_ASKED)}"]
    try:
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def _is_recorded(places: Places, operation: str, invocation: str) -> bool:
    last = read_last(places)
    ended = outcome(last, operation)
    if ended is None or ended.ok:
        return False
    return bool(invocation) and last[f"{operation}_failed"].get("invocation") == invocation


def _sentence(unit: str, about: dict[str, str]) -> str:
    status, result = about.get("ExecMainStatus", "?"), about.get("Result", "?")
    if result == "exit-code" and status == _BUSY:
        return f"The unit {unit} gave up: another operation was under way all the time it waited."
    how = {"oom-kill": "the kernel ended it for want of memory", "signal": f"a signal ended it ({status})"}.get(
        result, f"{result}, exit status {status}"
    )
    return f"The unit {unit} failed before it could say why ({how}); see journalctl --unit {unit}."
