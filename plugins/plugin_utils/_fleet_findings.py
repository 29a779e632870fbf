# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong with a stack, as findings: worst first, each one sentence that says what to do where that is not plain.

A finding is {level, code, message, since}. No message tells an age, as that would make an unchanged fleet look changed;
since is the moment that the page counts from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_text import moment, number

CRITICAL, WARNING, NOTE = "critical", "warning", "note"
LEVELS = (CRITICAL, WARNING, NOTE)
_AHEAD = timedelta(minutes=10)
_NEARLY_FULL = 3.0  # percent


@dataclass(frozen=True)
class Limits:
    """What is taken for wrong. 0 switches one off."""

    max_age_hours: float = 26.0
    drill_max_age_days: float = 31.0
    min_free_percent: float = 10.0
    full_in_days: float = 14.0


def finding(level: str, code: str, message: str, since: Any = None) -> dict[str, Any]:
    return {"level": level, "code": code, "message": message, "since": since}


def findings(stack: Mapping[str, Any], now: datetime, limits: Limits) -> list[dict[str, Any]]:
    """Of one stack as stack_info tells it and the model has completed it; now is the host's clock."""
    moved = stack.get("moved")
    if moved:  # what is left here is old, and nobody is to mind it
        found = [finding(NOTE, "moved", f"Moved to {moved['target']}; what is left here is old.", moved["at"])]
        return [*found, *_unfinished(stack)]
    parts = (
        _unread(stack),
        _unfinished(stack),
        _backups(stack, now, limits),
        _copies(stack, now, limits),
        _drills(stack, now, limits),
        _containers(stack),
        _volumes(stack),
        _space(stack, limits),
        _schedule(stack),
    )
    every = [each for part in parts for each in part]
    return sorted(every, key=lambda each: LEVELS.index(each["level"]))


