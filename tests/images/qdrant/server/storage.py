"""Collections on disk: Qdrant's storage layout with one engine shard per collection.

raft_state.json  aliases/data.json  collections/NAME/{config.json,version.info,0/{segments,wal}}
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convert
import qdrant_edge as engine

DEFAULTS = {
    "hnsw_config": {
        "m": 16,
        "ef_construct": 100,
        "full_scan_threshold": 10000,
        "max_indexing_threads": 0,
        "on_disk": False,
    },
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "max_segment_size": None,
        "memmap_threshold": None,
        "indexing_threshold": 10000,
        "flush_interval_sec": 5,
        "max_optimization_threads": None,
    },
    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1},
    "quantization_config": None,
}


class NotFound(LookupError):
    """No such collection, point or snapshot."""


class Conflict(ValueError):
    """The collection exists already."""


def write_json(path: Path, value: Any) -> None:
    """Replace `path` in one step, so that a crash leaves the old or the new file."""
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "w", encoding="utf-8") as handle:
        json.dump(value, handle)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(draft, path)


def refuse_jump(written_by: str, version: str) -> None:
    """Raise ValueError unless the storage is of the same minor version or the one before."""
    old, new = (tuple(int(part) for part in text.split(".")[:2]) for text in (written_by, version))
    if new not in (old, (old[0], old[1] + 1)):
        raise ValueError(f"storage of {written_by} is not opened by {version}: one minor version at a time")


class Collection:
    """One collection. Every call holds its lock: the engine's shard is shared by the server's threads."""

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self.version = version
        self.lock = threading.RLock()
        self.dirty = False
        self.config: dict[str, Any] = json.loads((path / "config.json").read_text())
        written_by = (path / "version.info").read_text()
        refuse_jump(written_by, version)
        self.shard = engine.EdgeShard.load(str(path / "0"))
        if written_by != version:
            draft = path / "version.info.tmp"
            draft.write_text(version)
            os.replace(draft, path / "version.info")

    @classmethod
    def create(cls, path: Path, version: str, params: dict[str, Any]) -> Collection:
        draft = path.with_name("." + path.name)
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "0").mkdir(parents=True)
        try:
            engine.EdgeShard.create(str(draft / "0"), convert.config_from(params)).close()
            (draft / "version.info").write_text(version)
            write_json(draft / "config.json", {"params": params, **DEFAULTS})
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        draft.rename(path)
        return cls(path, version)

    def update(self, operation: engine.UpdateOperation) -> None:
        """Apply a write. The engine has it in its write-ahead log when this returns."""
        with self.lock:
            self.dirty = True
            self.shard.update(operation)

    def read(self, ask: Callable[[engine.EdgeShard], Any]) -> Any:
        with self.lock:
            return ask(self.shard)

    def flush(self) -> None:
        with self.lock:
            if self.dirty:
                self.dirty = False
                self.shard.flush()

    def close(self) -> None:
        with self.lock:
            self.shard.flush()
            self.shard.close()

    def info(self) -> dict[str, Any]:
        state = self.read(lambda shard: shard.info())
        schema = {
            name: {"data_type": str(index.data_type).rsplit(".", 1)[-1].lower(), "points": index.points}
            for name, index in state.payload_schema.items()
        }
        return {
            "status": "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": state.indexed_vectors_count,
            "points_count": state.points_count,
            "segments_count": state.segments_count,
            "config": self.config,
            "payload_schema": schema,
        }


class Storage:
    """All collections below one directory.

    Raises whatever the engine raises if a collection cannot be loaded: the real server does not start either.
    """

    def __init__(self, root: Path, version: str) -> None:
        self.version = version
        self.root = root / "collections"
        self.root.mkdir(parents=True, exist_ok=True)
        (root / "aliases").mkdir(exist_ok=True)
        for path, value in ((root / "raft_state.json", _raft_state()), (root / "aliases" / "data.json", {})):
            if not path.exists():
                write_json(path, value)
        self.lock = threading.RLock()
        self.collections: dict[str, Collection] = {}
        for path in sorted(self.root.iterdir()):
            if path.name.startswith("."):
                shutil.rmtree(path)
            else:
                self.collections[path.name] = Collection(path, version)

    def get(self, name: str) -> Collection:
        with self.lock:
            if name not in self.collections:
                raise NotFound(f"Not found: Collection `{name}` doesn't exist!")
            return self.collections[name]

    def create(self, name: str, params: dict[str, Any]) -> None:
        if not re.fullmatch(r"[^<>:\"/\\|?*\x00-\x1f.][^<>:\"/\\|?*\x00-\x1f]{0,254}", name):
            raise convert.Unsupported(f"collection name {name!r} cannot be used")
        with self.lock:
            if name in self.collections:
                raise Conflict(f"Wrong input: Collection `{name}` already exists!")
            self.collections[name] = Collection.create(self.root / name, self.version, params)

    def delete(self, name: str) -> bool:
        with self.lock:
            collection = self.collections.pop(name, None)
            if collection is None:
                return False
            with collection.lock:
                collection.shard.close()
                gone = collection.path.with_name("." + name)
                collection.path.rename(gone)
                shutil.rmtree(gone)
            return True

    def replace(self, name: str, fresh: Path) -> None:
        """Put the collection directory `fresh` (same file system) in the place of `name`."""
        with self.lock:
            self.delete(name)
            fresh.rename(self.root / name)
            self.collections[name] = Collection(self.root / name, self.version)

    def each(self, action: Callable[[Collection], None]) -> None:
        with self.lock:
            chosen = list(self.collections.values())
        for collection in chosen:
            action(collection)


def _raft_state(peer: int | None = None) -> dict[str, Any]:
    peer = peer or random.randrange(1, 2**53)
    return {
        "state": {"hard_state": {"term": 0, "vote": 0, "commit": 0}, "conf_state": {"voters": [peer]}},
        "latest_snapshot_meta": {"term": 0, "index": 0},
        "apply_progress_queue": None,
        "first_voter": peer,
        "peer_address_by_id": {},
        "peer_metadata_by_id": {},
        "this_peer_id": peer,
    }
