# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The census: what each store says it holds, how it is asked, and how two of them are compared.

One store's census is {"tables": {name: rows}} (SQLite), {"collections": {name: points}} (Qdrant), or {"nodes": n,
"relationships": n} (Neo4j). Each number is exact, or [least, most] where writes went on around the moment it is of.
None stands for a store that could not be asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from ..errors import StackError
from ..stores import neo4j, qdrant
from . import ask as asking
from .volume_keys import Containers, Keys, StoreContainer, stores_of

Census = dict[str, Any]
_BOTH = (
    "MATCH (n) WITH count(n) AS number RETURN 'nodes' AS what, number "
    "UNION ALL MATCH ()-[r]->() WITH count(r) AS number RETURN 'relationships' AS what, number"
)
_COUNT_TIMEOUT = 300.0  # seconds: an exact count of a large collection reads all of it


def ask(
    engine: Any, containers: Containers, keys: Keys = None, notes: list[str] | None = None
) -> dict[str, Census | None]:
    """The census of the Qdrant and Neo4j stores that run in these inspected containers, {key of the volume: census}.

    SQLite is not asked: a live database must not be opened; its census comes from the copy (stores/sqlite_check.py).
    A store that does not run, or that refuses the credentials of its container, has None and a sentence in notes.
    keys are those of the volumes, see volume_keys.Keys.
    """
    stores = [store for store in stores_of(engine, containers, keys) if store.kind in (qdrant.KIND, neo4j.KIND)]
    if not stores:
        return {}
    with ThreadPoolExecutor(len(stores)) as pool:  # each mostly waits for its store
        counted = list(pool.map(_count_or_why, stores))
    if notes is not None:
        notes += [f"{store.key} was not counted: {why}" for store, why in zip(stores, counted) if isinstance(why, str)]
    return {store.key: None if isinstance(each, str) else each for store, each in zip(stores, counted)}


def _count_or_why(store: StoreContainer) -> Census | str:
    try:
        return count(store.kind, store.inspected)
    except StackError as error:
        return str(error)


def count(kind: str, inspected: Mapping[str, Any]) -> Census:
    """The census of the store in a running container. Raises StackError (see ask.py) where it cannot be asked."""
    if kind == qdrant.KIND:
        service = asking.qdrant(inspected)
        if service is None:
            raise StackError("Qdrant does not run, so its points were not counted.")
        return count_qdrant(service)
    graph = asking.neo4j(inspected)
    if graph is None:
        raise StackError("Neo4j does not run, so its nodes were not counted.")
    return count_neo4j(graph, asking.neo4j_database(inspected))


def count_qdrant(service: asking.Service) -> Census:
    """{"collections": {name: points}}, counted exactly."""
    counts = {}
    with asking.shaped(service.name):
        names = sorted(str(one["name"]) for one in service.ask("GET", "/collections")["result"]["collections"])
        for name in names:
            path = f"/collections/{quote(name, safe='')}/points/count"
            counts[name] = int(service.ask("POST", path, {"exact": True}, _COUNT_TIMEOUT)["result"]["count"])
    return {"collections": counts}


def count_neo4j(graph: asking.Neo4j, database: str = "neo4j") -> Census:
    """{"nodes": n, "relationships": n} of a database; both are kept as counters by Neo4j, so any size is quick.

    One query, as the first ones after a start cost half a second each.
    """
    rows = graph.run(_BOTH, database=database, timeout=_COUNT_TIMEOUT)
    with asking.shaped(graph.service.name):
        found = {str(what): int(number) for what, number in rows}
        return {"nodes": found["nodes"], "relationships": found["relationships"]}


def between(before: Mapping[str, Census | None], after: Mapping[str, Census | None]) -> dict[str, Census | None]:
    """The census of a moment between two askings: numbers that moved become [least, most]."""
    keys = sorted(set(before) | set(after))
    return {key: _between(before.get(key), after.get(key)) for key in keys}


def compare(expected: Mapping[str, Census | None], found: Mapping[str, Census | None]) -> list[str]:
    """Sentences on what differs, by volume key; none where all agrees or was not counted when it was captured.

    A store that was counted and cannot be asked now is a difference.
    """
    differences = []
    for key, census in sorted(expected.items()):
        if census is None:
            continue
        now = found.get(key)
        if now is None:
            differences.append(f"{key}: it could not be counted, and held {total(census)}.")
            continue
        want, have = _flat(census), _flat(now)
        for what in sorted(set(want) | set(have)):
            least, most = _range(want.get(what, 0))
            low, high = _range(have.get(what, 0))
            if high < least or low > most or (what not in have and least > 0):
                expectation = str(least) if least == most else f"{least} to {most}"
                held = "none" if what not in have else (str(low) if low == high else f"{low} to {high}")
                differences.append(f"{key}: {what}: {held} found, {expectation} expected.")
    return differences


def total(census: Census | None) -> str:
    """One store's census in a few words, as for a table: "3 tables, 120 rows"."""
    if census is None:
        return "not counted"
    if "nodes" in census:
        return f"{_words(census['nodes'])} nodes, {_words(census['relationships'])} relationships"
    unit, one = ("points", "collections") if "collections" in census else ("rows", "tables")
    parts = [_range(number) for number in census[one].values()]
    both = [sum(low for low, _high in parts), sum(high for _low, high in parts)]
    return f"{len(parts)} {one}, {_words(both)} {unit}"


def _words(number: Any) -> str:
    least, most = _range(number)
    return str(least) if least == most else f"{least} to {most}"


def _between(before: Census | None, after: Census | None) -> Census | None:
    if before is None or after is None:
        return None
    census: Census = {}
    for name in sorted(set(before) | set(after)):
        one, other = before.get(name, 0), after.get(name, 0)
        if isinstance(one, dict) or isinstance(other, dict):
            one, other = one or {}, other or {}
            census[name] = {key: _span(one.get(key, 0), other.get(key, 0)) for key in sorted(set(one) | set(other))}
        else:
            census[name] = _span(one, other)
    return census


def _span(one: Any, other: Any) -> Any:
    ends = [*_range(one), *_range(other)]
    least, most = min(ends), max(ends)
    return least if least == most else [least, most]


def _range(number: Any) -> tuple[int, int]:
    if isinstance(number, (list, tuple)):
        return int(number[0]), int(number[1])
    return int(number), int(number)


def _flat(census: Census) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in census.items():
        if isinstance(value, dict):
            one = {"tables": "table", "collections": "collection"}.get(name, name)
            flat.update({f"{one} {key}": number for key, number in value.items()})
        else:
            flat[name] = value
    return flat
