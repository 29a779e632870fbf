"""The SQLite side: tables, schema version and migration. SQLite keeps its default rollback journal."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text, create_engine, event, insert, inspect, select, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

BUSY_TIMEOUT_S = 30


class SchemaTooNew(Exception):
    """The database was migrated by a newer version of the application."""


class Base(DeclarativeBase):
    pass


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> datetime:
    return datetime.now(UTC)


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    user_id: Mapped[str] = mapped_column(String, unique=True, index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class App(Base):
    __tablename__ = "apps"
    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[str] = mapped_column(String, index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Config(Base):
    __tablename__ = "configs"
    key: Mapped[str] = mapped_column(String, primary_key=True)
    value: Mapped[dict] = mapped_column(JSON)


class SchemaVersion(Base):
    __tablename__ = "schema_version"
    version: Mapped[int] = mapped_column(primary_key=True)
    applied_at: Mapped[datetime] = mapped_column(default=now)


class Memory(Base):
    """A memory. `content_hash` came with schema 2 and is therefore no mapped column: 1.0 must not know it."""

    __tablename__ = "memories"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id"), index=True)
    content: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String, default="active", index=True)
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    deleted_at: Mapped[datetime | None] = mapped_column(default=None)


def content_hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def connect(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _foreign_keys(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


def prepare(engine: Engine, schema: int) -> None:
    """Create the tables, or migrate them, to `schema`. Raises SchemaTooNew rather than touch a newer database."""
    with engine.begin() as connection:
        found = _schema_of(connection)
        if found > schema:
            raise SchemaTooNew(
                f"the database has schema {found}, but this version knows {schema}: a newer openmemory-mcp used it;"
                " start that version again, or restore a backup made before the update"
            )
        Base.metadata.create_all(connection)
        if found == 0:
            connection.execute(SchemaVersion.__table__.insert().values(version=1, applied_at=now()))
        if schema >= 2 > found:
            _to_schema_2(connection)


def _schema_of(connection: Connection) -> int:
    if not inspect(connection).has_table("schema_version"):
        return 0
    return connection.execute(text("SELECT max(version) FROM schema_version")).scalar() or 0


def _to_schema_2(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE memories ADD COLUMN content_hash VARCHAR(64)"))
    connection.execute(text("CREATE INDEX ix_memories_content_hash ON memories (content_hash)"))
    rows = connection.execute(text("SELECT id, content FROM memories")).all()
    for identity, content in rows:
        connection.execute(
            text("UPDATE memories SET content_hash = :hash WHERE id = :id"),
            {"hash": content_hash(content), "id": identity},
        )
    connection.execute(SchemaVersion.__table__.insert().values(version=2, applied_at=now()))


def owner_of(session: Session, user_id: str, app: str) -> tuple[str, str]:
    """The ids of the user and of the app of that name, made if there is none yet."""
    user = session.scalar(select(User.id).where(User.user_id == user_id))
    if user is None:
        user = new_id()
        session.execute(insert(User).values(id=user, user_id=user_id, created_at=now()))
    found = session.scalar(select(App.id).where(App.owner_id == user, App.name == app))
    if found is None:
        found = new_id()
        session.execute(insert(App).values(id=found, owner_id=user, name=app, created_at=now()))
    return user, found