def _unread(stack: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for problem in stack["problems"]:
        yield finding(CRITICAL, f"{problem['part']}_unreadable", problem["message"])


def _unfinished(stack: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    left = stack["unfinished"]
    if left and left["running"]:
        yield finding(NOTE, "under_way", f"A {left['operation']} is under way.", left["started"])
    elif left:
        yield finding(
            CRITICAL,
            "unfinished",
            f"A {left['operation']} died in the phase {left['phase']}; 'openmemory-stack recover' puts that right.",
            left["started"],
        )


def _failure(stack: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """What the last run of an operation failed with; None where it did not."""
    done, failed = stack["last"].get(kind) or {}, stack["last"].get(f"{kind}_failed")
    ended, at = moment(done.get("finished") or done.get("created")), moment((failed or {}).get("created"))
    return failed if failed and at and (ended is None or at > ended) else None


def _backups(stack: Mapping[str, Any], now: datetime, limits: Limits) -> Iterator[dict[str, Any]]:
    snapshots = stack["snapshots"]
    for kind, words in (("backup", "backup"), ("check", "check of the repository")):
        failed = _failure(stack, kind)
        if failed:
            yield finding(
                CRITICAL, f"{kind}_failed", f"The last {words} failed: {failed['message']}", failed["created"]
            )
    if not stack["settings"]:
        if not any(problem["part"] == "settings" for problem in stack["problems"]) and _is_there(stack):
            yield finding(CRITICAL, "never_backed_up", "No backups are set up; playbooks/backup.yml does it.")
        return
    if snapshots is None:
        return
    newest = snapshots["newest"]
    if newest is None:
        yield finding(CRITICAL, "never_backed_up", "It was never backed up.")
        return
    made = moment(newest["time"])
    if made and made - now > _AHEAD:
        yield finding(WARNING, "clock", "The newest snapshot is of the future: see that the host's clock is right.")
    if made and limits.max_age_hours and now - made > timedelta(hours=limits.max_age_hours):
        yield finding(CRITICAL, "stale", "The newest snapshot is too old.", newest["time"])
    if newest["partial"]:
        yield finding(WARNING, "partial", "No snapshot holds all of its volumes.")
    if newest["verified"] == "none":
        yield finding(WARNING, "unverified", "The newest snapshot was not checked (backup_verify: none).")
    for sentence in snapshots["damaged"]:
        yield finding(CRITICAL, "snapshot_damaged", sentence)


def _copies(stack: Mapping[str, Any], now: datetime, limits: Limits) -> Iterator[dict[str, Any]]:
    for copy in stack["copies"]:
        name, success = copy["name"], moment(copy["success"])
        if copy["ok"] is False:
            told = f"The last copy to {name} failed: {copy['error'] or 'nobody said why.'}"
            yield finding(CRITICAL, "copy_failed", told, copy["tried"])
        elif success is None:
            yield finding(CRITICAL, "never_copied", f"Nothing was copied to {name} yet.")
        elif limits.max_age_hours and now - success > timedelta(hours=limits.max_age_hours):
            yield finding(CRITICAL, "copy_stale", f"The last copy to {name} is too old.", copy["success"])


def _drills(stack: Mapping[str, Any], now: datetime, limits: Limits) -> Iterator[dict[str, Any]]:
    drill, failed = stack["last"].get("drill"), _failure(stack, "drill")
    done = moment((drill or {}).get("created"))
    if failed:
        yield finding(CRITICAL, "drill_failed", f"The last drill failed: {failed['message']}", failed["created"])
    elif not limits.drill_max_age_days or not (stack["snapshots"] or {}).get("newest"):
        return
    elif done is None:
        yield finding(
            WARNING, "never_drilled", "No drill has proven yet that it can be restored (playbooks/drill.yml)."
        )
    elif now - done > timedelta(days=limits.drill_max_age_days):
        yield finding(WARNING, "drill_stale", "The last drill was long ago.", drill["created"] if drill else None)


def _containers(stack: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if not _is_there(stack) and not any(problem["part"] == "docker" for problem in stack["problems"]):
        yield finding(CRITICAL, "absent", "There is neither a container nor a volume of it on this host.")
    elif not stack["containers"] and stack["volumes"]:
        yield finding(CRITICAL, "absent", "Its volumes are here, and no container of it.")
    left = stack["unfinished"] or {}
    for each in stack["containers"]:
        if each["state"] != "running":
            level = NOTE if left.get("running") else CRITICAL  # an operation that is under way stops or pauses it
            yield finding(level, "not_running", f"The container {each['name']} is {each['state']}.")
        elif each["health"] == "unhealthy":
            yield finding(CRITICAL, "unhealthy", f"The container {each['name']} is unhealthy.")
        elif each["health"] == "starting":
            yield finding(NOTE, "starting", f"The container {each['name']} is starting.")


def _volumes(stack: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for volume in stack["volumes"]:
        name, store = volume["name"], volume["store"] or {}
        if volume["problem"]:
            yield finding(WARNING, "volume_unreadable", f"The volume {name}: {volume['problem']}")
        for place in volume["misplaced"] or ():
            yield finding(
                CRITICAL,
                "misplaced",
                f"The volume {name} is mounted at {place['destination']} in {place['container']}, which writes to "
                f"{place['expected']}: its data is not on this volume.",
            )
        if store.get("health") == "damaged":
            told = " ".join(store.get("findings") or ())
            yield finding(CRITICAL, "store_damaged", f"The store in the volume {name} is damaged. {told}".strip())


def _space(stack: Mapping[str, Any], limits: Limits) -> Iterator[dict[str, Any]]:
    for place in stack["filesystems"]:
        where, percent, days = place["mount_point"], place["free_percent"], place["full_in_days"]
        if percent is not None and limits.min_free_percent and percent < limits.min_free_percent:
            level = CRITICAL if percent < _NEARLY_FULL else WARNING
            yield finding(level, "low_space", f"The file system at {where} is nearly full.")
        elif days is not None and limits.full_in_days and days < limits.full_in_days:
            yield finding(WARNING, "full_soon", f"The file system at {where} will soon be full if this goes on.")


def _schedule(stack: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    timers = {kind: timer for kind, timer in stack["schedule"].items() if timer}
    backup = timers.get("backup")
    if backup and stack["settings"] and not backup["active"]:
        yield finding(WARNING, "no_timer", "No timer takes its backups (backup_schedule).")
    for kind, timer in sorted(timers.items()):
        told = _failure(stack, kind)  # says more
        if timer["result"] != "success" and not told:
            unit = f"openmemory-stack-{kind}@{stack['project']}.service"
            yield finding(CRITICAL, "run_failed", f"The last run of {unit} failed ({timer['result']}).")


def _is_there(stack: Mapping[str, Any]) -> bool:
    return bool(stack["containers"] or stack["volumes"])


def percent_free(filesystem: Mapping[str, Any]) -> float | None:
    """How much of a file system is free, where that is known."""
    free, total = number(filesystem.get("free_bytes")), number(filesystem.get("total_bytes"))
    return None if free is None or not total else round(100 * free / total, 1)
