"""The three services together: one memory under one id in three stores, and what the versions do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import IMAGES, PREFIX, Containers, ask, docker, wait_for

DATABASE = "/usr/src/openmemory/data/openmemory.db"
OPTIONS = [
    "--env=GOOGLE_API_KEY=none",
    "--env=NEO4J_PASSWORD=test-password",
    f"--env=DATABASE_URL=sqlite:///{DATABASE}",
    f"--volume={PREFIX}-app:/usr/src/openmemory/data",
]


def memories(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(IMAGES / "memories.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def app(containers: Containers) -> str:
    containers.run("qdrant", containers.image("qdrant"))
    graph = containers.run("neo4j", containers.image("neo4j"), "--env=NEO4J_AUTH=neo4j/test-password")
    address = containers.run("app", containers.image("mem0/openmemory-mcp:1.0"), *OPTIONS)
    wait_for(f"http://{graph}:7474")
    wait_for(f"http://{address}:8765/api/v1/config/")
    return f"http://{address}:8765"


def schema() -> str:
    ask_version = "SELECT max(version) FROM schema_version"
    text = f"import sqlite3; print(sqlite3.connect('{DATABASE}').execute('{ask_version}').fetchone()[0])"
    return docker("exec", f"{PREFIX}-app", "python3", "-c", text).strip()


def test_life_of_memories(containers: Containers, app: str, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    code, wrote = memories("write", "--url", app, "--count", "100", "--log", log)
    assert (code, wrote["acknowledged"], wrote["failed"]) == (0, 100, 0)
    code, read = memories("read", "--url", app, "--log", log)
    assert (code, read["sqlite"], read["qdrant"], read["neo4j"], read["agree"]) == (0, 100, 100, 100, True)

    listed = ask(f"{app}/api/v1/memories/?user_id=demo&size=3")[1]
    assert (listed["total"], len(listed["items"])) == (100, 3)
    lost = listed["items"][0]["id"]
    assert ask(f"{app}/api/v1/memories/{lost}")[1]["content"] == listed["items"][0]["content"]
    assert ask(f"{app}/api/v1/memories/", "DELETE", {"memory_ids": [lost], "user_id": "demo"})[0] == 200
    code, read = memories("read", "--url", app, "--log", log)
    assert (code, sorted(read["missing"])) == (1, sorted(f"{store}:{lost}" for store in ("sqlite", "qdrant", "neo4j")))

    # The update migrates; the version before it then refuses to start, and leaves the database alone.
    assert schema() == "1"
    address = containers.replace("app", containers.image("mem0/openmemory-mcp:1.1"), *OPTIONS)
    app = f"http://{address}:8765"
    wait_for(f"{app}/api/v1/config/")
    assert schema() == "2"
    assert memories("write", "--url", app, "--count", "10", "--log", log)[0] == 0
    assert memories("read", "--url", app, "--log", log)[1]["sqlite"] == 109
    containers.replace("app", containers.image("mem0/openmemory-mcp:1.0"), *OPTIONS)
    assert containers.exit_code("app") == 1
    assert "the database has schema 2" in containers.logs("app")


def test_failing_store_leaves_no_row_and_recovers(containers: Containers, app: str, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    assert memories("write", "--url", app, "--count", "20", "--log", log)[0] == 0
    for store in ("qdrant", "neo4j"):
        docker("kill", "--signal", "KILL", f"{PREFIX}-{store}")
        code, wrote = memories("write", "--url", app, "--count", "1", "--workers", "1", "--log", log)
        assert (code, wrote["acknowledged"]) == (1, 0)
        assert "answers 200" in wrote["error"]
        docker("start", f"{PREFIX}-{store}")
        port = {"qdrant": "6333", "neo4j": "7474"}[store]
        wait_for(f"http://{containers.address(store)}:{port}/")
        code, wrote = memories("write", "--url", app, "--count", "20", "--log", log)
        assert (code, wrote["error"]) == (0, None)
    code, read = memories("read", "--url", app, "--log", log)
    assert (code, read["acknowledged"], read["sqlite"], read["missing"]) == (0, 60, 60, [])


def test_unhealthy_version_answers_but_never_well(containers: Containers) -> None:
    address = containers.run("app", containers.image("mem0/openmemory-mcp:unhealthy"), *OPTIONS)
    wait_for(f"http://{address}:8765/api/v1/config/", status=500)


@pytest.mark.parametrize("missing", ["GOOGLE_API_KEY", "NEO4J_PASSWORD"])
def test_missing_secret_stops_the_start(containers: Containers, missing: str) -> None:
    options = [option for option in OPTIONS if missing not in option]
    containers.run("app", containers.image("mem0/openmemory-mcp:1.0"), *options)
    assert containers.exit_code("app") == 1
    assert f"{missing} is not set" in containers.logs("app")
