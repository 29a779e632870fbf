"""Snapshots of a collection: a sparse tar of its directory, taken while writes to it wait.

The archive is this server's own. A snapshot made by the real server is not accepted, nor the other way round.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from storage import NotFound, Storage


class BadSnapshot(ValueError):
    """Not an archive of a collection, or of a line that this one may not read."""


class Snapshots:
    def __init__(self, root: Path, storage: Storage) -> None:
        self.root = root
        self.storage = storage

    def create(self, name: str) -> dict[str, Any]:
        collection = self.storage.get(name)
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime())
        path = folder / f"{name}-{time.time_ns() % 10**9}-{stamp}.snapshot"
        draft = path.with_name("." + path.name)
        with collection.lock:
            collection.dirty = True
            collection.flush()
            _tar("-cSf", str(draft), "-C", str(collection.path), ".")
        path.with_name(path.name + ".checksum").write_text(_sha256(draft))
        draft.rename(path)
        return _describe(path)

    def listed(self, name: str) -> list[dict[str, Any]]:
        self.storage.get(name)
        return [_describe(p) for p in sorted((self.root / name).glob("[!.]*.snapshot"))]

    def path(self, name: str, snapshot: str) -> Path:
        path = self.root / name / snapshot
        if "/" in snapshot or not snapshot.endswith(".snapshot") or not path.is_file():
            raise NotFound(f"Not found: Snapshot {snapshot} not found")
        return path

    def delete(self, name: str, snapshot: str) -> None:
        path = self.path(name, snapshot)
        path.unlink()
        path.with_name(path.name + ".checksum").unlink(missing_ok=True)

    def recover(self, name: str, archive: Path) -> None:
        """Replace the collection by the archive's: unpacked beside it, looked at, then swapped in by rename."""
        fresh = self.storage.root / f".recover-{name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            _tar("-xSf", str(archive), "-C", str(fresh))
            _check(fresh, self.storage.version)
            self.storage.replace(name, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _check(folder: Path, ours: str) -> None:
    if not (folder / "config.json").is_file() or not (folder / "0" / "segments").is_dir():
        raise BadSnapshot("Wrong input: the archive does not hold a collection")
    theirs = (folder / "version.info").read_text().strip()
    (their_major, their_minor), (major, minor) = _line(theirs), _line(ours)
    if their_major != major or minor - their_minor not in (0, 1):
        raise BadSnapshot(f"Wrong input: a snapshot of {theirs} cannot be read by {ours}")


def _line(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        raise BadSnapshot(f"Wrong input: unknown version {version!r} in the archive")
    return int(found[1]), int(found[2])


def _describe(path: Path) -> dict[str, Any]:
    checksum = path.with_name(path.name + ".checksum")
    stat = path.stat()
    return {
        "name": path.name,
        "creation_time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stat.st_mtime)),
        "size": stat.st_size,
        "checksum": checksum.read_text() if checksum.exists() else None,
    }


def _tar(*arguments: str) -> None:
    done = subprocess.run(["tar", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadSnapshot(f"Wrong input: tar says {done.stderr.strip()[:200]}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
