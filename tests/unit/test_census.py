# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The census: ranges, comparisons, and what is asked of which container."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof import ask, census, ids, login, memories
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.volume_keys import stores_of

Q, N, S = {"collections": {"mem": 5}}, {"nodes": 6, "relationships": 5}, {"tables": {"memories": 5, "users": 1}}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Q, Q, Q),
        (N, {"nodes": 8, "relationships": 5}, {"nodes": [6, 8], "relationships": 5}),
        (Q, {"collections": {"mem": 4, "new": 2}}, {"collections": {"mem": [4, 5], "new": [0, 2]}}),
        (Q, None, None),
    ],
)
def test_between_two_askings(before: Any, after: Any, expected: Any) -> None:
    assert census.between({"v": before}, {"v": after}) == {"v": expected}


@pytest.mark.parametrize(
    ("expected", "found", "differences"),
    [
        (S, S, []),
        (S, {"tables": {"memories": 4, "users": 1}}, ["v: table memories: 4 found, 5 expected."]),
        (S, {"tables": {"users": 1}}, ["v: table memories: none found, 5 expected."]),
        (Q, {"collections": {"mem": 5, "more": 1}}, ["v: collection more: 1 found, 0 expected."]),
        ({"nodes": [6, 8], "relationships": 5}, {"nodes": 7, "relationships": 5}, []),
        ({"nodes": [6, 8], "relationships": 5}, {"nodes": 9, "relationships": 5},
         ["v: nodes: 9 found, 6 to 8 expected."]),
        ({"collections": {"mem": 5, "new": [0, 2]}}, Q, []),
        ({"nodes": 6, "relationships": 5}, {"nodes": [4, 6], "relationships": [6, 7]},
         ["v: relationships: 6 to 7 found, 5 expected."]),
        (Q, None, ["v: it could not be counted, and held 1 collections, 5 points."]),
        (None, Q, []),
    ],
)  # fmt: skip
def test_compare(expected: Any, found: Any, differences: list[str]) -> None:
    assert census.compare({"v": expected}, {"v": found}) == differences


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (S, "2 tables, 6 rows"),
        ({"collections": {"mem": [4, 5]}}, "1 collections, 4 to 5 points"),
        (N, "6 nodes, 5 relationships"),
        (None, "not counted"),
    ],
)
def test_in_words(one: Any, words: str) -> None:
    assert census.total(one) == words


