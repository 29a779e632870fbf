# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model of a fleet's report: a pure function of what the hosts answered, the time and the limits.

The page shows it and the JSON file is it. `format` is raised when a name goes or means something else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_findings import (
    CRITICAL,
    NOTE,
    WARNING,
    Limits,
    finding,
    findings,
    percent_free,
)
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_shape import ANSWER, ShapeError, fit
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_text import clean, iso, moment, number, text

FORMAT = 1
STATUSES = ("unreachable", "failed", "critical", "warning", "ok")  # worst first
# What moves by itself, and so is no change of the fleet.
VOLATILE = frozenset(
    {"generated", "now", "age_s", "next", "size_bytes", "allocated_bytes", "files", "size_complete", "free_bytes"}
    | {"total_bytes", "free_percent", "full_in_days", "data_bytes", "oldest_newest_s"}
)
_DAY_S = 86400.0
_NO_RESULT = ("MODULE FAILURE", "Module result deserialization failed")  # what went wrong is in the module's output
_PREFIX = re.compile(
    r"^(Task failed: |Failed to connect to the host via ssh: (?=ssh: )"
    r"|Data could not be sent to remote host \S+ Make sure this .* over ssh: )+"
)


def fleet_model(
    hosts: Sequence[Mapping[str, Any]], now: datetime, title: str = "", limits: Limits | None = None, look: str = ""
) -> dict[str, Any]:
    """{format, title, generated, state, limits, summary, findings, hosts}, hosts and findings worst first.

    hosts: [{host, result}], result being what stack_info returned there or, where it gave no answer, what Ansible says
    of that. look: what the page is made with. state: a hash that stays the same as long as nothing but times, ages,
    live sizes and free space changes.
    """
    asked = limits or Limits()
    told = sorted((_host(each, now, asked) for each in hosts), key=_worst_first)
    model = {
        "format": FORMAT,
        "title": text(title),
        "generated": iso(now),
        "limits": vars(asked),
        "look": look,
        "summary": _summary(told),
        "findings": _all_findings(told),
        "hosts": told,
    }
    return {**model, "state": fingerprint(model)}


def fingerprint(model: Mapping[str, Any]) -> str:
    """A hash over all that does not move by itself."""
    return hashlib.sha256(json.dumps(_lasting(model), sort_keys=True).encode()).hexdigest()


def outline(model: Mapping[str, Any]) -> str:
    """The status of each host with its findings, a line each, in the order of the hosts' names; for a diff."""
    lines = []
    for host in sorted(model.get("hosts") or (), key=lambda each: _natural(each["name"])):
        lines.append(f"{host['name']}: {host['status']}{': ' + host['problem'] if host['problem'] else ''}")
        for stack in host["stacks"]:
            newest = (stack["snapshots"] or {}).get("newest") or {}
            lines.append(f"{host['name']} {stack['project']}: {stack['status']}, snapshot {newest.get('id') or 'none'}")
            lines += [f"{host['name']} {stack['project']}: {each['message']}" for each in stack["findings"]]
    return "".join(f"{line}\n" for line in lines)


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lasting(inner) for key, inner in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    return value


def _host(answer: Mapping[str, Any], now: datetime, limits: Limits) -> dict[str, Any]:
    name, result = text(str(answer["host"])), answer.get("result")
    found: dict[str, Any] = {"name": name, "status": "failed", "problem": None, "host": None, "now": None, "stacks": []}
    if not isinstance(result, Mapping):
        return {**found, "problem": "It was not asked."}
    if result.get("unreachable"):
        return {**found, "status": "unreachable", "problem": sentence(result)}
    if not isinstance(result.get("stacks"), Sequence):
        return {**found, "problem": sentence(result)}
    try:
        answered = fit(clean(result), ANSWER)
        clock = moment(answered["now"]) or now
        stacks = [_stack(each, clock, limits) for each in answered["stacks"]]
    except ShapeError as error:
        why = f"What it answered cannot be understood ({error}): see that it runs the same version of openmemory.stack."
        return {**found, "problem": text(why)}
    stacks.sort(key=lambda stack: (STATUSES.index(stack["status"]), _natural(stack["project"])))
    status = stacks[0]["status"] if stacks else "warning"
    problem = None if stacks else "There is no stack on this host."
    return {
        **found,
        "status": status,
        "problem": problem,
        "host": answered["host"],
        "now": iso(clock),
        "stacks": stacks,
    }


def sentence(result: Mapping[str, Any]) -> str:
    """Why there is no answer, in one line."""
    if result.get("timedout"):
        return "It gave no answer in time (report_timeout)."
    said = str(result.get("msg") or "It failed and did not say why.")
    if said.startswith(_NO_RESULT):
        lines = [
            line for name in ("module_stderr", "module_stdout") for line in str(result.get(name) or "").splitlines()
        ]
        said = next((line for line in reversed(lines) if line.strip()), said)
    return text(_PREFIX.sub("", text(said)))


