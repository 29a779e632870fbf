"""The stack that backups are measured on: real stores of a given size, on a file system of our own, written to."""

from __future__ import annotations

import base64
import functools
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bench_path
from fill_qdrant import COLLECTION, DIMENSIONS, vector
from memories import Client, NoAnswer

from live_stack import LiveStack, images

PROJECT = "ombench"
PORT, QDRANT_PORT, NEO4J_PORT = 28796, 28797, 28798
HERE = bench_path.ROOT / "tests" / "bench"
# Shares of what is filled in, as upstream's data are: a memory is a sentence, and its vector is ten times as long.
SHARES = {"qdrant": 0.76, "sqlite": 0.08, "neo4j": 0.06}  # Neo4j writes each byte twice: store and transaction log
TEXT, NODE_TEXT = 300, 2000  # characters
RUNS = 10  # a change touches so many stretches of each store
AUTHORISATION = "Basic " + base64.b64encode(b"neo4j:chaos-password").decode()
WORDS = [
    "user",
    "likes",
    "prefers",
    "coffee",
    "green",
    "tea",
    "meeting",
    "Monday",
    "works",
    "lives",
    "remembers",
    "project",
]
CHECKS = {
    "openmemory-mcp": [
        "python3", "-c",
        "import urllib.request as r; r.urlopen('http://127.0.0.1:8765/api/v1/config/', timeout=4)",
    ],
    "qdrant": ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/6333"],
    "neo4j": ["wget", "--quiet", "--tries=1", "--output-document=/dev/null", "http://127.0.0.1:7474"],
}  # fmt: skip


