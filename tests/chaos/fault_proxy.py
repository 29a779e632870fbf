# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in front of a real HTTP server and does what networks and servers do on a bad day."""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_BLOCK = 64 * 1024
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "expect")


Wanted = Callable[[str, str], bool]


def any_request(_method: str, _path: str) -> bool:
    return True


def a_pack_sent(method: str, path: str) -> bool:
    """A file of data on its way to the server."""
    return method in ("PUT", "POST") and "/data/" in path


@dataclass
class Fault:
    """What happens to a request.

    wanted says by method and path whether this one; times: to how many, -1 for all. status, headers and body are an
    answer in place of the server's. drop_after: bytes of the request's body (or, where it has none, of the answer)
    after which the connection is reset. silent_s: seconds in which nothing at all is said, then the connection ends.
    """

    wanted: Wanted = any_request
    times: int = -1
    status: int = 0
    body: str = ""
    drop_after: int = -1
    silent_s: float = 0.0


def s3_error(status: int, code: str, message: str = "", wanted: Wanted = any_request, times: int = -1) -> Fault:
    """An answer as S3 words it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message or code}</Message></Error>'
    return Fault(wanted, times, status, body)


class FaultProxy:
    """Use as a context manager. `fault` can be set and taken away while it runs; `hits` counts what it did."""

    def __init__(self, target_port: int):
        self.target_port = target_port
        self.fault: Fault | None = None
        self.hits = 0
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, None for a good day."""
        with self._lock:
            self.requests.append((method, path))
            fault = self.fault
            if fault is None or fault.times == 0 or not fault.wanted(method, path):
                return None
            fault.times -= fault.times > 0
            self.hits += 1
            return fault


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultProxy

    def _pass(self) -> None:
        fault = self.owner.take(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.silent_s:
            time.sleep(fault.silent_s)
            return self._reset()
        if fault and fault.drop_after >= 0 and length:
            self.rfile.read(min(length, fault.drop_after))
            return self._reset()
        body = self.rfile.read(length) if length else b""
        if fault and fault.status:
            return self._answer(fault.status, [("Content-Type", "application/xml")], fault.body.encode())
        return self._forward(body, fault)

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        server = http.client.HTTPConnection("127.0.0.1", self.owner.target_port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                server.putheader(name, value)  # the Host of the client stays: S3's signature covers it
            server.endheaders(body or None)
            answer = server.getresponse()
            found = answer.read()
        except OSError:
            return self._reset()
        finally:
            server.close()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
        return self._answer(answer.status, kept, found, fault.drop_after if fault else -1)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, drop_after: int = -1) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if drop_after < 0 else body[:drop_after])
        if drop_after >= 0:
            self._reset()

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""
