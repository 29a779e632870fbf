# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The probe: the stores are started on a copy of the copy, without network, and asked what they hold."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..engine import Engine
from ..errors import StackError
from ..stores import qdrant, sqlite
from ..stores.scratch import copy
from . import ask, checks
from .census import Census, count_neo4j, count_qdrant
from .ids import disagreements
from .throwaway import Ledger, Throwaway
from .trial import SERVERS, start, wait_ready
from .volume_keys import Containers, Keys, StoreContainer, stores_of


def probe(
    engine: Engine,
    journal: Ledger | None,
    project: str,
    containers: Containers,
    directories: Mapping[str, str],
    scratch: str,
    timeout: float = 300.0,
    keys: Keys = None,
    notes: list[str] | None = None,
    checked: Mapping[str, checks.CheckResult] | None = None,
) -> dict[str, Census]:
    """Start the known stores on copies of directories ({volume key: path}) and return {key: census}, exact.

    containers are the stack's inspected ones, running or not: their images and settings are used. keys: see
    volume_keys.Keys. The copies are made below scratch (by reference where the file system can, else as large as what
    is allocated); nothing in directories is changed, and nothing of the probe is left, also when it fails. timeout is
    in seconds for each store's start. checked are the results of check_staged where it was done already. notes gets
    sentences on what could not be probed and on memories that the stores do not all know. Raises StackError, with the
    store's last log lines, for a store that does not recover.
    """
    notes = [] if notes is None else notes
    stores = [store for store in stores_of(engine, containers, keys) if store.key in directories]
    found: dict[str, Census] = {}
    memories: list[str] | None = None
    # first, as a server may well start on storage with a part missing, and leave out what was in it
    known = dict(checked or {})
    for store in stores:
        if store.key not in known:
            known[store.key] = checks.check_volume(store.kind, directories[store.key], scratch)
    refused = checks.refusal(known)
    if refused:
        raise StackError(refused)
    for store in stores:
        census = known[store.key].census
        if census is not None:
            found[store.key] = census
        if store.kind == sqlite.KIND:
            memories = checks.active_memories(directories[store.key], scratch)
    servers = [store for store in stores if store.kind in SERVERS]
    if not servers:
        notes.append("No container of a store with its data in these volumes is there, so no store was started.")
        return found
    with scratch_directory(journal, scratch, "probe") as place, Throwaway(engine, journal, project) as throwaway:
        names = {}
        for store in servers:
            twin = os.path.join(place, store.key)
            copy(directories[store.key], twin)
            names[store.key] = start(throwaway, store, f"probe-{store.kind}", twin, place)
        deadline = time.monotonic() + timeout
        ready = {store.key: wait_ready(throwaway, store, names[store.key], deadline, place) for store in servers}
        for store in servers:
            try:
                found[store.key] = _count(store, ready[store.key])
            except StackError as error:
                lines = throwaway.last_lines(names[store.key])
                raise StackError(f"The copy of {store.key} cannot be counted: {error} {lines}") from error
        if memories is not None:
            notes += disagreements(memories, _first(servers, ready, qdrant.KIND), _first(servers, ready, "neo4j"))
    return found


@contextmanager
def scratch_directory(journal: Ledger | None, scratch: str, purpose: str) -> Iterator[str]:
    """A new directory below scratch, mode 0700, noted in the journal before it is made and removed at the end."""
    place = os.path.join(scratch, f"{purpose}-{uuid.uuid4().hex[:8]}")
    if journal is not None:
        journal.add("remove", place)
    try:
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        os.mkdir(place, mode=0o700)
        yield place
    except OSError as error:
        raise StackError(f"{error.filename or place} cannot be used as scratch space ({error.strerror}).") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if journal is not None and not os.path.lexists(place):
            journal.drop("remove", place)


def _count(store: StoreContainer, inspected: Mapping[str, Any]) -> Census:
    if store.kind == qdrant.KIND:
        service = ask.qdrant(inspected)
        if service is not None:
            return count_qdrant(service)
    else:
        graph = ask.neo4j(inspected)
        if graph is not None:
            return count_neo4j(graph, ask.neo4j_database(inspected))
    raise StackError("it has ended.")


def _first(
    servers: list[StoreContainer], ready: Mapping[str, Mapping[str, Any]], kind: str
) -> Mapping[str, Any] | None:
    return next((ready[store.key] for store in servers if store.kind == kind), None)
