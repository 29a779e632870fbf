# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shape of what stack_info answers: a host may be broken into, or have another version, so it is checked first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Maybe:
    """That, or None, which also stands in where it is missing."""

    of: Any


@dataclass(frozen=True)
class Each:
    """A table with any names, and that under each."""

    of: Any


TIMER = {"active": bool, "next": Maybe(str), "result": str}
FAILURE = {"created": str, "message": str}
VOLUME = {
    "name": str,
    "backing": Maybe(str),
    "device": Maybe(str),
    "filesystem": Maybe(
        {"type": Maybe(str), "mount_point": Maybe(str), "free_bytes": Maybe(float), "total_bytes": Maybe(float)}
    ),
    "empty": Maybe(bool),
    "problem": Maybe(str),
    "orphaned": Maybe(bool),
    "misplaced": Maybe([{"container": str, "destination": str, "expected": str}]),
    "allocated_bytes": Maybe(float),
    "size_complete": Maybe(bool),
    "store": Maybe({"kind": Maybe(str), "version": Maybe(str), "health": Maybe(str), "findings": Maybe([str])}),
}
NEWEST = {
    "id": str,
    "time": str,
    "way": str,
    "verified": str,
    "partial": Maybe(str),
    "freeze_s": Maybe(float),
    "volumes": Each({"store": Maybe(str), "holds": Maybe(str), "checked": Maybe(str)}),
}
SNAPSHOTS = {
    "count": int,
    "newest": Maybe(NEWEST),
    "oldest": Maybe(str),
    "points": [
        {"time": str, "freeze_s": Maybe(float), "way": str, "seconds": Maybe(float), "volumes": Each(Maybe(float))}
    ],
    "unread": int,
    "damaged": [str],
}
LAST = {
    "backup": Maybe(
        {
            "created": str,
            "finished": Maybe(str),
            "snapshot_id": Maybe(str),
            "freeze_s": Maybe(float),
            "verify": Maybe(str),
        }
    ),
    "backup_failed": Maybe(FAILURE),
    "drill": Maybe(
        {
            "created": str,
            "finished": Maybe(str),
            "snapshot_id": Maybe(str),
            "seconds": Maybe(float),
            "memories": Maybe(int),
        }
    ),
    "drill_failed": Maybe(FAILURE),
    "check": Maybe({"created": str, "finished": Maybe(str)}),
    "check_failed": Maybe(FAILURE),
    "update": Maybe({"created": str, "updated": Maybe([str])}),
    "recovered": Maybe(FAILURE),
}
STACK = {
    "project": str,
    "settings": bool,
    "containers": [{"name": str, "service": Maybe(str), "image": Maybe(str), "state": str, "health": str}],
    "volumes": [VOLUME],
    "repository": Maybe({"location": str, "stored_bytes": Maybe(float), "snapshots": Maybe(int)}),
    "copies": [
        {
            "name": str,
            "location": Maybe(str),
            "ok": Maybe(bool),
            "error": Maybe(str),
            "tried": Maybe(str),
            "success": Maybe(str),
        }
    ],
    "snapshots": Maybe(SNAPSHOTS),
    "last": LAST,
    "unfinished": Maybe({"operation": str, "phase": str, "started": str, "running": bool}),
    "kept": [{"volume": str, "path": str, "until": str, "operation": Maybe(str)}],
    "moved": Maybe({"target": str, "at": str}),
    "schedule": Maybe({"backup": Maybe(TIMER), "drill": Maybe(TIMER), "check": Maybe(TIMER)}),
    "problems": [{"part": str, "message": str}],
}
ANSWER = {"host": str, "now": str, "stacks": [STACK]}


class ShapeError(ValueError):
    """What does not fit, as in "stacks.0.containers is no list"."""


def fit(value: Any, shape: Any, where: str = "") -> Any:
    """The value with what the shape names and nothing else; raises ShapeError where it does not fit."""
    if isinstance(shape, Maybe):
        return None if value is None else fit(value, shape.of, where)
    if isinstance(shape, list):
        _demand(isinstance(value, list), where, "list")
        return [fit(each, shape[0], f"{where}.{number}") for number, each in enumerate(value)]
    if isinstance(shape, (dict, Each)):
        _demand(isinstance(value, Mapping), where, "table")
        if isinstance(shape, Each):
            return {str(name): fit(each, shape.of, f"{where}.{name}") for name, each in value.items()}
        return {name: fit(value.get(name), part, f"{where}.{name}") for name, part in shape.items()}
    if shape is bool:
        _demand(isinstance(value, bool), where, "yes or no")
    elif shape is str:
        _demand(isinstance(value, str), where, "text")
    else:
        is_number = isinstance(value, int) or (shape is float and isinstance(value, float))
        _demand(is_number and not isinstance(value, bool), where, "number")
    return value


def _demand(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise ShapeError(f"{where.lstrip('.') or 'it'} is no {what}")
