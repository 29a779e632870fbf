"""The REST routes: a table of method, path pattern and handler."""

from __future__ import annotations

import re
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import convert
import qdrant_edge as engine
from snapshots import BadSnapshot, Snapshots
from storage import Collection, NotFound, Storage


class Plain(str):
    """A response that is text, not Qdrant's JSON envelope."""


class Raw(NamedTuple):
    """A response that is a JSON object of its own."""

    body: dict[str, Any]


class Api:
    """What each route does. Handlers take the path's parts and the request; they return the envelope's `result`."""

    def __init__(self, storage: Storage, snapshots: Snapshots) -> None:
        self.storage = storage
        self.snapshots = snapshots
        c, s = r"/collections/(?P<name>[^/]+)", r"/snapshots"
        self.table: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
            (method, re.compile(pattern + r"/?\Z"), handler)
            for method, pattern, handler in [
                ("GET", r"", self.root),
                ("GET", r"/(?P<check>healthz|livez)", self.alive),
                ("GET", r"/readyz", self.ready),
                ("GET", r"/collections", self.collections),
                ("GET", r"/aliases", self.aliases),
                ("PUT", c, self.create),
                ("GET", c, self.info),
                ("DELETE", c, self.delete),
                ("GET", c + r"/exists", self.exists),
                ("PUT", c + r"/index", self.create_index),
                ("PUT", c + r"/points", self.upsert),
                ("POST", c + r"/points", self.retrieve),
                ("GET", c + r"/points/(?P<point>[^/]+)", self.point),
                ("POST", c + r"/points/delete", self.delete_points),
                ("POST", c + r"/points/payload", self.set_payload),
                ("POST", c + r"/points/scroll", self.scroll),
                ("POST", c + r"/points/count", self.count),
                ("POST", c + r"/points/search", self.search),
                ("POST", c + r"/points/query", self.query),
                ("POST", c + s, self.snapshot),
                ("GET", c + s, self.list_snapshots),
                ("GET", c + s + r"/(?P<snapshot>[^/]+)", self.download),
                ("DELETE", c + s + r"/(?P<snapshot>[^/]+)", self.delete_snapshot),
                ("PUT", c + s + r"/recover", self.recover),
                ("POST", c + s + r"/upload", self.upload),
            ]
        ]

    def find(self, method: str, path: str) -> tuple[Callable[..., Any], dict[str, str]]:
        for wanted, pattern, handler in self.table:
            found = pattern.match(path)
            if found and wanted == method:
                return handler, {k: urllib.parse.unquote(v) for k, v in found.groupdict().items()}
        raise NotFound(f"Not found: {method} {path} is not served here")

    def root(self, _request: Any) -> Raw:
        return Raw({"title": "qdrant - vector search engine", "version": self.storage.version, "commit": ""})

    def alive(self, _request: Any, check: str) -> Plain:
        return Plain(f"{check} check passed")

    def ready(self, _request: Any) -> Plain:
        return Plain("all shards are ready")

    def collections(self, _request: Any) -> dict[str, Any]:
        return {"collections": [{"name": name} for name in sorted(self.storage.collections)]}

    def aliases(self, _request: Any) -> dict[str, Any]:
        return {"aliases": []}

    def create(self, request: Any, name: str) -> bool:
        params = {k: request.json[k] for k in ("vectors", "sparse_vectors") if request.json.get(k)}
        self.storage.create(name, {**params, "shard_number": 1, "replication_factor": 1, "on_disk_payload": True})
        return True

    def info(self, _request: Any, name: str) -> dict[str, Any]:
        return self.storage.get(name).info()

    def delete(self, _request: Any, name: str) -> bool:
        return self.storage.delete(name)

    def exists(self, _request: Any, name: str) -> dict[str, Any]:
        return {"exists": name in self.storage.collections}

    def create_index(self, request: Any, name: str) -> dict[str, Any]:
        schema = request.json["field_schema"]
        kind = convert.INDEX_TYPES[schema["type"] if isinstance(schema, dict) else schema]
        return self._write(request, name, engine.UpdateOperation.create_field_index(request.json["field_name"], kind))

    def upsert(self, request: Any, name: str) -> dict[str, Any]:
        return self._write(request, name, engine.UpdateOperation.upsert_points(convert.points_from(request.json)))

    def delete_points(self, request: Any, name: str) -> dict[str, Any]:
        if "points" in request.json:
            operation = engine.UpdateOperation.delete_points(request.json["points"])
        else:
            operation = engine.UpdateOperation.delete_points_by_filter(convert.filter_from(request.json["filter"]))
        return self._write(request, name, operation)

    def set_payload(self, request: Any, name: str) -> dict[str, Any]:
        operation = engine.UpdateOperation.set_payload(request.json["points"], request.json["payload"])
        return self._write(request, name, operation)

    def _write(self, request: Any, name: str, operation: engine.UpdateOperation) -> dict[str, Any]:
        self.storage.get(name).update(operation)
        return {"operation_id": 0, "status": "completed" if request.flag("wait") else "acknowledged"}

    def retrieve(self, request: Any, name: str) -> list[dict[str, Any]]:
        return self._retrieve(self.storage.get(name), request.json["ids"], request.json)

    def point(self, _request: Any, name: str, point: str) -> dict[str, Any]:
        found = self._retrieve(
            self.storage.get(name), [int(point) if point.isdigit() else point], {"with_vector": True}
        )
        if not found:
            raise NotFound(f"Not found: Point with id {point} does not exists!")
        return found[0]

    @staticmethod
    def _retrieve(collection: Collection, ids: list[Any], body: dict[str, Any]) -> list[dict[str, Any]]:
        payload = convert.payload_wanted(body.get("with_payload"), True)
        vector = body.get("with_vector") or False
        found = collection.read(lambda shard: shard.retrieve(ids, with_payload=payload, with_vector=vector))
        return [convert.record(r) for r in found]

    def scroll(self, request: Any, name: str) -> dict[str, Any]:
        body = request.json
        if body.get("order_by"):
            raise convert.Unsupported("order_by is not served here")
        asked = engine.ScrollRequest(
            offset=body.get("offset"),
            limit=body.get("limit") or 10,
            filter=convert.filter_from(body.get("filter")),
            with_payload=convert.payload_wanted(body.get("with_payload"), True),
            with_vector=body.get("with_vector") or False,
        )
        points, following = self.storage.get(name).read(lambda shard: shard.scroll(asked))
        following = None if following is None else convert.identity(following)
        return {"points": [convert.record(p) for p in points], "next_page_offset": following}

    def count(self, request: Any, name: str) -> dict[str, int]:
        asked = engine.CountRequest(
            exact=request.json.get("exact", True), filter=convert.filter_from(request.json.get("filter"))
        )
        return {"count": self.storage.get(name).read(lambda shard: shard.count(asked))}

    def search(self, request: Any, name: str) -> list[dict[str, Any]]:
        vector, using = request.json["vector"], None
        if isinstance(vector, dict):
            vector, using = vector["vector"], vector["name"]
        return self._search(name, vector, using, request.json)

    def query(self, request: Any, name: str) -> dict[str, Any]:
        body = request.json
        wanted = body.get("query")
        if isinstance(wanted, dict) and "nearest" in wanted:
            wanted = wanted["nearest"]
        if body.get("prefetch") or not (isinstance(wanted, list) or (isinstance(wanted, dict) and "indices" in wanted)):
            raise convert.Unsupported("only a query by vector is served here")
        return {"points": self._search(name, wanted, body.get("using"), body)}

    def _search(self, name: str, vector: Any, using: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
        asked = engine.QueryRequest(
            limit=body.get("limit") or 10,
            offset=body.get("offset") or 0,
            query=engine.Query.Nearest(convert.vector_from(vector), using=using),
            filter=convert.filter_from(body.get("filter")),
            score_threshold=body.get("score_threshold"),
            with_payload=convert.payload_wanted(body.get("with_payload"), False),
            with_vector=body.get("with_vector") or False,
        )
        return [convert.record(p) for p in self.storage.get(name).read(lambda shard: shard.query(asked))]

    def snapshot(self, _request: Any, name: str) -> dict[str, Any]:
        return self.snapshots.create(name)

    def list_snapshots(self, _request: Any, name: str) -> list[dict[str, Any]]:
        return self.snapshots.listed(name)

    def download(self, _request: Any, name: str, snapshot: str) -> Path:
        return self.snapshots.path(name, snapshot)

    def delete_snapshot(self, _request: Any, name: str, snapshot: str) -> bool:
        self.snapshots.delete(name, snapshot)
        return True

    def recover(self, request: Any, name: str) -> bool:
        location = urllib.parse.urlparse(request.json["location"])
        if location.scheme != "file":
            raise convert.Unsupported("only a file:// location is served here")
        archive = Path(urllib.parse.unquote(location.path))
        if not archive.is_file():
            raise NotFound(f"Not found: Snapshot {archive} not found")
        self.snapshots.recover(name, archive)
        return True

    def upload(self, request: Any, name: str) -> bool:
        with tempfile.NamedTemporaryFile(dir=self.snapshots.root, prefix=".upload-") as handle:
            if not request.save_upload(handle):
                raise BadSnapshot("Wrong input: the form has no file")
            handle.flush()
            self.snapshots.recover(name, Path(handle.name))
        return True
