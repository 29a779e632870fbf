"""Settings from the environment, named as upstream names them."""

from __future__ import annotations

import os
from dataclasses import dataclass


class BadSettings(Exception):
    """One sentence about a setting that is missing or wrong."""


@dataclass(frozen=True)
class Settings:
    version: str
    user: str
    database_url: str
    qdrant_host: str
    qdrant_port: int
    qdrant_api_key: str | None
    neo4j_url: str
    neo4j_username: str
    neo4j_password: str
    port: int

    @property
    def schema(self) -> int:
        """The database schema that this version of the application works with."""
        return 1 if self.version == "1.0" else 2

    @property
    def broken(self) -> bool:
        """Whether this is the version whose API never answers well."""
        return self.version == "unhealthy"


def load() -> Settings:
    """Read the environment. Raises BadSettings without GOOGLE_API_KEY or NEO4J_PASSWORD."""
    get = os.environ.get
    for name in ("GOOGLE_API_KEY", "NEO4J_PASSWORD"):
        if not get(name):
            raise BadSettings(f"{name} is not set; openmemory-mcp does not start without it")
    return Settings(
        version=get("OPENMEMORY_VERSION", "1.0"),
        user=get("USER") or "default",
        database_url=get("DATABASE_URL") or "sqlite:///./openmemory.db",
        qdrant_host=get("QDRANT_HOST") or "qdrant",
        qdrant_port=int(get("QDRANT_PORT") or "6333"),
        qdrant_api_key=get("QDRANT_API_KEY") or None,
        neo4j_url=get("NEO4J_URL") or "bolt://neo4j:7687",
        neo4j_username=get("NEO4J_USERNAME") or "neo4j",
        neo4j_password=os.environ["NEO4J_PASSWORD"],
        port=int(get("PORT") or "8765"),
    )
