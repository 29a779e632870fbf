"""The check that no acknowledged memory was lost must itself be able to fail."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import memories
import pytest

KEPT = {"a": "one", "b": "two"}


def stores(**changed: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: changed.get(name, dict(KEPT)) for name in memories.STORES}


def test_all_there() -> None:
    result = memories.compare(KEPT, stores())
    assert result["agree"]
    assert (result["acknowledged"], result["sqlite"], result["qdrant"], result["neo4j"]) == (2, 2, 2, 2)
    assert result["missing"] == []


@pytest.mark.parametrize("store", memories.STORES)
def test_one_missing_in_one_store(store: str) -> None:
    result = memories.compare(KEPT, stores(**{store: {"a": "one"}}))
    assert not result["agree"]
    assert result["missing"] == [f"{store}:b"]


@pytest.mark.parametrize("store", memories.STORES)
def test_another_text_under_the_id(store: str) -> None:
    assert memories.compare(KEPT, stores(**{store: {"a": "one", "b": "TWO"}}))["missing"] == [f"{store}:b"]


def test_row_without_point_is_a_loss_even_if_never_acknowledged() -> None:
    result = memories.compare(KEPT, stores(sqlite={**KEPT, "c": "three"}, neo4j={**KEPT, "c": "three"}))
    assert result["missing"] == []
    assert not result["agree"]


def test_point_without_row_is_what_a_cut_leaves() -> None:
    result = memories.compare(KEPT, stores(qdrant={**KEPT, "c": "three"}))
    assert result["agree"]
    assert result["without_row"] == 1


def test_long_lists_are_counted_and_cut() -> None:
    result = memories.compare({str(i): "x" for i in range(100)}, stores(sqlite={}, qdrant={}, neo4j={}))
    assert result["missing_count"] == 300
    assert len(result["missing"]) == memories.SHOWN


def test_log_survives_a_cut_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = memories.Log(str(path))
    log.add("a", "one")
    with path.open("a") as handle:
        handle.write(json.dumps({"id": "b", "text": "two"})[:10])
    assert memories.acknowledged(str(path)) == {"a": "one"}


class Freezing(threading.Thread):
    """A server that answers each connection's first request, and closes the connection as it gets the second one."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.connections = 0

    def run(self) -> None:
        while True:
            connection = self.socket.accept()[0]
            self.connections += 1
            with connection, connection.makefile("rb") as lines:
                for number in range(2):
                    while lines.readline().strip():
                        pass
                    lines.read(2)  # the body, {}
                    if not number:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("idle", [True, False])
def test_only_a_connection_that_was_idle_for_long_is_made_again(idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a freeze; anything else is a failed request."""
    monkeypatch.setattr(memories, "KEPT_S", 0.0 if idle else 60.0)
    server = Freezing()
    server.start()
    client = memories.Client(f"http://127.0.0.1:{server.socket.getsockname()[1]}", 10)
    assert client.call("POST", "/", {}) == {}
    if idle:
        assert client.call("POST", "/", {}) == {}
        assert server.connections == 2
    else:
        with pytest.raises(memories.NoAnswer, match="closed connection"):
            client.call("POST", "/", {})
