# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The texts that the command prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ..byte_sizes import show_bytes
from ..operation.last import moment as _moment
from ..operation.last import outcome
from . import show_repositories
from .wording import age, census, duration, phase_now, table


def backup(project: str, result: Mapping[str, Any]) -> str:
    """The summary of a backup; in a dry run, what would be done."""
    if not result.get("snapshot_id"):
        return actions(result, "Nothing would be done.")
    volumes = result["volumes"]
    lines = [
        f"Snapshot {result['snapshot_id'][:8]} of the stack {project}, {len(volumes)} volumes",
        f"  writes blocked  {duration(float(result['freeze_s']))} ({result['way'].replace('_', '-')})",
        _taken(result),
        f"  newly stored    {show_bytes(result['bytes_stored'])}",
        f"  took            {_timings(result['timings'])}",
        "",
        _volumes(volumes),
    ]
    if result.get("copies"):
        lines += ["", show_repositories.copies(result, warnings=False)]
    removed = result.get("removed") or []
    if removed:
        lines += ["", f"Removed as no longer kept: {', '.join(identity[:8] for identity in removed)}"]
    return "\n".join(lines + _warnings(result))


def _taken(result: Mapping[str, Any]) -> str:
    """How much was copied, or shared and not read."""
    if result["way"] == "reflink":
        return f"  shared          {show_bytes(result['bytes_changed'])}"
    return f"  read            {show_bytes(result['bytes_read'])}"


def restore(project: str, result: Mapping[str, Any]) -> str:
    """The summary of a restore, or of its undoing; in a dry run, what would be done."""
    lines = [actions(result, "Nothing was to be done.")]
    if result.get("downtime_s"):
        lines.append(f"The stack {project} was down for {duration(float(result['downtime_s']))}.")
    kept = result.get("kept") or []
    if kept:
        lines.append(
            f"What was replaced is kept until {_minute(kept[0]['until'])}; 'openmemory-stack undo' swaps it back."
        )
    return "\n".join(lines)


def drill(project: str, result: Mapping[str, Any]) -> str:
    """The summary of a drill."""
    lines = [f"The snapshot {str(result['snapshot_id'])[:8]} of the stack {project} can be restored."]
    lines += [f"  {action}" for action in result.get("actions") or ()]
    return "\n".join(lines + _warnings(result))


def purge(project: str, result: Mapping[str, Any]) -> str:
    """The summary of a purge; in a dry run, what would be done."""
    lines = [actions(result, "Nothing was to be done.")]
    if not result["changed"]:
        return lines[0]
    lines.append("Repositories, their passwords and images stay.")
    if result.get("snapshot_id"):
        lines.append(f"The snapshot {result['snapshot_id'][:8]} brings the data of the stack {project} back.")
    return "\n".join(lines)


def actions(result: Mapping[str, Any], nothing: str) -> str:
    """What was done, a line each."""
    return "\n".join([*(result.get("actions") or [nothing]), *_warnings(result)])


def snapshots(project: str, found: Mapping[str, Any], total: int) -> str:
    """The table of snapshots, newest first. total is how many there are, shown or not."""
    repository = found["repository"]
    where = f"{show_bytes(repository['size_bytes'])} at {repository['location']}"
    if not total:
        return f"The stack {project} has no snapshot in this repository ({where})."
    rows: list[tuple[str, ...]] = [("ID", "TIME", "AGE", "FREEZE", "VERIFIED", "HOLDS", "TAGS")]
    problems = []
    for each in found["snapshots"]:
        moment = _moment(each["time"])
        manifest = each.get("manifest")
        if each.get("manifest_problem"):
            problems.append(str(each["manifest_problem"]))
        tags = [*(["safety"] if each["safety"] else []), *each["tags"]]
        rows.append(
            (
                each["short_id"],
                moment.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
                age(moment),
                duration(float(manifest["freeze_s"])) if manifest else "?",
                each["verified"] or "?",
                _only(each["partial"]) + (_holds(manifest["volumes"]) if manifest else "?"),
                " ".join(tags) or "-",
            )
        )
    hidden = total - len(found["snapshots"])
    more = f", {hidden} older not shown" if hidden else ""
    return "\n".join(
        [table(rows), "", f"{total} snapshots of {project}{more}; the repository takes {where}.", *problems]
    )


