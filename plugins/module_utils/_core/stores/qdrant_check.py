# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of a copy of Qdrant's storage: what its files must be for the server to load them.

Only small files are read. Whether every point is there, only a server on the copy can say (proof/probe.py).
"""

from __future__ import annotations

import json
import os

from . import qdrant
from .checked import CheckResult
from .plain_file import plain

_MOST_FINDINGS = 10


def check(path: str, scratch: str, level: str = "full") -> CheckResult:
    """Check the structure of a copy; nothing waits for another moment here, as nothing writes to it."""
    result = CheckResult(qdrant.KIND)
    found = qdrant.look(path)
    if found is None:
        result.damaged("there are no collections of Qdrant in it.")
        return result
    for finding in found.findings:
        result.damaged(finding)
    for name in found.details["collections"]:
        collection = os.path.join(path, "collections", name)
        if os.path.isfile(os.path.join(collection, "config.json")):
            _config(os.path.join(collection, "config.json"), f"collection {name}", result)
        shards = [shard for shard in _directories(collection) if _is_shard(os.path.join(collection, shard))]
        if not shards:
            _note(result, f"collection {name} has no shard: its points are gone.")
        for shard in shards:
            _check_shard(os.path.join(collection, shard), f"{name}/{shard}", result)
    return result


def _check_shard(shard: str, label: str, result: CheckResult) -> None:
    if not os.path.isdir(os.path.join(shard, "segments")):
        _note(result, f"shard {label} has no segments directory.")
        return
    complete = 0
    for name in _directories(os.path.join(shard, "segments")):
        segment = os.path.join(shard, "segments", name)
        if name.endswith(".deleted") or not os.path.isfile(os.path.join(segment, "version.info")):
            continue  # the server skips it as well
        complete += 1
        present = set(os.listdir(segment))
        if "CURRENT" in present:
            continue  # RocksDB, as before Qdrant 1.16: it may hold vectors and payloads itself
        if not any(part.startswith("vector_storage") for part in present) and _has_vectors(segment):
            _note(result, f"segment {label}/{name} has no vector_storage.")
        if not any(part.startswith("payload_storage") for part in present):
            _note(result, f"segment {label}/{name} has no payload_storage.")
    if not complete:
        _note(result, f"shard {label} has no complete segment: its points are gone.")
    wal = os.path.join(shard, "wal")
    if os.path.isdir(wal) and not any(name.startswith(("open-", "closed-")) for name in os.listdir(wal)):
        _note(result, f"shard {label} has an empty write-ahead log (wal).")


def _has_vectors(segment: str) -> bool:
    try:
        with open(os.path.join(segment, "segment.json"), encoding="utf-8", opener=plain) as stream:
            config = json.load(stream).get("config") or {}
    except (OSError, ValueError, AttributeError, RecursionError):
        return False  # reported by qdrant.look
    return bool(config.get("vector_data"))


def _config(file: str, label: str, result: CheckResult) -> None:
    try:
        with open(file, encoding="utf-8", opener=plain) as stream:
            whole = isinstance(json.load(stream), dict)
    except (OSError, ValueError, RecursionError):
        whole = False
    if not whole:
        _note(result, f"{label} has an unreadable config.json: Qdrant does not start with it.")


def _is_shard(path: str) -> bool:
    return os.path.basename(path).isdigit() or os.path.isdir(os.path.join(path, "segments"))


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(name for name in names if not name.startswith("."))


def _note(result: CheckResult, finding: str) -> None:
    if len(result.findings) < _MOST_FINDINGS:
        result.damaged(finding)
