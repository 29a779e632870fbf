# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of hosts as stack_info gives them, for the tests of the report, and a fleet of any size."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
MIB = 1024**2
STORES = {"openmemory_data": ("sqlite", 40), "qdrant_storage": ("qdrant", 300), "neo4j_data": ("neo4j", 160)}


def iso(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat(timespec="seconds")


def volume(name: str, size_bytes: int = 40 * MIB, **more: Any) -> dict[str, Any]:
    place = {"type": "ext4", "mount_point": "/", "free_bytes": 80_000 * MIB, "total_bytes": 200_000 * MIB}
    store = {"kind": "sqlite", "version": None, "health": "ok", "findings": []}
    about = {"name": name, "backing": "managed", "driver": "local", "device": None, "filesystem": place, "empty": False}
    about |= {"problem": None, "orphaned": False, "misplaced": [], "store": store, "size_bytes": size_bytes}
    return {**about, "allocated_bytes": size_bytes, "files": 12, "size_complete": True, **more}


def copy_to(name: str, **more: Any) -> dict[str, Any]:
    """A far repository that has all."""
    about = {"name": name, "location": f"s3:https://s3.example.com/{name}", "ok": True, "error": None}
    return {**about, "tried": iso(hours=5), "success": iso(hours=5), **more}


def container(service: str, state: str = "running", health: str = "healthy") -> dict[str, Any]:
    return {"name": f"openmemory-{service}-1", "service": service, "image": service, "state": state, "health": health}


def points(days: int, seed: int = 0, prefix: str = "openmemory_") -> list[dict[str, Any]]:
    """A snapshot a day, oldest first, that grows, now and then by much."""
    found = []
    for number in range(days):
        held = {
            prefix + name: int(MIB * size * (0.55 + 0.45 * number / days + 0.05 * math.sin(number + seed + size)))
            for name, (_kind, size) in STORES.items()
        }
        way = "two_pass" if (number + seed) % 7 == 3 else "single"
        freeze = 0.08 + 0.04 * abs(math.sin(1.7 * number + seed)) + (0.16 if way == "two_pass" else 0)
        at = iso(days=days - 1 - number, hours=5.4)
        found.append(
            {
                "id": f"{number:08x}",
                "time": at,
                "freeze_s": round(freeze, 4),
                "way": way,
                "seconds": 4.2,
                "volumes": held,
            }
        )
    return found


def stack(project: str = "openmemory", days: int = 24, seed: int = 0, **more: Any) -> dict[str, Any]:
    """One that is well, but for what is given."""
    history = points(days, seed, f"{project}_")
    last = history[-1] if history else None
    newest = None
    if last:
        held = {
            name: {"store": "sqlite", "holds": "1204 rows in 3 tables", "checked": "quick"} for name in last["volumes"]
        }
        newest = {"id": "5f0c2a9b", "time": last["time"], "way": last["way"], "verified": "quick", "partial": ""}
        newest |= {"age_s": 19440, "freeze_s": last["freeze_s"], "volumes": held}
    volumes = [
        volume(
            f"{project}_{name}",
            int(size * MIB * 0.99),
            store={"kind": kind, "version": None, "health": "ok", "findings": []},
        )
        for name, (kind, size) in STORES.items()
    ]
    return {
        "project": project,
        "settings": True,
        "containers": [container("openmemory-mcp"), container("qdrant"), container("neo4j")],
        "volumes": volumes,
        "repository": {"location": f"/var/backups/openmemory/{project}", "stored_bytes": 310 * MIB, "snapshots": days},
        "copies": [],
        "snapshots": {
            "count": days,
            "newest": newest,
            "oldest": history[0]["time"] if history else None,
            "points": history,
            "unread": 0,
            "damaged": [],
        },
        "last": {
            "backup": {"created": iso(hours=5.4), "snapshot_id": "5f0c2a9b" * 8, "freeze_s": 0.1, "verify": "quick"},
            "drill": {"created": iso(days=3), "snapshot_id": "5f0c2a9b" * 8, "seconds": 41.3, "memories": 1204},
        },
        "unfinished": None,
        "kept": [],
        "moved": None,
        "schedule": {
            "backup": {"active": True, "next": iso(hours=-18), "result": "success"},
            "drill": {"active": False, "next": None, "result": "success"},
        },
        "problems": [],
        **more,
    }


def answer(name: str, *stacks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a host said that was reached."""
    result = {"changed": False, "host": name, "now": NOW.isoformat(timespec="seconds"), "stacks": list(stacks), **more}
    return {"host": name, "result": result}


def unreachable(name: str) -> dict[str, Any]:
    said = (
        "Task failed: Failed to connect to the host via ssh: ssh: connect to host 192.0.2.7 port 22: Connection refused"
    )
    return {"host": name, "result": {"unreachable": True, "msg": said}}


def failed(name: str, message: str) -> dict[str, Any]:
    return {"host": name, "result": {"failed": False, "msg": message, "changed": False}}


def fleet(size: int) -> list[dict[str, Any]]:
    """Hosts of which some are in every kind of trouble."""
    hosts = []
    for number in range(size):
        name = f"memory-{number + 1}.example.com"
        if number % 50 == 7:
            hosts.append(unreachable(name))
        elif number % 50 == 11:
            hosts.append(failed(name, "sudo: a password is required"))
        elif number % 20 == 3:
            hosts.append(answer(name, stale(number)))
        else:
            hosts.append(answer(name, stack(seed=number)))
    return hosts


def stale(seed: int = 0) -> dict[str, Any]:
    """A stack whose newest snapshot is three days old, as its backups fail."""
    found = stack(seed=seed)
    found["snapshots"]["points"] = found["snapshots"]["points"][:-3]
    found["snapshots"]["newest"] |= {"time": found["snapshots"]["points"][-1]["time"]}
    found["last"]["backup"]["created"] = found["snapshots"]["points"][-1]["time"]
    found["last"]["backup_failed"] = {
        "created": iso(hours=5.4),
        "message": "rest:https://backup.example.com/memory refuses the login: correct backup_environment.",
    }
    return found
