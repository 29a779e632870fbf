# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the stores know the same memories: OpenMemory writes one memory into all of them under one id.

It writes SQLite last and marks a deleted row there first, so each active row has its point in Qdrant and, where the
graph holds memories by id, its node in Neo4j. Points and nodes without a row may be: they are writes under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..errors import StackError
from . import ask

_BATCH = 1000
_SHOWN = 3


def disagreements(
    memories: Sequence[str], qdrant: Mapping[str, Any] | None, neo4j: Mapping[str, Any] | None
) -> list[str]:
    """Sentences on active memories that a running store's inspected container does not have; none if all agree.

    memories are the ids of SQLite's active rows (checks.active_memories). None for a store leaves it out, as does a
    graph that keeps no memories by id, as upstream's. Raises StackError where a store cannot be asked.
    """
    found = []
    service = None if qdrant is None else ask.qdrant(qdrant)
    if service is not None:
        missing = set(memories) - points_known(service, memories)
        if missing:
            found.append(_sentence(missing, len(memories), "Qdrant has no point for"))
    graph = None if neo4j is None else ask.neo4j(neo4j)
    if graph is not None and neo4j is not None and memories:
        known = nodes_known(graph, memories, ask.neo4j_database(neo4j))
        if known is not None and set(memories) - known:
            found.append(_sentence(set(memories) - known, len(memories), "Neo4j has no node for"))
    return found


def points_known(service: ask.Service, ids: Sequence[str]) -> set[str]:
    """Those of the ids (UUIDs) that are points of any collection."""
    known: set[str] = set()
    for collection in service.ask("GET", "/collections")["result"]["collections"]:
        path = f"/collections/{quote(collection['name'], safe='')}/points"
        left = [one for one in ids if one not in known]
        for start in range(0, len(left), _BATCH):
            body = {"ids": left[start : start + _BATCH], "with_payload": False, "with_vector": False}
            known |= {str(point["id"]) for point in service.ask("POST", path, body)["result"]}
    return known


def nodes_known(graph: ask.Neo4j, ids: Sequence[str], database: str = "neo4j") -> set[str] | None:
    """Those of the ids that are nodes (:Memory {id}); None for a graph that never had such nodes."""
    labels = {row[0] for row in graph.run("CALL db.labels()", database=database)}
    properties = {row[0] for row in graph.run("CALL db.propertyKeys()", database=database)}
    if "Memory" not in labels or "id" not in properties:
        return None
    known: set[str] = set()
    statement = "MATCH (m:Memory) WHERE m.id IN $ids RETURN m.id"
    for start in range(0, len(ids), _BATCH):
        rows = graph.run(statement, {"ids": list(ids[start : start + _BATCH])}, database)
        known |= {str(row[0]) for row in rows}
    if not known and not graph.run("MATCH (m:Memory) WHERE m.id IS NOT NULL RETURN 1 LIMIT 1", database=database):
        ((nodes,),) = graph.run("MATCH (n) RETURN count(n)", database=database)
        if nodes:  # the graph is of another kind; an empty one has lost them
            return None
    return known


def require(memories: Sequence[str], qdrant: Mapping[str, Any] | None, neo4j: Mapping[str, Any] | None) -> None:
    """Like disagreements(), but raises StackError with the sentences."""
    found = disagreements(memories, qdrant, neo4j)
    if found:
        raise StackError(" ".join(found))


def _sentence(missing: set[str], total: int, what: str) -> str:
    shown = ", ".join(sorted(missing)[:_SHOWN]) + (", …" if len(missing) > _SHOWN else "")
    return f"{what} {len(missing)} of {total} active memories ({shown})."
