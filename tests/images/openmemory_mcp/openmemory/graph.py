"""The Neo4j side, over Bolt: (:User)-[:REMEMBERS]->(:Memory {id, text})."""

from __future__ import annotations

import threading

import neo4j
from neo4j.exceptions import DriverError, Neo4jError

ADD = """
MERGE (u:User {user_id: $user})
CREATE (u)-[:REMEMBERS]->(:Memory {id: $id, text: $text, created_at: $at})
"""
ALL = "MATCH (:User {user_id: $user})-[:REMEMBERS]->(m:Memory) RETURN m.id AS id, m.text AS text"
DELETE = "MATCH (m:Memory) WHERE m.id IN $ids DETACH DELETE m"
CONSTRAINTS = (
    "CREATE CONSTRAINT memory_id IF NOT EXISTS FOR (m:Memory) REQUIRE m.id IS UNIQUE",
    "CREATE CONSTRAINT user_id IF NOT EXISTS FOR (u:User) REQUIRE u.user_id IS UNIQUE",
)


class GraphStoreError(Exception):
    """Neo4j refused a statement or cannot be reached."""


class Graph:
    def __init__(self, url: str, username: str, password: str) -> None:
        self.driver = neo4j.GraphDatabase.driver(
            url, auth=(username, password), connection_timeout=10, max_transaction_retry_time=5, notifications_min_severity="OFF"
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
            return self.driver.execute_query(statement, parameters, database_="neo4j").records
        except (DriverError, Neo4jError, OSError) as failure:
            self.ready = False
            raise GraphStoreError(f"Neo4j: {failure}") from failure