class Stub(BaseHTTPRequestHandler):
    """Answers from a table, and keeps what it was asked."""

    port: int
    answers: dict[str, tuple[int, Any]]
    asked: list[tuple[str, str, Any, str | None]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or "null")
        login = self.headers.get("authorization") or self.headers.get("api-key")
        self.asked.append((self.command, self.path, body, login))
        status, answer = self.answers.get(self.path, (404, {"status": "not found"}))
        payload = json.dumps(answer(body) if callable(answer) else answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def stub() -> Iterator[type[Stub]]:
    made: type[Stub] = type("Made", (Stub,), {"answers": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), made)
    made.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def container(image: str, volume: str, destination: str, env: list[str], running: bool = True) -> dict[str, Any]:
    """An inspected container whose first process is this test: its network namespace is then ours."""
    return {
        "Name": "/it",
        "Config": {"Image": image, "Env": env, "Labels": {"com.docker.compose.project": "om"}},
        "State": {"Running": running, "Pid": os.getpid() if running else 0},
        "Mounts": [{"Type": "volume", "Name": volume, "Destination": destination, "RW": True}],
    }


class Volumes:
    @staticmethod
    def volumes() -> list[dict[str, Any]]:
        return [{"Name": "om_q"}, {"Name": "om_n"}, {"Name": "om_m"}, {"Name": "other_q"}]


def test_counts_with_the_credentials_of_the_containers_and_says_what_refuses(stub: Any) -> None:
    count = "/collections/a%20b/points/count"
    stub.answers = {
        "/collections": (200, {"result": {"collections": [{"name": "a b"}]}}),
        count: (200, {"result": {"count": 7}}),
        "/db/neo4j/query/v2": (
            401,
            {"errors": [{"code": "Neo.ClientError.Security.Unauthorized", "message": "Invalid credential."}]},
        ),
    }
    containers = {
        "q": container("qdrant/qdrant:v1.20.0", "om_q", "/qdrant/storage",
                       [f"QDRANT__SERVICE__HTTP_PORT={stub.port}", "QDRANT__SERVICE__API_KEY=key"]),
        "n": container("neo4j:5.26.30", "om_n", "/data",
                       [f"NEO4J_server_http_listen__address=0.0.0.0:{stub.port}", "NEO4J_AUTH=neo4j/secret-word/true"]),
        "m": container("mem0/openmemory-mcp:1.0", "om_m", "/data", ["DATABASE_URL=sqlite:////data/openmemory.db"]),
        "stopped": container("qdrant/qdrant:v1.20.0", "other_q", "/qdrant/storage", [], running=False),
    }  # fmt: skip
    notes: list[str] = []
    assert census.ask(Volumes(), containers, notes=notes) == {
        "q": {"collections": {"a b": 7}},
        "n": None,
        "other_q": None,
    }
    assert notes == [
        "n was not counted: Neo4j in it refuses the login (Invalid credential.).",
        "other_q was not counted: Qdrant does not run, so its points were not counted.",
    ]
    basic = "Basic " + base64.b64encode(b"neo4j:secret-word").decode()
    assert {(path, key) for _method, path, _body, key in stub.asked} == {
        ("/collections", "key"),
        (count, "key"),
        ("/db/neo4j/query/v2", basic),
    }
    assert ("POST", count, {"exact": True}, "key") in stub.asked


def test_an_old_neo4j_is_asked_by_its_old_route(stub: Any) -> None:
    rows = {"results": [{"columns": ["n"], "data": [{"row": [3]}]}], "errors": []}
    stub.answers = {"/db/neo4j/tx/commit": (200, rows)}
    graph = ask.neo4j(
        container("neo4j", "n", "/data", [f"NEO4J_server_http_listen__address=:{stub.port}", "NEO4J_AUTH=none"])
    )
    assert graph is not None
    assert graph.run("RETURN $x", {"x": 3}) == [[3]]
    assert [(path, body, key) for _method, path, body, key in stub.asked] == [
        ("/db/neo4j/query/v2", {"statement": "RETURN $x", "parameters": {"x": 3}}, None),
        ("/db/neo4j/tx/commit", {"statements": [{"statement": "RETURN $x", "parameters": {"x": 3}}]}, None),
    ]


def test_the_login_of_a_restored_neo4j(stub: Any) -> None:
    inspected = container(
        "neo4j", "n", "/data", [f"NEO4J_server_http_listen__address=:{stub.port}", "NEO4J_AUTH=neo4j/secret-word"]
    )
    refused = {"errors": [{"code": "Neo.ClientError.Security.Unauthorized", "message": "Invalid credential."}]}
    stub.answers = {"/db/system/query/v2": (401, refused)}
    problem = str(login.login_problem(inspected))
    assert "refuses the password of this host's settings" in problem
    assert "secret-word" not in problem
    stub.answers = {"/db/system/query/v2": (200, {"data": {"fields": ["name"], "values": [["neo4j"]]}})}
    assert login.login_problem(inspected) is None


def test_memories_that_a_store_does_not_know(stub: Any) -> None:
    memories = [f"6f0e8a3c-0000-4000-8000-{number:012x}" for number in range(2500)]
    lost, without_node = memories[7], memories[2400]

    def points(body: Any) -> Any:
        assert len(body["ids"]) <= 1000
        return {"result": [{"id": one} for one in body["ids"] if one != lost]}

    def rows(body: Any) -> Any:
        if "$ids" in body["statement"]:
            values = [[one] for one in body["parameters"]["ids"] if one != without_node]
        else:
            values = [["Memory"], ["id"]]
        return {"data": {"fields": [], "values": values}}

    stub.answers = {
        "/collections": (200, {"result": {"collections": [{"name": "mem"}]}}),
        "/collections/mem/points": (200, points),
        "/db/neo4j/query/v2": (200, rows),
    }
    qdrant = container("qdrant/qdrant", "q", "/qdrant/storage", [f"QDRANT__SERVICE__HTTP_PORT={stub.port}"])
    neo4j = container("neo4j", "n", "/data", [f"NEO4J_server_http_listen__address=:{stub.port}"])
    assert ids.disagreements(memories, qdrant, neo4j) == [
        f"Qdrant has no point for 1 of 2500 active memories ({lost}).",
        f"Neo4j has no node for 1 of 2500 active memories ({without_node}).",
    ]
    assert ids.disagreements(memories[:7], qdrant, neo4j) == []


def test_the_volume_that_covers_the_data_is_the_stores() -> None:
    inspected = container("qdrant/qdrant", "om_q", "/qdrant", [])
    inspected["Mounts"].append({"Type": "volume", "Name": "om_n", "Destination": "/qdrant/storage", "RW": True})
    inspected["Mounts"].append({"Type": "bind", "Source": "/x", "Destination": "/qdrant/storage/x"})
    (store,) = stores_of(Volumes(), [inspected])
    assert (store.key, store.destination, store.kind, store.name) == ("n", "/qdrant/storage", "qdrant", "it")
    misplaced = container("qdrant/qdrant", "om_q", "/mem0/storage", [])
    assert stores_of(Volumes(), [misplaced]) == []


QDRANT = ("qdrant/qdrant", "q", "/qdrant/storage", "QDRANT__SERVICE__HTTP_PORT=")
NEO4J = ("neo4j", "n", "/data", "NEO4J_server_http_listen__address=:")


@pytest.mark.parametrize(
    ("kind", "about", "path", "answer"),
    [
        ("qdrant", QDRANT, "/collections", {"result": []}),
        ("qdrant", QDRANT, "/collections", ["a"]),
        ("qdrant", QDRANT, "/collections", {"result": {"collections": [{"id": 1}]}}),
        ("neo4j", NEO4J, "/db/neo4j/query/v2", {"rows": []}),
        ("neo4j", NEO4J, "/db/neo4j/query/v2", ["a"]),
        ("neo4j", NEO4J, "/db/neo4j/query/v2", {"data": {"values": [["nodes", 1]]}}),
        ("neo4j", NEO4J, "/db/neo4j/query/v2", {"data": {"values": [[1]]}}),
        ("neo4j", NEO4J, "/db/neo4j/query/v2", {"errors": ["a"]}),
    ],
)
def test_an_answer_of_another_shape_is_a_sentence(
    stub: Any, kind: str, about: tuple[str, str, str, str], path: str, answer: Any
) -> None:
    image, volume, destination, setting = about
    stub.answers = {path: (200, answer)}
    inspected = container(image, volume, destination, [f"{setting}{stub.port}"])
    with pytest.raises(ask.AnswerError, match="in it answers in a shape that is not known here"):
        census.count(kind, inspected)


@pytest.mark.parametrize("answer", [{"items": []}, {"total": "x", "items": []}, {"total": 1, "items": [{"key": 1}]}])
def test_memories_of_another_shape_are_a_sentence(stub: Any, answer: Any) -> None:
    stub.answers = {"/api/v1/memories/?user_id=alice&page=1&size=100": (200, answer)}
    service = ask.Service("OpenMemory in it", os.getpid(), stub.port)
    with pytest.raises(ask.AnswerError, match="OpenMemory in it answers in a shape that is not known here"):
        memories.read_back(service, {"alice": {"1"}})
