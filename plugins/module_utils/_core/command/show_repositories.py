# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The texts about several repositories: what went into the far ones, what retention removes, what wants attention."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ..byte_sizes import show_bytes
from ..operation.last import moment as _moment
from .wording import age, duration, table


def copies(result: Mapping[str, Any], warnings: bool = True) -> str:
    """A line for each far repository; "" without one."""
    rows: list[tuple[str, ...]] = [("COPY", "COPIED", "WRITTEN", "TOOK", "REMOVED", "")]
    for each in result.get("copies") or ():
        rows.append(
            (
                each["name"],
                str(len(each["copied"])),
                show_bytes(each["bytes"]),
                duration(float(each["seconds"])),
                str(len(each["removed"])),
                "complete" if each["ok"] else "FAILED",
            )
        )
    if len(rows) == 1:
        return ""
    return "\n".join([table(rows), *(_warnings(result) if warnings else ())])


def forget(project: str, result: Mapping[str, Any], dry_run: bool) -> str:
    """What retention removes, a table for each repository."""
    lines: list[str] = []
    for each in result["repositories"]:
        going, kept = each["removed"], each["kept"]
        would = "would be removed" if dry_run else "removed"
        count = f"{len(going)} of {len(going) + len(kept)} snapshots of {project}"
        lines.append(f"{each['name']}, {each['repository']}: {count} {would}")
        if going:
            rows: list[tuple[str, ...]] = [("  ID", "TIME", "VERIFIED", "TAGS")]
            for snapshot in going:
                moment = _moment(snapshot["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
                tags = [*(["safety"] if snapshot["safety"] else []), *snapshot["tags"]]
                rows.append((f"  {snapshot['short_id']}", moment, snapshot["verified"], " ".join(tags) or "-"))
            lines.append(table(rows))
    if dry_run and result["changed"]:
        lines.append("Nothing was done; to do it, leave --dry-run out.")
    return "\n".join([*lines, *_warnings(result)])


def status(last: Mapping[str, Any]) -> list[str]:
    """A line for each far repository that was filled from this host."""
    found = (last.get("copies") or {}).get("repositories") or {}
    return [f"  copy          {name}: {_success(about)}" for name, about in sorted(found.items())]


def attention(last: Mapping[str, Any], max_age_s: float | None, now: datetime) -> list[str]:
    """Sentences on far repositories that lack something."""
    record = last.get("copies") or {}
    said = []
    for name, about in sorted((record.get("repositories") or {}).items()):
        if not about["ok"]:
            ago = age(_moment(record["created"]), now)
            said.append(f"The copy to {name}, {ago} ago, failed: {about['error']}")
        elif max_age_s is not None and now - _moment(about["success"]) > timedelta(seconds=max_age_s):
            said.append(f"The last copy to {name} is {age(_moment(about['success']), now)} old.")
    return said


def _success(about: Mapping[str, Any]) -> str:
    if not about["success"]:
        return "never complete yet"
    moment = _moment(about["success"])
    return f"complete {moment.astimezone():%Y-%m-%d %H:%M:%S}, {age(moment)} ago"


def _warnings(result: Mapping[str, Any]) -> list[str]:
    return [f"Warning: {warning}" for warning in result.get("warnings") or ()]
