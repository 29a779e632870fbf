# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard beside an engine that dies while its socket, held by systemd, goes on taking connections; and beside the
next operation on its containers.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import guard, guard_process
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.guard_process import Docker
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places

LONG_S = 60.0  # a question that is not cut short lasts as long, and fails the test by the join


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "docker.sock"))
        made.listen(8)
        yield made


def asked(docker: Docker) -> tuple[threading.Thread, list[int]]:
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(docker.unpause("a", LONG_S)), daemon=True)
    thread.start()
    return thread, answers


def test_a_question_ends_with_the_engine_that_would_have_answered(listener: socket.socket) -> None:
    docker = Docker(listener.getsockname())
    assert docker.hold()
    engine = listener.accept()[0]
    thread, answers = asked(docker)
    engine.close()
    thread.join(10)
    assert answers == [0]
    assert docker.line is None


def test_an_engine_that_died_before_the_question(listener: socket.socket) -> None:
    docker = Docker(listener.getsockname())
    assert docker.hold()
    listener.accept()[0].close()
    thread, answers = asked(docker)
    thread.join(10)
    assert answers == [0]


def test_what_comes_over_the_line_is_no_answer_and_no_end(listener: socket.socket) -> None:
    docker = Docker(listener.getsockname())
    assert docker.hold()
    engine = listener.accept()[0]
    engine.sendall(b"HTTP/1.1 200 OK\r\n\r\nOK")
    thread, answers = asked(docker)
    connection = listener.accept()[0]
    assert connection.recv(65536).startswith(b"POST /containers/a/unpause HTTP/1.0")
    connection.sendall(b"HTTP/1.0 204 No Content\r\n\r\n")
    connection.close()
    thread.join(10)
    assert answers == [204]
    assert docker.line is not None


def test_no_engine_at_all(tmp_path: Path) -> None:
    docker = Docker(str(tmp_path / "docker.sock"))
    assert not docker.hold()
    assert docker.unpause("a", 1.0) == 0


@pytest.fixture
def container(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "freezer.state"
    file.write_text("THAWED")
    return {"id": "a", "freezer": {"file": str(file), "freeze": "FROZEN", "thaw": "THAWED"}}


@pytest.mark.parametrize("state", [None, "running", "ended"])
def test_an_open_freezer_is_closed_for_a_pause_that_the_engine_is_seen_to_believe_in_only(
    container: dict[str, Any], state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    monkeypatch.setattr(guard_process, "set_freezer", lambda _container, word: written.append(word))
    docker: Any = Docker("/nowhere")
    docker.unpause = lambda _id, _timeout: 500
    docker.state = lambda _container, _timeout: state
    assert guard_process.resume(docker, container, 1.0) is (state is not None)
    assert written == []


def test_no_freezer_is_closed_for_an_engine_that_is_dead_behind_its_socket(
    container: dict[str, Any], listener: socket.socket
) -> None:
    docker: Any = Docker(listener.getsockname())
    docker.unpause = lambda _id, _timeout: 500
    docker.state = lambda _container, _timeout: "paused"
    assert not guard_process.resume(docker, container, 1.0)
    assert Path(container["freezer"]["file"]).read_text() == "THAWED"


@pytest.mark.parametrize(("owner", "opened"), [("mine", True), ("another's", False), (None, True)])
def test_a_guard_that_comes_late_leaves_the_containers_to_the_next_operation(
    tmp_path: Path, container: dict[str, Any], owner: str | None, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_process.signal, "signal", lambda *_arguments: None)
    monkeypatch.setattr(guard_process, "SETTLE_S", 0.0)
    monkeypatch.setattr(guard_process, "RECONCILE_S", 0.0)
    record, freezer = tmp_path / "guard.json", Path(container["freezer"]["file"])
    freezer.write_text("FROZEN")
    if owner:
        record.write_text(json.dumps({"id": "1", "nonce": owner}))
    ours, _theirs = socket.socketpair()
    orders = {"id": "1", "nonce": "mine", "record": str(record), "containers": [container], "socket": "/nowhere"}
    guard_process.Guard(guard_process.Parent(ours), orders).fire("parent")
    assert freezer.read_text() == ("THAWED" if opened else "FROZEN")
    if opened:
        assert json.loads(record.read_text())["reason"] == "parent"


def test_an_engine_that_holds_the_first_answer_keeps_no_container_frozen(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a health check does that froze with its container; the seconds count where another host had to be awaited."""
    monkeypatch.setattr(guard_process.signal, "signal", lambda *_arguments: None)
    monkeypatch.setattr(guard_process, "RECONCILE_S", 0.0)
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_text("FROZEN")
    containers = [{"id": f.name, "freezer": {"file": str(f), "freeze": "FROZEN", "thaw": "THAWED"}} for f in files]
    orders = {
        "id": "1",
        "nonce": "mine",
        "record": str(tmp_path / "guard.json"),
        "containers": containers,
        "socket": listener.getsockname(),
    }
    ours, _theirs = socket.socketpair()
    fire = threading.Thread(
        target=guard_process.Guard(guard_process.Parent(ours), orders).fire, args=("parent",), daemon=True
    )
    begun = time.monotonic()
    fire.start()
    while [file.read_text() for file in files] != ["THAWED"] * 3:
        assert time.monotonic() - begun < guard_process.SWEEP_S, "the engine was waited for"
        time.sleep(0.01)


def test_recovery_waits_for_a_guard_that_has_just_fired(tmp_path: Path) -> None:
    places = Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))
    record = {"id": "1", "nonce": "n", "reason": "parent", "time": time.time(), "settled": False}
    Path(places.guard).write_text(json.dumps(record))
    settle = threading.Timer(0.3, lambda: Path(places.guard).write_text(json.dumps({**record, "settled": True})))
    settle.start()
    begun = time.monotonic()
    guard.await_settled(places, "1")
    assert json.loads(Path(places.guard).read_text())["settled"]
    guard.await_settled(places, "another")
    Path(places.guard).write_text(json.dumps({**record, "time": time.time() - 60}))
    guard.await_settled(places, "1")  # it has died
    assert time.monotonic() - begun < guard_process.SETTLE_S