def call(*command: str, accepted: Sequence[int] = (0,), **options: Any) -> str:
    """Run a command; its standard output. Raises RuntimeError with what it said unless its exit code is accepted."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options
    )
    if done.returncode not in accepted:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


class FileSystem:
    """An image of its own, made, mounted and removed; direct I/O, so that its pages are cached once."""

    def __init__(self, kind: str, place: Path, size: int):
        self.kind, self.place, self.mount, self.size = kind, place, place / "mnt", size
        self.image = place / "image"

    def __enter__(self) -> FileSystem:
        self.remove()
        self.mount.mkdir(parents=True)
        free = shutil.disk_usage(self.place).free
        if free < self.size:
            raise RuntimeError(
                f"{self.place} has {free / 1e9:.0f} GB free, and the image may grow to {self.size / 1e9:.0f}"
            )
        with self.image.open("wb") as handle:
            handle.truncate(self.size)
        options = {"xfs": ["-m", "reflink=1"], "ext4": ["-E", "lazy_itable_init=0,lazy_journal_init=0"]}[self.kind]
        call(f"mkfs.{self.kind}", "-q", *options, str(self.image))
        device = call("losetup", "--find", "--show", "--direct-io=on", str(self.image)).strip()
        call("mount", device, str(self.mount))
        call("losetup", "--detach", device)  # goes with the mount
        return self

    def __exit__(self, *_error: object) -> None:
        self.remove()

    def remove(self) -> None:
        end = time.monotonic() + 60
        while self.mount.is_mount():
            try:
                call("umount", str(self.mount))
            except RuntimeError:  # busy: the engine lets go of a volume a little after its container
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        shutil.rmtree(self.place, ignore_errors=True)

    def give_back(self, *paths: Path) -> None:
        """Remove trees and files, and their blocks from the image."""
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        call("fstrim", str(self.mount))
        call("sync", "--file-system", str(self.mount))


class MeasuredStack(LiveStack):
    """The project with health checks; twice a second, so that no waiting for a check lengthens what others take."""

    def _compose(self) -> dict[str, Any]:
        config = super()._compose()
        for name, test in CHECKS.items():
            config["services"][name]["healthcheck"] = {
                "test": ["CMD", *test], "interval": "500ms", "timeout": "5s", "retries": 120, "start_period": "120s"
            }  # fmt: skip
        config["services"]["qdrant"]["ports"] = [f"127.0.0.1:{QDRANT_PORT}:6333"]
        config["services"]["neo4j"]["ports"] = [f"127.0.0.1:{NEO4J_PORT}:7474"]
        needed = {"condition": "service_healthy"}
        config["services"]["openmemory-mcp"]["depends_on"] = {"qdrant": needed, "neo4j": needed}
        return config

    def restart(self, between: Callable[[], object] = lambda: None) -> None:
        """Stop all, do something, start all."""
        self.compose("stop")
        between()
        self.compose("start")


class Writer(threading.Thread):
    """Adds memories at a steady pace, so that all that is measured meets one load, and notes when each came back."""

    def __init__(self, url: str, per_second: float = 20.0):
        super().__init__(daemon=True)
        self.url, self.pace = url, 1 / per_second
        self.acknowledged: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        client, number = Client(self.url, 30), 0
        while not self.ended.is_set():
            begun = time.monotonic()
            body = {"user_id": "bench", "text": f"{text(120)} {number}", "infer": False, "app": "bench"}
            try:
                client.call("POST", "/api/v1/memories/", body)
                self.acknowledged.append(time.monotonic())
                number += 1
                self.ended.wait(max(0.0, self.pace - (time.monotonic() - begun)))
            except NoAnswer:
                self.ended.wait(0.02)

    def begin(self) -> None:
        """Start, and return once it writes steadily."""
        self.start()
        self._wait(20)

    def outage(self, action: Callable[[], Any]) -> tuple[float, Any]:
        """The longest time between two acknowledged writes while an action ran, in seconds; and what it returned."""
        first = len(self.acknowledged) - 1
        result = action()
        self._wait(2)
        times = self.acknowledged[max(first, 0) :]
        return max(later - earlier for earlier, later in itertools.pairwise(times)), result

    def _wait(self, more: int) -> None:
        wanted, end = len(self.acknowledged) + more, time.monotonic() + 300
        while len(self.acknowledged) < wanted:
            if time.monotonic() > end:
                raise RuntimeError("no memory could be written for 300 s")
            time.sleep(0.02)

    def stop(self) -> None:
        self.ended.set()
        self.join()


@functools.cache
def corpus() -> str:
    """4 MB of words that compress about as language does."""
    return " ".join(f"{random.choice(WORDS)}{random.randrange(1000)}" for _number in range(500_000))


def text(characters: int) -> str:
    """A piece of the corpus, never quite the same."""
    start = random.randrange(len(corpus()) - characters)
    return corpus()[start : start + characters]


def data_bytes(tree: Path) -> int:
    """What was written into the files of a tree: neither holes nor blocks that are only set aside."""
    total = 0
    for directory, _names, files in os.walk(tree):
        for name in files:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                continue
            handle = os.open(path, os.O_RDONLY)
            try:
                total += sum(end - start for start, end in extents(handle))
            finally:
                os.close(handle)
    return total


def extents(handle: int) -> Iterator[tuple[int, int]]:
    at, size = 0, os.fstat(handle).st_size
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError:  # no more data
            return
        at = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, at


class Contents:
    """What fills the stores; count is of points, rows and nodes for a total of size bytes."""

    def __init__(self, stack: MeasuredStack, size: int):
        self.stack = stack
        self.points = int(size * SHARES["qdrant"] / (4 * DIMENSIONS))
        self.rows = int(size * SHARES["sqlite"] / (TEXT + 250))  # 250: keys, and the indexes over them
        self.nodes = int(size * SHARES["neo4j"] / NODE_TEXT)

    def fill(self) -> None:
        """Qdrant's storage by the server's code without the server, the rest through the stack, which is up then."""
        place, script = self.stack.places["qdrant_storage"], HERE / "fill_qdrant.py"
        volumes = ["--volume", f"{place}:/qdrant/storage", "--volume", f"{script}:/fill.py:ro"]
        command = ["docker", "run", "--rm", "--name", f"{PROJECT}-fill", *volumes, images()["qdrant"]]
        call(*command, "python3", "/fill.py", str(self.points))
        self.stack.up()
        self._graph("CREATE INDEX bulk IF NOT EXISTS FOR (n:Bulk) ON (n.id)")
        self._nodes(range(self.nodes))
        with self._database() as database:
            now = datetime.now(UTC).isoformat(" ")[:26]
            owner, app = uuid.uuid4().hex, uuid.uuid4().hex
            database.execute("INSERT INTO users VALUES (?, 'bulk', ?)", (owner, now))
            database.execute("INSERT INTO apps VALUES (?, ?, 'bulk', ?)", (app, owner, now))
            rows = ((self._row(number), owner, app, text(TEXT), now) for number in range(self.rows))
            statement = "INSERT INTO memories (id, user_id, app_id, content, state, created_at) VALUES"
            database.executemany(f"{statement} (?, ?, ?, ?, 'archived', ?)", rows)

    def change(self, share: float = 0.01) -> None:
        """Write a share of each store anew, in stretches all over it, through the servers and SQLite's own locks."""
        points = [{"id": number, "vector": vector(), "payload": {}} for number in self._some(self.points, share)]
        for first in range(0, len(points), 250):
            path = f"/collections/{COLLECTION}/points?wait=true"
            self._send(QDRANT_PORT, "PUT", path, {"points": points[first : first + 250]})
        self._nodes(self._some(self.nodes, share))
        with self._database() as database:
            rows = ((text(TEXT), self._row(number)) for number in self._some(self.rows, share))
            database.executemany("UPDATE memories SET content = ? WHERE id = ?", rows)

    @staticmethod
    def _some(count: int, share: float) -> list[int]:
        each, step = max(1, int(count * share / RUNS)), max(1, count // RUNS)
        start = random.randrange(max(1, step - each))
        found = (number * step + start + offset for number in range(RUNS) for offset in range(each))
        return [number for number in found if number < count]

    @staticmethod
    def _row(number: int) -> str:
        return str(uuid.UUID(int=number))

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A transaction, and the connection closed after it."""
        path = self.stack.places["openmemory_data"] / "openmemory.db"
        database = sqlite3.connect(path, timeout=60)
        with closing(database), database:
            yield database

    def _nodes(self, numbers: Sequence[int]) -> None:
        for first in range(0, len(numbers), 500):
            rows = [{"id": number, "text": text(NODE_TEXT)} for number in numbers[first : first + 500]]
            self._graph("UNWIND $rows AS row MERGE (n:Bulk {id: row.id}) SET n.text = row.text", rows=rows)

    def _graph(self, statement: str, **parameters: Any) -> None:
        body = {"statement": statement, "parameters": parameters}
        self._send(NEO4J_PORT, "POST", "/db/neo4j/query/v2", body, {"authorization": AUTHORISATION})

    @staticmethod
    def _send(port: int, method: str, path: str, body: Any, headers: dict[str, str] | None = None) -> None:
        named = {"content-type": "application/json", "accept": "application/json", **(headers or {})}
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, named, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            answer.read()
