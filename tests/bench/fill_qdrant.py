"""Runs inside the Qdrant image, whose server is stopped: fills a collection of big vectors with the server's own code.

python3 fill_qdrant.py COUNT     points 0 … COUNT-1 in the collection `bulk`
"""

from __future__ import annotations

import importlib
import os
import sys
from array import array
from pathlib import Path

SERVER = Path("/qdrant/server")
COLLECTION = "bulk"
DIMENSIONS = 1536  # 6 KiB each, as the embeddings that mem0 uses by default
BATCH = 1000


def vector() -> list[int]:
    """Random, as nothing else in it matters: embeddings neither compress nor deduplicate."""
    raw = array("h")
    raw.frombytes(os.urandom(2 * DIMENSIONS))
    return raw.tolist()


def main() -> None:
    sys.path.insert(0, str(SERVER))
    engine = importlib.import_module("qdrant_edge")  # late: the bench itself imports this file too
    version = (SERVER / "VERSION").read_text().strip().removeprefix("v")
    storage = importlib.import_module("storage").Storage(Path("/qdrant/storage"), version)
    storage.create(COLLECTION, {"vectors": {"size": DIMENSIONS, "distance": "Cosine"}})
    collection, count = storage.get(COLLECTION), int(sys.argv[1])
    for first in range(0, count, BATCH):
        points = [
            engine.Point(id=number, vector=vector(), payload={"user_id": "bulk"})
            for number in range(first, min(first + BATCH, count))
        ]
        collection.update(engine.UpdateOperation.upsert_points(points))
    storage.each(lambda one: one.close())


if __name__ == "__main__":
    main()
