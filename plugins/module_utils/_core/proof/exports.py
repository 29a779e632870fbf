# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exports: the captured stores in formats that any tool reads, made without touching the live ones.

neo4j-admin dumps of all databases (neo4j and system), made after a server has recovered a copy of the copy and stopped
cleanly; Qdrant's own snapshot of each collection from a throw-away server; each SQLite database as one file with its
journal applied.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from ..engine import Engine
from ..errors import StackError
from ..stores import neo4j, qdrant, registry, sqlite, sqlite_check
from ..stores.plain_file import plain_size
from ..stores.scratch import copy
from . import ask
from .probe import scratch_directory
from .throwaway import Ledger, Throwaway
from .trial import changes_for, start, wait_ready
from .volume_keys import Containers, Keys, StoreContainer, stores_of

_OUT = "/openmemory-export"  # where a throw-away finds the directory for what it makes
_STOP_SECONDS = 120
_DUMP_SECONDS = 3600.0
_NOT_OFFERED = ("404", "405", "501")  # RFC 9110: no such route, not by this method, not implemented


def export(
    engine: Engine,
    journal: Ledger | None,
    project: str,
    containers: Containers,
    staged: Mapping[str, str],
    target: str,
    scratch: str,
    timeout: float = 300.0,
    keys: Keys = None,
    notes: list[str] | None = None,
) -> list[dict[str, Any]]:
    """Write the exports of the staged volumes ({key: path}) to the directory target, which is replaced.

    Files there are root's with mode 0600: sqlite/KEY/NAME, qdrant/KEY/COLLECTION.snapshot, neo4j/KEY/DATABASE.dump.
    Returns a list of {"store", "key", "name", "path" (relative to target), "bytes"}. staged is not changed. timeout is
    in seconds for each store's start. notes gets a sentence on what a server does not offer, which is then left out.
    Raises StackError, also for a store whose container is not there.
    """
    draft = f"{target}.part"
    shutil.rmtree(draft, ignore_errors=True)
    made: list[dict[str, Any]] = []
    servers = {store.key: store for store in stores_of(engine, containers, keys)}
    try:
        os.makedirs(draft, mode=0o700)
        for key, path in sorted(staged.items()):
            found = registry.look(path)
            if found is None or found.kind not in _EXPORTS:
                continue
            store = servers.get(key)
            if found.kind != sqlite.KIND and (store is None or store.kind != found.kind):
                raise StackError(
                    f"export needs the {found.kind} container that uses {key}, and there is none; start the stack once "
                    "or leave export out."
                )
            place = os.path.join(draft, found.kind, key)
            for directory in (os.path.dirname(place), place):
                os.makedirs(directory, mode=0o700, exist_ok=True)
            with scratch_directory(journal, scratch, "export") as space, Throwaway(engine, journal, project) as own:
                missing = _EXPORTS[found.kind](_Work(own, store, path, place, space, timeout))
                if missing and notes is not None:
                    notes.append(f"The export of {key} lacks {missing}")
            made += _listed(draft, found.kind, key)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(draft, target)
    except OSError as error:
        raise StackError(f"{error.filename or target} cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return made


class _Work:
    """One store's export: source is the staged volume, place gets the files, space is scratch."""

    def __init__(
        self, own: Throwaway, store: StoreContainer | None, source: str, place: str, space: str, timeout: float
    ):
        self.own = own
        self._store = store
        self.source = source
        self.place = place
        self.space = space
        self.timeout = timeout

    @property
    def store(self) -> StoreContainer:
        if self._store is None:
            raise StackError("There is no container of this store.")
        return self._store

    def twin(self) -> str:
        """A copy of the staged volume that may be changed."""
        path = os.path.join(self.space, "data")
        copy(self.source, path)
        return path

    def out(self, like: str) -> str:
        """A directory that the store's user can write to: it gets the owner of the data directory like."""
        path = os.path.join(self.space, "out")
        os.mkdir(path, 0o700)
        about = os.stat(like)
        os.chown(path, about.st_uid, about.st_gid)
        return path

    def take(self, file: str, name: str) -> None:
        """Move a finished file into place, as root's and private."""
        if plain_size(file) is None or os.path.basename(name) != name:
            raise StackError(f"{self.place} would get {name}, which is no plain file; nothing was exported.")
        goal = os.path.join(self.place, name)
        shutil.move(file, goal)
        os.chown(goal, 0, 0)
        os.chmod(goal, 0o600)


def _export_sqlite(work: _Work) -> str:
    for entry in sorted(os.scandir(work.source), key=lambda one: one.name):
        if not entry.is_file(follow_symlinks=False) or not sqlite.starts_with(entry.path, sqlite.MAGIC):
            continue
        file = os.path.join(work.space, entry.name)
        try:
            with sqlite_check.opened(entry.path, work.space) as source, closing(sqlite3.connect(file)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")  # one file, also of a database that had a WAL
        except sqlite3.Error as error:
            raise StackError(f"{entry.name} cannot be exported ({error}).") from error
        work.take(file, entry.name)
    return ""


def _export_qdrant(work: _Work) -> str:
    twin = work.twin()
    out = work.out(twin)
    settings = {"QDRANT__STORAGE__SNAPSHOTS_PATH": _OUT}
    name = start(work.own, work.store, "export-qdrant", twin, None, {_OUT: out}, settings)
    service = ask.qdrant(wait_ready(work.own, work.store, name, time.monotonic() + work.timeout))
    if service is None:
        raise StackError("Qdrant ended before its snapshots were made.")
    for collection in service.ask("GET", "/collections")["result"]["collections"]:
        route = f"/collections/{quote(collection['name'], safe='')}/snapshots?wait=true"
        try:
            answer = service.ask("POST", route, timeout=_DUMP_SECONDS)["result"]
        except ask.AnswerError as error:
            if error.code not in _NOT_OFFERED:
                raise
            return (
                f"the snapshots of its collections, which this server does not make ({error}); use a Qdrant that does."
            )
        file = os.path.join(out, collection["name"], answer["name"])
        if not os.path.isfile(file):
            raise StackError(f"Qdrant says that it made the snapshot {answer['name']}, and it is not there.")
        work.take(file, f"{collection['name']}.snapshot")
    return ""


def _export_neo4j(work: _Work) -> str:
    twin = work.twin()
    out = work.out(twin)
    # a dump wants a database that was closed cleanly: the server's own recovery does that
    name = start(work.own, work.store, "export-neo4j", twin, work.space)
    wait_ready(work.own, work.store, name, time.monotonic() + work.timeout, work.space)
    work.own.stop(name, _STOP_SECONDS)
    command = ["neo4j-admin", "database", "dump", "*", f"--to-path={_OUT}"]
    dump = replace(changes_for(work.store, twin, {_OUT: out}), command=command)
    work.own.run(work.store.inspected, "dump", dump, _DUMP_SECONDS)
    dumps = sorted(file for file in os.listdir(out) if file.endswith(".dump"))
    if not dumps:
        raise StackError("neo4j-admin ended well and made no dump.")
    for file in dumps:
        work.take(os.path.join(out, file), file)
    return ""


# Each returns what its server does not offer, "" where nothing is missing.
_EXPORTS = {sqlite.KIND: _export_sqlite, qdrant.KIND: _export_qdrant, neo4j.KIND: _export_neo4j}


def _listed(root: str, kind: str, key: str) -> list[dict[str, Any]]:
    place = os.path.join(root, kind, key)
    return [
        {
            "store": kind,
            "key": key,
            "name": name,
            "path": os.path.join(kind, key, name),
            "bytes": os.path.getsize(os.path.join(place, name)),
        }
        for name in sorted(os.listdir(place))
    ]
