"""What the application does, without HTTP: a memory goes to Qdrant, then Neo4j, then SQLite, under one id."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from .database import App, Config, Memory, User, content_hash, new_id, now, owner_of
from .graph import Graph
from .vectors import Vectors

DEFAULT_CONFIG = {
    "openmemory": {"custom_instructions": None},
    "mem0": {"llm": {"provider": "gemini"}, "embedder": {"provider": "hash", "config": {"dimensions": 64}}},
}


SET_HASH = text("UPDATE memories SET content_hash = :hash WHERE id = :id")


@dataclass
class Row:
    """A memory on its way into SQLite."""

    id: str
    user_id: str
    app: str
    content: str
    created_at: datetime
    failure: SQLAlchemyError | None = None


class Service:
    def __init__(self, engine: Engine, vectors: Vectors, graph: Graph, schema: int) -> None:
        self.engine = engine
        self.vectors = vectors
        self.graph = graph
        self.schema = schema
        self.writer = threading.Lock()
        self.queue: list[Row] = []
        self.queue_lock = threading.Lock()

    def add(self, user_id: str, content: str, app: str) -> dict[str, Any]:
        """Keep one memory. What this returns is in all three stores; a failure on the way leaves no row in SQLite."""
        identity, created = new_id(), now()
        at = created.isoformat()
        self.vectors.add(
            identity, content, {"user_id": user_id, "hash": content_hash(content), "created_at": at, "source_app": app}
        )
        self.graph.add(identity, user_id, content, at)
        self._commit(Row(identity, user_id, app, content, created))
        return {
            "id": identity,
            "content": content,
            "state": "active",
            "created_at": at,
            "user_id": user_id,
            "app_name": app,
        }

    def _commit(self, row: Row) -> None:
        """Commit a row with those that queued up meanwhile: SQLite has one writer, and a commit costs three fsyncs."""
        with self.queue_lock:
            self.queue.append(row)
        with self.writer:
            with self.queue_lock:
                batch, self.queue = self.queue, []
            if batch:
                self._insert(batch)
        if row.failure is not None:
            raise row.failure

    def _insert(self, batch: list[Row]) -> None:
        try:
            with Session(self.engine) as session:
                for row in batch:
                    owner, app = owner_of(session, row.user_id, row.app)
                    values = {
                        "id": row.id,
                        "user_id": owner,
                        "app_id": app,
                        "content": row.content,
                        "created_at": row.created_at,
                    }
                    session.execute(insert(Memory).values(state="active", **values))
                    if self.schema >= 2:
                        session.execute(SET_HASH, {"hash": content_hash(row.content), "id": row.id})
                session.commit()
        except SQLAlchemyError as failure:
            for row in batch:
                row.failure = failure

    def page(self, user_id: str, page: int, size: int) -> dict[str, Any]:
        with Session(self.engine) as session:
            wanted = self._active(user_id)
            total = session.scalar(select(func.count()).select_from(wanted.subquery())) or 0
            rows = session.execute(wanted.order_by(Memory.created_at, Memory.id).offset((page - 1) * size).limit(size))
            items = [self._item(memory, app) for memory, app in rows]
        return {"items": items, "total": total, "page": page, "size": size, "pages": -(-total // size)}

    def get(self, identity: str) -> dict[str, Any] | None:
        with Session(self.engine) as session:
            statement = select(Memory, App.name).join(App).where(Memory.id == identity, Memory.state == "active")
            row = session.execute(statement).first()
            return self._item(*row) if row else None

    def delete(self, identities: list[str]) -> int:
        """Mark rows as deleted first, then take the points and nodes away, as upstream does."""
        with self.writer, Session(self.engine) as session:
            rows = session.scalars(select(Memory).where(Memory.id.in_(identities), Memory.state == "active")).all()
            for memory in rows:
                memory.state, memory.deleted_at = "deleted", now()
            found = [memory.id for memory in rows]
            session.commit()
        if found:
            self.vectors.delete(found)
            self.graph.delete(found)
        return len(found)

    def search(self, user_id: str, query: str, limit: int) -> list[dict[str, Any]]:
        return [
            {"id": p["id"], "memory": p["payload"]["data"], "score": p["score"]}
            for p in self.vectors.nearest(user_id, query, limit)
        ]

    def config(self) -> dict[str, Any]:
        """The configuration, read from the database and made there on first use."""
        with Session(self.engine) as session:
            found = session.get(Config, "main")
        if found is None:
            with self.writer, Session(self.engine) as session:
                found = session.merge(Config(key="main", value=DEFAULT_CONFIG))
                value = found.value
                session.commit()
                return value
        return found.value

    def stores(self, user_id: str) -> dict[str, dict[str, str]]:
        """Each store's own answer to what it holds for a user: texts by id."""
        with Session(self.engine) as session:
            rows = {memory.id: memory.content for memory, _metadata in session.execute(self._active(user_id))}
        return {"sqlite": rows, "qdrant": self.vectors.all_of(user_id), "neo4j": self.graph.all_of(user_id)}

    @staticmethod
    def _active(user_id: str) -> Any:
        wanted = select(Memory, App.name).join(App, Memory.app_id == App.id).join(User, Memory.user_id == User.id)
        return wanted.where(User.user_id == user_id, Memory.state == "active")

    @staticmethod
    def _item(memory: Memory, app: str) -> dict[str, Any]:
        created = int(memory.created_at.timestamp())
        return {
            "id": memory.id,
            "content": memory.content,
            "state": memory.state,
            "created_at": created,
            "app_name": app,
        }
