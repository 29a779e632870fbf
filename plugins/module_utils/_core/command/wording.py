# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How figures are worded for people, on a terminal and in Ansible's output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ..byte_sizes import show_bytes

_OPTION = re.compile(r"\b([a-z]+(?:_[a-z]+)*): ([^\s,;()]+?)(?=[.,;)]?(?:\s|$))")
_SWITCHES = {
    ("become", "true"): "sudo",
    ("target", "new"): "--new",
    ("safety", "false"): "--no-safety",
    ("start", "false"): "--no-start",
    ("check_census", "false"): "--no-census",
    ("snapshot", "none"): "--no-snapshot",
}
_KNOWN = {"force", "probe", "export", "compare", "ignore_versions", "set_password", "from_project", "verify"}
_KNOWN |= {"quiesce", "capture", "staging", "confirm"}


def for_command_line(sentence: str) -> str:
    """The core speaks of options as a playbook has them ("set force: true"); the same as they are typed here."""

    def typed(match: re.Match[str]) -> str:
        name, value = match.groups()
        if (name, value) in _SWITCHES:
            return _SWITCHES[name, value]
        if name not in _KNOWN:
            return match.group()
        option = f"--{name.replace('_', '-')}"
        return option if value == "true" else f"{option} {value}"

    told = _OPTION.sub(typed, sentence.replace("set init: true", "run openmemory-stack init"))
    return re.sub(r"\b([Ss])et (?=--)", lambda match: "Give " if match.group(1) == "S" else "give ", told)


def duration(seconds: float) -> str:
    """For people: 0.21 s (of a float), 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 10 and not isinstance(seconds, int):
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    raise AssertionError(whole)


def phases_done(phases: Sequence[Mapping[str, Any]]) -> str:
    """Entries of phases_done of a progress file, in one line."""
    return ", ".join(f"{phase['name']} took {duration(float(phase['seconds']))}" for phase in phases)


def phase_now(progress: Mapping[str, Any]) -> str:
    """The phase under way, with bytes, rate and time left where they are known."""
    done, total, rate, left = (progress.get(name) for name in ("bytes", "total_bytes", "rate", "eta_s"))
    parts = [str(progress["phase"])]
    if total:
        parts[0] += f" {show_bytes(done or 0)} of {show_bytes(total)} ({min(100, 100 * (done or 0) // total)} %)"
    elif done:
        parts[0] += f" {show_bytes(done)}"
    if rate:
        parts.append(f"{show_bytes(round(rate))}/s")
    if left is not None and total:
        parts.append(f"{duration(max(1, round(left)))} left" if left >= 1 else "nearly done")
    return ", ".join(parts)


def age(moment: datetime, now: datetime | None = None) -> str:
    """How long ago an aware moment was."""
    return duration(max(0, round(((now or datetime.now(timezone.utc)) - moment).total_seconds())))


def census(found: Mapping[str, Any] | None) -> str:
    """What a store holds: "memories 1204 points", "12 rows in 3 tables", "40 nodes, 38 relationships"."""
    if not found:
        return "not counted"
    if "tables" in found:
        rows = [count for count in found["tables"].values() if isinstance(count, int)]
        return f"{sum(rows)} rows in {len(found['tables'])} tables"
    if "collections" in found:
        return ", ".join(f"{name} {_count(count)} points" for name, count in sorted(found["collections"].items())) or (
            "no collections"
        )
    if "nodes" in found:
        return f"{_count(found['nodes'])} nodes, {_count(found.get('relationships'))} relationships"
    return ", ".join(f"{name} {_count(count)}" for name, count in sorted(found.items()))


def _count(count: Any) -> str:
    if isinstance(count, (list, tuple)) and len(count) == 2:
        return str(count[0]) if count[0] == count[1] else f"{count[0]} to {count[1]}"
    return "?" if count is None else str(count)


def table(rows: list[tuple[str, ...]]) -> str:
    """Aligned columns; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