def attention(found: Mapping[str, Any], max_age_s: Mapping[str, float], now: datetime) -> list[str]:
    """Sentences on what somebody should look at. max_age_s: after which an operation's last success is too old.

    Of a stack that was moved to another host no backups are made here any more, and none are missed.
    """
    said = []
    left = found["unfinished"]
    if left and not left["running"]:
        said.append(
            f"A {left['operation']} died in the phase {left['phase']}; 'openmemory-stack recover' puts that right."
        )
    if not found["last"].get("backup") and not found["retired"]:
        said.append("No backup was made from this host yet.")
    for operation, seconds in () if found["retired"] else max_age_s.items():
        last = found["last"].get(operation)
        if last and now - _moment(last["created"]) > timedelta(seconds=seconds):
            said.append(f"The last {operation} is {age(_moment(last['created']), now)} old.")
    for operation in ("backup", "drill", "check", "recover"):
        ended = outcome(found["last"], operation)
        if ended is not None and not ended.ok:
            what = "attempt" if operation == "backup" else operation
            said.append(f"The last {what}, {age(ended.at, now)} ago, failed: {ended.message}")
    for unit in found.get("failed_units") or ():
        said.append(f"systemd lists {unit} as failed; 'journalctl --unit {unit}' says why.")
    undone = [*((found["last"].get("monitoring") or {}).get("problems") or ())]
    undone += found.get("monitoring_problems") or ()
    said += [f"Monitoring: {problem}" for problem in dict.fromkeys(undone)]
    if not found["retired"]:
        said += show_repositories.attention(found["last"], max_age_s.get("backup"), now)
    return said


def status(found: Mapping[str, Any]) -> str:
    """How the stack is kept, in a few lines."""
    lines = [f"Stack {found['project']}, repository {found['repository'] or 'not set'}"]
    moved = found["retired"]
    if moved:
        lines.append(f"  moved         {_minute(moved['at'])}, to {moved['target']}; what is here is old, and stopped")
    last = found["last"].get("backup")
    if last and "snapshot_id" in last:
        lines.append(
            f"  last backup   {_ago(last)}, snapshot {last['snapshot_id'][:8]}, writes blocked "
            f"{duration(float(last['freeze_s']))}, verified: {last['verify']}"
        )
    some = found["last"].get("backup_of_some")
    if some:
        lines.append(f"  of some       {_ago(some)}, snapshot {some['snapshot_id'][:8]}: {', '.join(some['volumes'])}")
    lines += show_repositories.status(found["last"])
    proven = found["last"].get("drill")
    lines.append(
        f"  last drill    {_ago(proven)}" if proven else "  last drill    never ('openmemory-stack drill' makes one)"
    )
    checked = found["last"].get("check")
    if checked:
        lines.append(f"  last check    {_ago(checked)}: the repository was good")
    updated, recovered = found["last"].get("update"), found["last"].get("recovered")
    if updated:
        lines.append(f"  last update   {_ago(updated)}: {', '.join(updated['updated'])}")
    if recovered:
        lines.append(f"  put right     {_ago(recovered)}: {recovered['message']}")
    left = found["unfinished"]
    if left and left["running"]:
        how = f": {phase_now(found['progress'])}" if (found["progress"] or {}).get("phase") else ""
        lines.append(
            f"  under way     {left['operation']}, since {_minute(left['started'])}, process {left['pid']}{how}"
        )
    for operation in sorted({entry["operation"] for entry in found["kept"]}):
        entries = [entry for entry in found["kept"] if entry["operation"] == operation]
        volumes = ", ".join(entry["volume"] for entry in entries)
        by = f"what snapshot {entries[0]['snapshot'][:8]} replaced in" if entries[0]["snapshot"] else "the old place of"
        what = f"{by} {volumes}"
        lines.append(f"  kept          until {_minute(entries[0]['until'])}: {what}")
    return "\n".join([*lines, *(found["attention"] or ["All is well."])])


