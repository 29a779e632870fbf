# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Qdrant's storage directory: collections/NAME/SHARD/segments/ID beside raft_state.json.

A running server makes and drops segments all the time. It writes a segment's version.info last, and skips at its next
start a segment that has none, so only those with one are judged (lib/segment of Qdrant's sources).
"""

from __future__ import annotations

import json
import os

from .container import Container
from .found import Found
from .plain_file import plain

KIND = "qdrant"
OWNER = None  # the image runs as root; its -unprivileged tags as 1000
EXTRA_PATHS = ("/qdrant/snapshots",)
_MOST_FINDINGS = 10


def look(path: str) -> Found | None:
    """The collections in the directory, or None. Only names and small files are read."""
    root = os.path.join(path, "collections")
    if not os.path.isdir(root) or not _is_storage(path, root):
        return None
    found = Found(KIND)
    versions: set[str] = set()
    names = _directories(root)
    segments = 0
    for name in names:
        collection = os.path.join(root, name)
        versions |= _version(collection)
        if not os.path.isfile(os.path.join(collection, "config.json")):
            _note(found, f"collection {name} has no config.json: Qdrant does not load it.")
        for shard in _directories(collection):
            segments += _look_at_segments(os.path.join(collection, shard), f"{name}/{shard}", found, versions)
    products = sorted(version for version in versions if not version.startswith("0."))
    found.version = products[-1] if products else None  # 0.x are the engine's own parts, not Qdrant's version
    found.details = {"collections": names, "segments": segments, "storage_versions": sorted(versions)}
    return found


def data_paths(container: Container) -> list[str] | None:
    """Where this container keeps its storage, or None if it is not Qdrant's."""
    environment = container.environment
    if container.image_name != "qdrant" and not any(key.startswith("QDRANT__") for key in environment):
        return None
    return [container.path(environment.get("QDRANT__STORAGE__STORAGE_PATH") or "/qdrant/storage")]


def _is_storage(path: str, collections: str) -> bool:
    if os.path.exists(os.path.join(path, "raft_state.json")) or os.path.isdir(os.path.join(path, "aliases")):
        return True
    return any(os.path.isfile(os.path.join(collections, name, "config.json")) for name in _directories(collections))


def _look_at_segments(shard: str, label: str, found: Found, versions: set[str]) -> int:
    root = os.path.join(shard, "segments")
    if not os.path.isdir(root):
        return 0
    segments = 0
    for name in _directories(root):
        segment = os.path.join(root, name)
        version = _version(segment)
        if name.endswith(".deleted") or not version:
            continue
        segments += 1
        versions |= version
        if not _is_json(os.path.join(segment, "segment.json")):
            _note(found, f"segment {label}/{name} has no readable segment.json.")
    if segments and not os.path.isdir(os.path.join(shard, "wal")):
        _note(found, f"shard {label} has segments but no wal directory.")
    return segments


def _is_json(file: str) -> bool:
    try:
        with open(file, encoding="utf-8", opener=plain) as stream:
            json.load(stream)
    except (OSError, ValueError, RecursionError):
        return False
    return True


def _version(directory: str) -> set[str]:
    try:
        with open(os.path.join(directory, "version.info"), encoding="utf-8", errors="replace", opener=plain) as stream:
            return {text for text in [stream.read(64).strip()] if text}
    except OSError:
        return set()


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(name for name in names if not name.startswith("."))  # those are drafts and leftovers


def _note(found: Found, finding: str) -> None:
    if len(found.findings) < _MOST_FINDINGS:
        found.damaged(finding)
