"""Serve Qdrant's storage engine over the subset of Qdrant's REST API that the reference stack needs.

Environment, named as the real server's: QDRANT__SERVICE__API_KEY, QDRANT__SERVICE__HTTP_PORT (6333),
QDRANT__STORAGE__STORAGE_PATH (./storage), QDRANT__STORAGE__SNAPSHOTS_PATH (./snapshots). gRPC is not served.
"""

from __future__ import annotations

import hmac
import json
import os
import shutil
import signal
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import convert
from routes import Api, Plain, Raw
from snapshots import BadSnapshot, Snapshots
from storage import Conflict, NotFound, Storage

OPEN_PATHS = {"/", "/healthz", "/livez", "/readyz"}
FLUSH_SECONDS = 5.0


class Handler(BaseHTTPRequestHandler):
    """One connection. Keeps it open between requests, as clients of a database expect."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    api: Api
    api_key: str | None = None

    def handle_request(self) -> None:
        self.started = time.monotonic()
        url = urllib.parse.urlsplit(self.path)
        self.query = urllib.parse.parse_qs(url.query)
        self.left = int(self.headers.get("content-length") or 0)
        try:
            if not self.allowed(url.path):
                self.reply(401, b"Must provide an API key or an Authorization bearer token", "text/plain")
                return
            handler, parts = self.api.find(self.command, url.path.rstrip("/"))
            self.answer(handler(self, **parts))
        except NotFound as failure:
            self.fail(404, failure)
        except Conflict as failure:
            self.fail(409, failure)
        except (convert.Unsupported, BadSnapshot, KeyError, TypeError, json.JSONDecodeError) as failure:
            self.fail(400, failure)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as failure:  # the engine raises plain Exception; a client must still get an answer
            self.fail(400 if "Wrong input" in str(failure) else 500, failure)
        finally:
            self.drain()

    do_GET = do_POST = do_PUT = do_DELETE = handle_request

    def allowed(self, path: str) -> bool:
        if not self.api_key or path in OPEN_PATHS:
            return True
        bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        given = self.headers.get("api-key") or bearer
        return hmac.compare_digest(given.encode(), self.api_key.encode())

    @property
    def json(self) -> dict[str, Any]:
        if not hasattr(self, "_body") or self._body[0] is not self.headers:
            raw, self.left = self.rfile.read(self.left), 0
            self._body = (self.headers, json.loads(raw or b"{}"))
        return self._body[1]

    def flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[-1] == "true"

    def save_upload(self, target: IO[bytes]) -> bool:
        """Write the first part of a multipart form to `target`; the last boundary is cut off again."""
        boundary = self.headers.get_param("boundary", header="content-type")
        if not isinstance(boundary, str):
            return False
        while self.left and (line := self.rfile.readline(self.left)):
            self.left -= len(line)
            if line in (b"\r\n", b"\n"):
                break
        size = 0
        while self.left and (block := self.rfile.read(min(self.left, 1 << 20))):
            self.left -= len(block)
            size += target.write(block)
        tail = min(size, len(boundary) + 4096)
        target.seek(size - tail)
        end = target.read(tail).find(f"\r\n--{boundary}".encode())
        if end < 0:
            return False
        target.truncate(size - tail + end)
        return True

    def answer(self, result: Any) -> None:
        if isinstance(result, Plain):
            self.reply(200, result.encode(), "text/plain; charset=utf-8")
        elif isinstance(result, Path):
            self.send_file(result)
        elif isinstance(result, Raw):
            self.reply(200, json.dumps(result.body).encode())
        else:
            self.envelope(200, {"result": result, "status": "ok"})

    def fail(self, status: int, failure: Exception) -> None:
        text = failure.args[0] if failure.args else type(failure).__name__
        if isinstance(failure, KeyError):
            text = f"Format error in JSON body: missing field `{text}`"
        self.envelope(status, {"status": {"error": str(text)}})

    def envelope(self, status: int, body: dict[str, Any]) -> None:
        self.reply(status, json.dumps({**body, "time": time.monotonic() - self.started}).encode())

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.drain()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, path: Path) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(path.stat().st_size))
        self.end_headers()
        with open(path, "rb") as handle:
            shutil.copyfileobj(handle, self.wfile, 1 << 20)

    def drain(self) -> None:
        """Read what the handler left of the body, or the next request would start in the middle of it."""
        while self.left and (block := self.rfile.read(min(self.left, 1 << 20))):
            self.left -= len(block)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: a health check every few seconds would be all that the log holds."""


def flush_regularly(storage: Storage, stop: threading.Event) -> None:
    while not stop.wait(FLUSH_SECONDS):
        storage.each(lambda collection: collection.flush())


def main() -> int:
    version = (Path(__file__).parent / "VERSION").read_text().strip().removeprefix("v")
    setting = os.environ.get
    root = Path(setting("QDRANT__STORAGE__STORAGE_PATH", "storage"))
    snapshots = Path(setting("QDRANT__STORAGE__SNAPSHOTS_PATH", "snapshots"))
    snapshots.mkdir(parents=True, exist_ok=True)
    # Threads that mostly wait: hand the interpreter over sooner than after the default 5 ms.
    sys.setswitchinterval(0.0005)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        storage = Storage(root, version)
    except Exception as failure:  # the engine raises plain Exception
        print(f"ERROR qdrant: cannot load the collections in {root.resolve()}: {failure}", file=sys.stderr, flush=True)
        return 1
    Handler.api = Api(storage, Snapshots(snapshots, storage))
    Handler.api_key = setting("QDRANT__SERVICE__API_KEY") or None
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(
        (setting("QDRANT__SERVICE__HOST", "0.0.0.0"), int(setting("QDRANT__SERVICE__HTTP_PORT", "6333"))), Handler
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=flush_regularly, args=(storage, stop), daemon=True).start()
    print(f"INFO qdrant: engine of {version} behind a REST subset on port {server.server_port}; no gRPC", flush=True)
    stop.wait()
    server.shutdown()
    storage.each(lambda collection: collection.close())
    return 0


if __name__ == "__main__":
    sys.exit(main())