def convert(project: str, result: Mapping[str, Any]) -> str:
    """What a conversion of volumes has done: the result of the module volume with on_drift: convert."""
    lines = [f"{'Converted' if 'downtime_s' in result else 'Nothing to convert in'} the volumes of {project}"]
    lines += [f"  {action}" for action in result.get("actions") or ()]
    if result.get("downtime_s") is not None:
        lines.append(f"Down for {duration(float(result['downtime_s']))}; {_timings(result['timings'])}")
    lines += [f"Kept until {_minute(entry['until'])}: {entry['path']}" for entry in result.get("kept") or ()]
    return "\n".join(lines)


def migrate(project: str, result: Mapping[str, Any]) -> str:
    """What a migration has done: the result of the module stack_migrate, prepared or migrated."""
    retired = result.get("retired")
    if not retired:
        title = f"Would move the stack {project}"
    elif result.get("cutover_s") is None:
        title = f"The stack {project} was moved to {retired['target']} on {_minute(retired['at'])}"
    else:
        title = f"Moved the stack {project} to {retired['target']}"
    lines = [title, *(f"  {action}" for action in result.get("actions") or ())]
    if result.get("cutover_s") is not None:
        start = duration(float(result["start_s"]))
        lines.append(
            f"Frozen for {duration(float(result['cutover_s']))}, of which its start on the target took {start}"
        )
        lines += [f"  {key}: {census(found)}" for key, found in sorted((result.get("census") or {}).items()) if found]
        if result.get("memories") is not None:
            lines.append(f"  {result['memories']} memories read back through the API")
    return "\n".join(lines)


def update(project: str, result: Mapping[str, Any]) -> str:
    """What an update has done, or in check mode would do: the result of the module stack_update."""
    if not result["updated"]:
        return "\n".join([f"Nothing newer for the stack {project}.", *(result["actions"]), *_warnings(result)])
    lines = [f"  {action}" for action in result["actions"]]
    if result["downtime_s"] is None:
        return "\n".join([f"To be updated in the stack {project}: {', '.join(result['updated'])}", *lines])
    lines.insert(0, f"Updated in the stack {project}: {', '.join(result['updated'])}")
    for name in result["updated"]:
        about = result["services"][name]
        lines.append(f"{name}: {about['before']['digest'] or about['before']['id']}")
        lines.append(f"{' ' * len(name)}  became {about['after']['digest'] or about['after']['id']}")
    lines.append(f"Down for {duration(float(result['downtime_s']))}; {_timings(result['timings'])}")
    lines += [f"Kept until {_minute(entry['until'])}: {entry['path']}" for entry in result["kept"]]
    return "\n".join(lines + _warnings(result))


def _minute(moment: str) -> str:
    return _moment(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _ago(last: Mapping[str, Any]) -> str:
    moment = _moment(last["created"])
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}, {age(moment)} ago"


def _timings(timings: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {duration(float(seconds))}" for name, seconds in timings.items())
    return f"{duration(float(sum(timings.values())))}: {parts}"


def _volumes(volumes: Mapping[str, Mapping[str, Any]]) -> str:
    rows: list[tuple[str, ...]] = [("VOLUME", "STORE", "SIZE", "HOLDS", "CHECK")]
    for key, about in sorted(volumes.items()):
        checked = about.get("check") or {}
        rows.append(
            (
                key,
                " ".join(str(part) for part in (about["store"], about.get("store_version")) if part),
                show_bytes(about["allocated_bytes"]),
                census(about.get("census")),
                f"{checked['level']}: sound" if checked.get("ok") else "not checked",
            )
        )
    return table(rows)


def _holds(volumes: Mapping[str, Mapping[str, Any]]) -> str:
    counted = [census(about["census"]) for _key, about in sorted(volumes.items()) if about.get("census")]
    return "; ".join(counted) or f"{len(volumes)} volumes"


def _only(partial: str) -> str:
    return f"only {partial.replace('+', ', ')}: " if partial else ""


def _warnings(result: Mapping[str, Any]) -> list[str]:
    return [f"Warning: {warning}" for warning in result.get("warnings") or ()]
