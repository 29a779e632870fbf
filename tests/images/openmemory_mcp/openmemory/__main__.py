"""Start the service: check the settings, prepare the database, then listen on port 8765."""

from __future__ import annotations

import sys

import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from . import database, settings
from .api import application
from .graph import Graph
from .service import Service
from .vectors import Vectors


def main() -> int:
    try:
        chosen = settings.load()
        engine = database.connect(chosen.database_url)
        database.prepare(engine, chosen.schema)
        with Session(engine) as session:
            database.owner_of(session, chosen.user, "openmemory")
            session.commit()
    except (settings.BadSettings, database.SchemaTooNew) as failure:
        print(f"openmemory-mcp: {failure}", file=sys.stderr)
        return 1
    except SQLAlchemyError as failure:
        print(f"openmemory-mcp: cannot use the database {chosen.database_url}: {failure}", file=sys.stderr)
        return 1
    # Requests run in threads that mostly wait: hand the interpreter over sooner than after the default 5 ms.
    sys.setswitchinterval(0.0005)
    vectors = Vectors(chosen.qdrant_host, chosen.qdrant_port, chosen.qdrant_api_key)
    graph = Graph(chosen.neo4j_url, chosen.neo4j_username, chosen.neo4j_password)
    service = Service(engine, vectors, graph, chosen.schema)
    uvicorn.run(
        application(service, chosen.version, chosen.broken),
        host="0.0.0.0",
        port=chosen.port,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    graph.driver.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
