"""Write memories to a running openmemory-mcp and check later that none was lost. Standard library only.

    memories.py write --url http://127.0.0.1:8765 --user demo --count 1000 --log FILE
    memories.py read  --url http://127.0.0.1:8765 --user demo --log FILE

`write` appends {"id", "text"} to the log, with fsync, for each memory that the service acknowledged. `read` asks every
store for what it holds and prints one JSON line; it exits with 1 if an acknowledged memory is missing or differs in any
of the three stores or if a row of SQLite has no point or node, and with 2 if the service does not answer.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import threading
import time
import urllib.parse
from typing import Any

STORES = ("sqlite", "qdrant", "neo4j")
SHOWN = 20


class NoAnswer(Exception):
    """The service cannot be reached, or answers with an error."""


KEPT_S = 5.0  # how long OpenMemory's server (uvicorn) keeps a connection that no request comes on


class Client:
    """One kept connection to the service.

    A service that was frozen for longer than KEPT_S closes, when it goes on, a connection that was idle when it froze,
    also if a request waits on it by then (tried: always). That one request is sent again, as clients have to.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = urllib.parse.urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
        self.answered: float | None = None  # when the last answer on this connection came

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request. Raises NoAnswer for anything but a good answer; upstream also reports errors with status 200."""
        payload = None if body is None else json.dumps(body)
        try:
            try:
                answer, raw = self._exchange(method, path, payload)
            except ConnectionResetError:  # http.client.RemoteDisconnected is one
                if self.answered is None or time.monotonic() - self.answered < KEPT_S:
                    raise
                self.connection.close()
                answer, raw = self._exchange(method, path, payload)
            content: dict[str, Any] = json.loads(raw)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            self.connection.close()
            self.answered = None
            raise NoAnswer(f"{method} {path.partition('?')[0]}: {failure or type(failure).__name__}") from failure
        if answer.status != 200 or "error" in content:
            raise NoAnswer(
                f"{method} {path.partition('?')[0]} answers {answer.status}: {raw[:200].decode(errors='replace')}"
            )
        return content

    def _exchange(self, method: str, path: str, payload: str | None) -> tuple[http.client.HTTPResponse, bytes]:
        self.connection.request(method, path, payload, {"content-type": "application/json"})
        answer = self.connection.getresponse()
        raw = answer.read()
        self.answered = time.monotonic()
        return answer, raw


class Log:
    """The acknowledged memories, on disk before the next one is sent."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.lock = threading.Lock()
        self.count = 0

    def add(self, identity: str, text: str) -> None:
        line = json.dumps({"id": identity, "text": text}) + "\n"
        with self.lock:
            os.write(self.file, line.encode())
            self.count += 1
        os.fsync(self.file)


def acknowledged(path: str) -> dict[str, str]:
    """Texts by id of the log; a last line cut short by a crash was not acknowledged."""
    found = {}
    with open(path, encoding="utf-8") as handle:
        for line in handle:
            if line.endswith("\n"):
                entry = json.loads(line)
                found[entry["id"]] = entry["text"]
    return found


def compare(expected: dict[str, str], stores: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What of the acknowledged memories each store holds, and whether the stores agree."""
    missing = [
        f"{store}:{identity}"
        for identity, text in expected.items()
        for store in STORES
        if stores[store].get(identity) != text
    ]
    rows = stores["sqlite"]
    orphans = [f"{store}:{i}" for store in STORES[1:] for i, text in rows.items() if stores[store].get(i) != text]
    return {
        "acknowledged": len(expected),
        **{store: len(stores[store]) for store in STORES},
        "missing": missing[:SHOWN],
        "missing_count": len(missing),
        "without_row": sum(i not in rows for store in STORES[1:] for i in stores[store]),
        "agree": not missing and not orphans,
    }


def write(options: argparse.Namespace) -> int:
    log = Log(options.log)
    run = time.strftime("%Y%m%dT%H%M%S")
    started = time.monotonic()
    numbers = iter(range(options.count)) if options.seconds is None else iter(int, 1)
    lock = threading.Lock()
    failures: list[str] = []
    sent = [0]

    def next_text() -> str | None:
        with lock:
            late = options.seconds is not None and time.monotonic() - started > options.seconds
            if late or (failures and not options.tolerate) or next(numbers, None) is None:
                return None
            sent[0] += 1
            return f"{options.user} remembers fact {sent[0]} of {run}"

    def work() -> None:
        client = Client(options.url, options.timeout)
        while (text := next_text()) is not None:
            body = {"user_id": options.user, "text": text, "infer": False, "app": options.app}
            try:
                log.add(client.call("POST", "/api/v1/memories/", body)["id"], text)
            except NoAnswer as failure:
                failures.append(str(failure))
                time.sleep(0.2)
            time.sleep(options.pause)

    workers = [threading.Thread(target=work) for _number in range(options.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - started
    result = {
        "acknowledged": log.count,
        "failed": len(failures),
        "error": failures[0] if failures else None,
        "seconds": round(seconds, 2),
        "per_second": round(log.count / seconds, 1),
    }
    print(json.dumps(result))
    return 1 if failures and not options.tolerate else 0


def read(options: argparse.Namespace) -> int:
    expected = acknowledged(options.log)
    try:
        stores = Client(options.url, options.timeout).call(
            "GET", f"/api/v1/stores/?user_id={urllib.parse.quote(options.user)}"
        )
    except NoAnswer as failure:
        print(json.dumps({"acknowledged": len(expected), "error": str(failure), "agree": False}))
        return 2
    result = compare(expected, stores)
    print(json.dumps(result))
    return 0 if result["agree"] else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write memories, and check that none of the acknowledged ones was lost."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, action in (("write", write), ("read", read)):
        verb = verbs.add_parser(name)
        verb.set_defaults(action=action)
        verb.add_argument("--url", default="http://127.0.0.1:8765")
        verb.add_argument("--user", default="demo")
        verb.add_argument("--log", required=True, help="file of the acknowledged memories")
        verb.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for one answer")
        if name == "write":
            verb.add_argument("--count", type=int, default=1000)
            verb.add_argument("--seconds", type=float, help="write for so long instead of a count")
            verb.add_argument("--workers", type=int, default=8)
            verb.add_argument("--pause", type=float, default=0.0, help="seconds that each worker waits between two")
            verb.add_argument("--app", default="openmemory")
            verb.add_argument(
                "--tolerate", action="store_true", help="go on after errors; what failed is not in the log"
            )
    options = parser.parse_args()
    return int(options.action(options))


if __name__ == "__main__":
    sys.exit(main())