def _stack(answered: Mapping[str, Any], now: datetime, limits: Limits) -> dict[str, Any]:
    stack = {
        "project": answered["project"],
        "settings": answered["settings"],
        "containers": answered["containers"],
        "repository": answered["repository"],
        "copies": [_aged(each, now, "success") for each in answered["copies"]],
        "snapshots": _snapshots(answered["snapshots"], now),
        "last": {kind: _aged(entry, now) if entry else None for kind, entry in answered["last"].items()},
        "unfinished": answered["unfinished"],
        "kept": answered["kept"],
        "moved": answered["moved"],
        "schedule": answered["schedule"] or dict.fromkeys(("backup", "drill", "check")),
        "problems": answered["problems"],
    }
    points = _points(answered["snapshots"])
    stack["volumes"] = [{**each, "growth": growth(_series(points, each["name"]))} for each in answered["volumes"]]
    stack["filesystems"] = _filesystems(stack["volumes"])
    stack["growth"] = growth([(at, _total(point)) for at, point in points])
    stack["freezes"] = [
        {"time": point["time"], "seconds": seconds, "way": point["way"]}
        for _at, point in points
        if (seconds := number(point["freeze_s"])) is not None
    ]
    sizes = [number(each.get("allocated_bytes")) for each in stack["volumes"]]
    stack["data_bytes"] = int(sum(each or 0 for each in sizes)) if any(each is not None for each in sizes) else None
    stack["findings"] = findings(stack, now, limits)
    levels = {each["level"] for each in stack["findings"]}
    stack["status"] = next((level for level in (CRITICAL, WARNING) if level in levels), "ok")
    return stack


def _snapshots(found: Mapping[str, Any] | None, now: datetime) -> dict[str, Any] | None:
    if found is None:
        return None
    newest = found["newest"]
    told = {name: found[name] for name in ("count", "oldest", "unread", "damaged")}
    return {**told, "newest": _aged(newest, now, "time") if newest else None}


def _aged(entry: Mapping[str, Any], now: datetime, name: str = "created") -> dict[str, Any]:
    at = moment(entry.get(name))
    return {**entry, "age_s": round((now - at).total_seconds()) if at else None}


def _points(snapshots: Mapping[str, Any] | None) -> list[tuple[int, Mapping[str, Any]]]:
    """The snapshots of the history with their times, oldest first."""
    timed = [(moment(point["time"]), point) for point in (snapshots or {}).get("points") or ()]
    return sorted(((int(at.timestamp()), point) for at, point in timed if at), key=lambda pair: pair[0])


def _series(points: Iterable[tuple[int, Mapping[str, Any]]], volume: str) -> list[tuple[int, int]]:
    found = ((at, number(point["volumes"].get(volume))) for at, point in points)
    return [(at, int(held)) for at, held in found if held is not None]


def _total(point: Mapping[str, Any]) -> int:
    return int(sum(number(held) or 0 for held in point["volumes"].values()))


def growth(series: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """{points: [[epoch, bytes]], per_day}: bytes a day by least squares, None for less than three points or a day."""
    points = sorted(series)
    return {"points": [list(point) for point in points], "per_day": _slope(points)}


def _slope(points: Sequence[tuple[int, int]]) -> int | None:
    if len(points) < 3 or points[-1][0] - points[0][0] < _DAY_S:
        return None
    days = [(at - points[0][0]) / _DAY_S for at, _held in points]
    middle, height = sum(days) / len(days), sum(held for _at, held in points) / len(points)
    spread = sum((each - middle) ** 2 for each in days)
    return round(sum((each - middle) * (held - height) for each, (_at, held) in zip(days, points)) / spread)


def _filesystems(volumes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those that the volumes lie on, with how much is free and, as the volumes grow, for how many days."""
    found: dict[str, dict[str, Any]] = {}
    for volume in volumes:
        about = volume["filesystem"]
        if not about or not about.get("mount_point"):
            continue
        place = found.setdefault(about["mount_point"], {**about, "per_day": 0, "free_percent": percent_free(about)})
        place["per_day"] += volume["growth"]["per_day"] or 0
    for place in found.values():
        free, per_day = number(place.get("free_bytes")), place.pop("per_day")
        place["full_in_days"] = round(free / per_day, 1) if free is not None and per_day > 0 else None
    return [found[name] for name in sorted(found)]


def _summary(hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    stacks = [stack for host in hosts for stack in host["stacks"]]
    by_status = Counter(host["status"] for host in hosts)
    newest = [(stack["snapshots"] or {}).get("newest") for stack in stacks]
    ages = [each["age_s"] for each in newest if each and each["age_s"] is not None]
    return {
        "hosts": len(hosts),
        "by_status": {status: by_status[status] for status in STATUSES},
        "stacks": len(stacks),
        "volumes": sum(len(stack["volumes"]) for stack in stacks),
        "snapshots": sum((stack["snapshots"] or {}).get("count") or 0 for stack in stacks),
        "data_bytes": sum(stack["data_bytes"] or 0 for stack in stacks),
        "stored_bytes": int(sum(number((stack["repository"] or {}).get("stored_bytes")) or 0 for stack in stacks)),
        "oldest_newest_s": max(ages) if ages else None,
    }


def _all_findings(hosts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is wrong in the fleet, worst first, each with host and project (None where it is the host itself)."""
    found = []
    for host in hosts:
        if host["problem"]:
            level = WARNING if host["status"] == "warning" else CRITICAL
            code = "no_stack" if level == WARNING else host["status"]
            found.append({"host": host["name"], "project": None, **finding(level, code, host["problem"])})
        for stack in host["stacks"]:
            wrong = (each for each in stack["findings"] if each["level"] != NOTE)
            found += [{"host": host["name"], "project": stack["project"], **each} for each in wrong]
    ranks = {"unreachable": 0, "failed": 1}
    return sorted(found, key=lambda each: (each["level"] != CRITICAL, ranks.get(each["code"], 2)))


def _worst_first(host: Mapping[str, Any]) -> tuple[int, int, list[Any]]:
    wrong = sum(each["level"] == CRITICAL for stack in host["stacks"] for each in stack["findings"])
    return STATUSES.index(host["status"]), -wrong, _natural(host["name"])


def _natural(name: str) -> list[Any]:
    """lab2 before lab10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]
