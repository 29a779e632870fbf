# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real Docker SDK against small servers on a real socket: old, silent, and not Docker at all."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError

Serve = Callable[[bytes], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server that gives one answer to every request; an empty one keeps the client waiting."""
    path = str(tmp_path / "docker.sock")
    servers = []
    done = threading.Event()

    def start(answer: bytes) -> str:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.rfile.readline()
                if answer:
                    self.wfile.write(answer)
                else:
                    done.wait(10)

        server = socketserver.ThreadingUnixStreamServer(path, Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return path

    yield start
    done.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(version: str, body: bytes = b'{"Volumes": []}', status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nApi-Version: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
        status.encode(),
        version.encode(),
        len(body),
        body,
    )


def test_a_path_is_a_socket(serve: Serve) -> None:
    path = serve(answer("1.41"))
    engine = Engine.connect(docker_host=path)
    assert engine.volumes() == []
    assert (engine.is_local, engine.docker_host) == (True, f"unix://{path}")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer("1.39"), "speaks API 1.39, and 1.40 (Docker 19.03) or newer is needed; update the engine."),
        (answer("1.41", b'{"message": "client version 1.99 is too new"}', "400 Bad Request"), "is too new"),
        (answer("1.41", b"<html>", "502 Bad Gateway"), "HTTP 502"),
        (answer("1.41", b"<html>"), "did not answer as Docker does"),
        (b"not http\r\n", "cannot be reached"),
        (b"", "(no answer in 1 s); look at the engine's log or raise timeout."),
    ],
    ids=["too old", "refused", "a proxy", "not JSON", "not HTTP", "silent"],
)
def test_trouble_is_one_sentence(serve: Serve, reply: bytes, words: str) -> None:
    with pytest.raises(StackError) as raised:
        Engine.connect(docker_host=serve(reply), timeout=1).volumes()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_option_that_the_sdk_dropped_is_told() -> None:
    with pytest.raises(StackError, match="tls_hostname is not known to version"):
        Engine.connect("tcp://127.0.0.1:1", tls=True, tls_hostname="db")


def test_the_sdk_is_loaded_by_the_first_request_where_asked(serve: Serve) -> None:
    late = Engine.connect("tcp://127.0.0.1:1", tls=True, tls_hostname="db", late=True)
    for _again in range(2):
        with pytest.raises(StackError, match="tls_hostname is not known to version"):
            late.volumes()
    there = Engine.connect(serve(answer("1.41")), late=True)
    assert (there.volumes(), there.is_local) == ([], True)


def test_a_certificate_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "key.pem")
    with pytest.raises(StackError, match=r"docker_host tcp://127\.0\.0\.1:1 cannot be used"):
        Engine.connect("tcp://127.0.0.1:1", tls=True, client_cert=missing, client_key=missing)
