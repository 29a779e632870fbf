"""A stand-in for openmemory-mcp: upstream's REST routes, one memory under one id in Qdrant, Neo4j and SQLite."""
