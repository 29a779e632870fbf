# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table that status.yml prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DOCUMENTATION = """
name: status_table
short_description: A table of hosts and their volumes for people
version_added: 0.1.0
author: The openmemory.stack developers (@openmemory)
description:
  - Turns what M(openmemory.stack.volume_info) returned on each host into one aligned table, a line for each volume.
  - A host that gave no answer has a line that says why.
  - What wants attention, such as a backup that failed, is said below.
positional: _input
options:
  _input:
    description:
      - A list with a dictionary for each host.
      - V(host) is its name; V(volumes) the list RV(openmemory.stack.volume_info#module:volumes); V(containers) the list
        of its containers with V(name), V(state) and V(health); V(problem) is a sentence where there is no answer.
      - V(backup) is what C(openmemory-stack status --json) printed there, if it was asked. A second table then tells of
        the backups.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = """
- name: Print one host's volumes
  ansible.builtin.debug:
    msg: "{{ [{'host': inventory_hostname, 'volumes': found.volumes}] | openmemory.stack.status_table }}"
"""

RETURN = """
_value:
  description: The table, lines joined by newlines.
  type: str
"""

BACKUPS = ("HOST", "LAST BACKUP", "SNAPSHOT", "FREEZE", "LAST DRILL", "LAST CHECK", "STATE")
HEADER = ("HOST", "VOLUME", "BACKING", "WHERE", "SIZE", "FREE", "STORE", "HEALTH", "USED BY")


def status_table(hosts: Sequence[Mapping[str, Any]]) -> str:
    """The aligned table of the hosts' volumes; columns are as wide as their widest cell."""
    rows: list[tuple[str, ...]] = [HEADER]
    notes: list[str] = []
    for host in hosts:
        name = str(host["host"])
        if host.get("problem"):
            rows.append((name, "-", "-", "-", "-", "-", "-", "no answer", "-"))
            notes.append(f"{name}: {host['problem']}")
            continue
        health = {str(c["name"]): _state(c) for c in host.get("containers") or []}
        volumes = host.get("volumes") or []
        if not volumes:
            rows.append((name, "no volumes", "-", "-", "-", "-", "-", "-", "-"))
        for volume in volumes:
            rows.append((name, *_cells(volume, health)))
            notes.extend(f"{name}: {volume['name']}: {note}" for note in _notes(volume))
    lines = _aligned(rows)
    backups = [(str(host["host"]), host["backup"]) for host in hosts if "backup" in host and not host.get("problem")]
    if backups:
        lines += ["", *_aligned([BACKUPS, *((name, *_backup(told)) for name, told in backups)])]
        notes += [
            f"{name}: {said}" for name, told in backups for said in [*_moved(told), *(told.get("attention") or [])]
        ]
    return "\n".join(lines + (["", *notes] if notes else []))


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _backup(told: Mapping[str, Any]) -> tuple[str, ...]:
    if "last" not in told:
        return ("-", "-", "-", "-", "-", "no role backup" if not told else "no answer")
    last = told["last"].get("backup") or {}
    freeze = last.get("freeze_s")
    return (
        _minute(last),
        str(last.get("snapshot_id", "-"))[:8],
        "-" if freeze is None else f"{freeze:.2f} s",
        _minute(told["last"].get("drill") or {}),
        _minute(told["last"].get("check") or {}),
        "ATTENTION" if told.get("attention") else "moved away" if told.get("retired") else "good",
    )


def _moved(told: Mapping[str, Any]) -> list[str]:
    moved = told.get("retired")
    return [f"moved to {moved['target']} at {_minute({'created': moved['at']})}; what is here is old"] if moved else []


def _minute(record: Mapping[str, Any]) -> str:
    """2026-11-26 02:31Z"""
    return f"{record['created'][:16].replace('T', ' ')}Z" if record.get("created") else "-"


def _cells(volume: Mapping[str, Any], health: Mapping[str, str]) -> tuple[str, ...]:
    store = volume.get("store") or {}
    free = (volume.get("filesystem") or {}).get("free_bytes")
    users = [f"{c['name']} ({health.get(str(c['name'])) or c.get('state')})" for c in volume.get("containers") or []]
    return (
        str(volume["name"]),
        str(volume.get("backing") or "-"),
        str(volume.get("device") or "(Docker)"),
        _size(volume),
        _bytes(free),
        " ".join(str(part) for part in (store.get("kind"), store.get("version")) if part) or "-",
        str(store.get("health") or "-").replace("unknown", "-"),
        ", ".join(users) or "nobody",
    )


def _size(volume: Mapping[str, Any]) -> str:
    if volume.get("empty"):
        return "empty"
    text = _bytes(volume.get("allocated_bytes", volume.get("size_bytes")))
    return text if text == "-" or volume.get("size_complete", True) else f"over {text}"


def _notes(volume: Mapping[str, Any]) -> list[str]:
    notes = [str(volume["problem"])] if volume.get("problem") else []
    for place in volume.get("misplaced") or []:
        notes.append(
            f"mounted at {place['destination']} in {place['container']}, which writes to {place['expected']}: "
            "its data is not on this volume"
        )
    return notes


def _state(container: Mapping[str, Any]) -> str:
    state, health = container.get("state"), container.get("health")
    return f"{state}, {health}" if health and health != "none" else str(state)


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"status_table": status_table}
