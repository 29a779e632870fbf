"""The Neo4j side, over Bolt: (:User)-[:REMEMBERS]->(:Memory {id, text})."""

from __future__ import annotations

import threading
import time

import neo4j
from neo4j.exceptions import DriverError, Neo4jError, ServiceUnavailable, SessionExpired, TransientError

ADD = """
MERGE (u:User {user_id: $user})
MERGE (m:Memory {id: $id}) ON CREATE SET m.text = $text, m.created_at = $at
MERGE (u)-[:REMEMBERS]->(m)
"""
ALL = "MATCH (:User {user_id: $user})-[:REMEMBERS]->(m:Memory) RETURN m.id AS id, m.text AS text"
DELETE = "MATCH (m:Memory) WHERE m.id IN $ids DETACH DELETE m"
CONSTRAINTS = (
    "CREATE CONSTRAINT memory_id IF NOT EXISTS FOR (m:Memory) REQUIRE m.id IS UNIQUE",
    "CREATE CONSTRAINT user_id IF NOT EXISTS FOR (u:User) REQUIRE u.user_id IS UNIQUE",
)


PAUSES = (0.0, 0.05, 0.2)  # seconds before each further try


class GraphStoreError(Exception):
    """Neo4j refused a statement or cannot be reached."""


class Graph:
    def __init__(self, url: str, username: str, password: str) -> None:
        self.driver = neo4j.GraphDatabase.driver(
            url,
            auth=(username, password),
            connection_timeout=10,
            connection_acquisition_timeout=15,
            notifications_min_severity="OFF",
        )
        self.ready = False
        self.lock = threading.Lock()

    def add(self, identity: str, user_id: str, text: str, at: str) -> None:
        self._ensure()
        self._run(ADD, user=user_id, id=identity, text=text, at=at)

    def delete(self, identities: list[str]) -> None:
        self._run(DELETE, ids=identities)

    def all_of(self, user_id: str) -> dict[str, str]:
        return {row["id"]: row["text"] for row in self._run(ALL, user=user_id)}

    def _ensure(self) -> None:
        with self.lock:
            if not self.ready:
                for statement in CONSTRAINTS:
                    self._run(statement)
                self.ready = True

    def _run(self, statement: str, **parameters: object) -> list[neo4j.Record]:
        try:
            for pause in PAUSES:
                try:
                    return self._once(statement, parameters)
                except (ServiceUnavailable, SessionExpired, TransientError):
                    # A pooled connection dies with the server it led to, and two transactions may stand in each
                    # other's way; every statement here may be repeated.
                    time.sleep(pause)
            return self._once(statement, parameters)
        except (DriverError, Neo4jError, OSError) as failure:
            self.ready = False
            raise GraphStoreError(f"Neo4j: {failure}") from failure

    def _once(self, statement: str, parameters: dict[str, object]) -> list[neo4j.Record]:
        # One auto-commit transaction: half the round trips of a managed one.
        with self.driver.session(database="neo4j") as session:
            return list(session.run(statement, parameters))
