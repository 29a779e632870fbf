# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard's questions to an engine that dies while its socket, held by systemd, goes on taking connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.guard_process import Docker

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
