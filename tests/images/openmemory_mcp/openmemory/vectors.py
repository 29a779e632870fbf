"""The Qdrant side, over its REST API with one kept connection per thread."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any

from .embedding import DIMENSIONS, embed

COLLECTION = "openmemory"
PAGE = 1000
TIMEOUT_S = 30


class VectorStoreError(Exception):
    """Qdrant refused a request or cannot be reached."""


class Vectors:
    def __init__(self, host: str, port: int, api_key: str | None) -> None:
        self.address = (host, port)
        self.headers = {"content-type": "application/json", **({"api-key": api_key} if api_key else {})}
        self.local = threading.local()
        self.ready = False
        self.lock = threading.Lock()

    def add(self, identity: str, text: str, payload: dict[str, Any]) -> None:
        self._ensure()
        point = {"id": identity, "vector": embed(text), "payload": {"data": text, **payload}}
        self._call("PUT", f"/collections/{COLLECTION}/points?wait=true", {"points": [point]})

    def delete(self, identities: list[str]) -> None:
        self._call("POST", f"/collections/{COLLECTION}/points/delete?wait=true", {"points": identities})

    def all_of(self, user_id: str) -> dict[str, str]:
        """The texts of a user's points by id; none if there is no collection yet."""
        self._ensure()
        wanted = {"must": [{"key": "user_id", "match": {"value": user_id}}]}
        found: dict[str, str] = {}
        offset = None
        while True:
            body = {"filter": wanted, "limit": PAGE, "with_payload": ["data"], "offset": offset}
            page = self._call("POST", f"/collections/{COLLECTION}/points/scroll", body)
            found.update({str(p["id"]): p["payload"].get("data", "") for p in page["points"]})
            offset = page["next_page_offset"]
            if offset is None:
                return found

    def nearest(self, user_id: str, text: str, limit: int) -> list[dict[str, Any]]:
        self._ensure()
        wanted = {"must": [{"key": "user_id", "match": {"value": user_id}}]}
        body = {"query": embed(text), "filter": wanted, "limit": limit, "with_payload": True}
        return list(self._call("POST", f"/collections/{COLLECTION}/points/query", body)["points"])

    def _ensure(self) -> None:
        with self.lock:
            if self.ready:
                return
            if not self._call("GET", f"/collections/{COLLECTION}/exists")["exists"]:
                vectors = {"size": DIMENSIONS, "distance": "Cosine"}
                self._call("PUT", f"/collections/{COLLECTION}", {"vectors": vectors})
            self.ready = True

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        payload = None if body is None else json.dumps(body)
        try:
            answer = self._exchange(method, path, payload)
        except (http.client.HTTPException, ConnectionError):
            # A kept connection dies with the server it led to; every request here may be repeated.
            self.local.connection.close()
            try:
                answer = self._exchange(method, path, payload)
            except (http.client.HTTPException, OSError) as failure:
                self._lost(failure)
        except OSError as failure:
            self._lost(failure)
        status, raw = answer
        if status >= 400:
            self.ready = False
            raise VectorStoreError(f"Qdrant answers {status}: {raw[:200].decode(errors='replace')}")
        return json.loads(raw)["result"]

    def _lost(self, failure: Exception) -> None:
        self.local.connection.close()
        self.ready = False
        raise VectorStoreError(
            f"Qdrant cannot be reached at {self.address[0]}:{self.address[1]}: {failure}"
        ) from failure

    def _exchange(self, method: str, path: str, payload: str | None) -> tuple[int, bytes]:
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT_S)
        connection = self.local.connection
        connection.request(method, path, payload, self.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
