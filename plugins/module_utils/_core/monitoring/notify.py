# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells people once when an operation begins to fail, and once when it works again.

told.json holds for each target what it was told last of each operation; who could not be told is tried again at the
next run, as long as there is something to tell.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Mapping
from typing import Any

from ..errors import StackError
from ..operation.durable_json import read_json, write_json
from ..operation.last import Outcome
from ..operation.places import Places
from .apprise import read_targets, send
from .settings import MonitoringSettings

_OK, _FAILED = "ok", "failed"


def read_told(places: Places) -> dict[str, dict[str, Any]]:
    """{target: {"operations": {operation: "ok" or "failed"}, "delivered": bool, "problem": sentence}}."""
    try:
        found: dict[str, dict[str, Any]] = read_json(places.told) or {}
    except StackError:  # at worst somebody is told a second time
        return {}
    return found


def tell(places: Places, settings: MonitoringSettings, operation: str, ended: Outcome, detail: str = "") -> list[str]:
    """Tell every target that does not know yet how the operation is. Sentences on those that could not be told.

    detail: a line on a run that succeeded. Raises StackError where the targets cannot be read or the disk refuses.
    """
    if not settings.targets_file:
        return []
    targets = read_targets(settings.targets_file)
    state = _OK if ended.ok else _FAILED
    kind = "recovery" if ended.ok else "failure"
    title, body = _message(places.project, operation, ended, detail)
    problems = []
    descriptor = os.open(f"{places.told}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two that end at once must not both tell
        before = read_told(places)
        told = {target.name: dict(before.get(target.name) or {}) for target in targets}
        for target in targets:
            about = told[target.name]
            known = about["operations"] = dict(about.get("operations") or {})
            if known.get(operation, _OK) == state:
                continue
            if kind not in settings.notify_on:
                known[operation] = state
                continue
            problem = send(settings.targets_file, target, kind, title, body)
            about.update({"delivered": not problem, "problem": problem})
            if problem:
                problems.append(problem)
            else:
                known[operation] = state
        if told != before:
            write_json(places.told, told)
    finally:
        os.close(descriptor)
    return problems


def test(places: Places, settings: MonitoringSettings) -> dict[str, str]:
    """Send a message to every target. {target: "" or why it was not told}; raises StackError where there is none."""
    if not settings.targets_file:
        raise StackError(
            f"Nobody is to be told of the stack {places.project}; set monitoring_targets of the role monitoring."
        )
    host = socket.gethostname()
    title = f"Test: {host}: {places.project}"
    body = f"This is a test of the notifications about the stack {places.project} on {host}. Nothing is wrong."
    targets = read_targets(settings.targets_file)
    said = {target.name: send(settings.targets_file, target, "test", title, body) for target in targets}
    if os.path.isdir(places.state):
        told = read_told(places)
        for name, problem in said.items():
            told[name] = {**(told.get(name) or {}), "delivered": not problem, "problem": problem}
        write_json(places.told, told)
    return said


def problems_of(told: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What stands in the way of the notifications, a sentence each."""
    return [str(about["problem"]) for _name, about in sorted(told.items()) if about.get("problem")]


def _message(project: str, operation: str, ended: Outcome, detail: str) -> tuple[str, str]:
    host = socket.gethostname()
    if ended.ok:
        title = f"Recovered: {host}: {operation} of {project}"
        return (
            title,
            f"The {operation} of the stack {project} on {host} works again ({_when(ended)}). {detail}".rstrip(),
        )
    title = f"FAILED: {host}: {operation} of {project}"
    lines = [
        f"The {operation} of the stack {project} on {host} failed ({_when(ended)}):",
        ended.message,
        "",
        f"On the host: openmemory-stack status --project {project}",
        f"and: journalctl --unit openmemory-stack-{operation}@{project}.service",
        "The next message comes when it works again.",
    ]
    return title, "\n".join(lines)


def _when(ended: Outcome) -> str:
    return f"{ended.at:%Y-%m-%d %H:%M} UTC"
