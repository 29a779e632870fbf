# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP to the process of a container, inside its network namespace: no published port and no network is needed.

A socket belongs to the namespace in which it was made, whoever uses it later. So a thread of its own enters the
namespace, makes the socket there and ends; the rest of the process never leaves its own.
"""

from __future__ import annotations

import base64
import ctypes
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import StackError
from ..stores.container import Container

TIMEOUT = 30.0  # seconds for one request
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET of sched.h
_QUERY = "/db/{database}/query/v2"  # from Neo4j 5.19 on
_TRANSACTION = "/db/{database}/tx/commit"  # before


class LoginError(StackError):
    """The store runs, and refuses the credentials that its container's settings name."""


class AnswerError(StackError):
    """The store runs, and answers with an error; code is its HTTP status or Neo4j's own code."""

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


class UnansweredError(StackError):
    """Nothing listens there (yet), or it did not answer in time."""


class Service:
    """A service on a port of a running container, found by the container's process id on this host."""

    def __init__(self, name: str, pid: int, port: int, headers: Mapping[str, str] | None = None):
        self.name = name
        self._pid = pid
        self._port = port
        self._headers = {"Accept": "application/json", **(headers or {})}

    def ask(self, method: str, path: str, body: Any = None, timeout: float = TIMEOUT) -> Any:
        """The decoded JSON of an answer with status 200 to 299 (text where it is no JSON).

        timeout is in seconds. Raises LoginError for 401 and 403, AnswerError for any other status, UnansweredError
        where there is no answer.
        """
        status, text = self.exchange(method, path, body, timeout)
        if status in (401, 403):
            raise LoginError(f"{self.name} refuses the credentials of its container's settings (HTTP {status}).")
        if not 200 <= status < 300:
            raise AnswerError(f"{self.name} answers {method} {path} with HTTP {status}: {_short(text)}", str(status))
        try:
            return json.loads(text)
        except ValueError:
            return text

    def exchange(self, method: str, path: str, body: Any = None, timeout: float = TIMEOUT) -> tuple[int, str]:
        """Status and text of an answer, whatever the status; timeout in seconds. Raises UnansweredError."""
        data = None if body is None else json.dumps(body).encode()
        headers = dict(self._headers)
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
            connection.sock = socket_of(self._pid)
            connection.sock.settimeout(timeout)
            try:
                connection.sock.connect(("127.0.0.1", self._port))
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode("utf-8", "replace")
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise UnansweredError(f"{self.name} does not answer on its port {self._port} ({error}).") from error


@contextmanager
def shaped(name: str) -> Iterator[None]:
    """Raise AnswerError where what a service answers is not of the shape that is read inside."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise AnswerError(f"{name} answers in a shape that is not known here ({_short(what)}).") from error


def socket_of(pid: int) -> socket.socket:
    """A new TCP socket in the network namespace of a process. Needs root unless it is our own; raises OSError."""
    if os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            setns = ctypes.CDLL(None, use_errno=True).setns
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if setns(namespace, _NEW_NETWORK) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
                made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            finally:
                os.close(namespace)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def pid_of(inspected: Mapping[str, Any]) -> int | None:
    """The process id on this host of an inspected container's first process, or None if it does not run."""
    state = inspected["State"]
    return int(state["Pid"]) if state.get("Running") and state.get("Pid") else None


def qdrant(inspected: Mapping[str, Any]) -> Service | None:
    """Qdrant in an inspected container, with the API key of its environment; None if it does not run."""
    pid, container = pid_of(inspected), Container.from_inspect(inspected)
    if pid is None:
        return None
    settings = container.environment
    key = settings.get("QDRANT__SERVICE__API_KEY") or settings.get("QDRANT__SERVICE__READ_ONLY_API_KEY")
    port = int(settings.get("QDRANT__SERVICE__HTTP_PORT") or 6333)
    return Service(f"Qdrant in {container.name}", pid, port, {"api-key": key} if key else None)


class Neo4j:
    """Neo4j's HTTP interface: statements with parameters, on any of its databases."""

    def __init__(self, service: Service):
        self.service = service

    def run(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None = None,
        database: str = "neo4j",
        timeout: float = TIMEOUT,
    ) -> list[list[Any]]:
        """The rows that a statement gives. Raises LoginError, AnswerError (with Neo4j's code), UnansweredError."""
        given = {"statement": statement, "parameters": dict(parameters or {})}
        status, text = self.service.exchange("POST", _QUERY.format(database=database), given, timeout)
        if status in (404, 405) and "errors" not in text:  # 5.18 and older do not have the route
            path = _TRANSACTION.format(database=database)
            status, text = self.service.exchange("POST", path, {"statements": [given]}, timeout)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {}
        with shaped(self.service.name):
            first = (answer.get("errors") or [None])[0]
            problem = (str(first.get("code", "")), str(first.get("message", ""))) if first is not None else None
        if problem:
            self._refuse(status, *problem)
        if status in (401, 403) or not 200 <= status < 300:
            self._refuse(status, str(status), text)
        with shaped(self.service.name):
            if "results" in answer:
                return [row["row"] for result in answer["results"] for row in result["data"]]
            return list(answer["data"]["values"])

    def _refuse(self, status: int, code: str, message: str) -> None:
        if status in (401, 403) or code.startswith("Neo.ClientError.Security"):
            raise LoginError(f"{self.service.name} refuses the login ({_short(message)}).")
        raise AnswerError(f"{self.service.name} answers with {code}: {_short(message)}", code)


def neo4j(inspected: Mapping[str, Any], password: str | None = None) -> Neo4j | None:
    """Neo4j in an inspected container; None if it does not run.

    The user is neo4j with the given password, or user and password of the container's NEO4J_AUTH.
    """
    pid, container = pid_of(inspected), Container.from_inspect(inspected)
    if pid is None:
        return None
    user, own = neo4j_login(inspected)
    secret = own if password is None else password
    headers = {}
    if secret is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()
    port = int(container.environment.get("NEO4J_server_http_listen__address", "").rpartition(":")[2] or 7474)
    return Neo4j(Service(f"Neo4j in {container.name}", pid, port, headers))


def neo4j_login(inspected: Mapping[str, Any]) -> tuple[str, str | None]:
    """User and password of an inspected container's NEO4J_AUTH: USER/PASSWORD, or that with /true for "change it";
    no password where the login is switched off or not set."""
    user, slash, password = Container.from_inspect(inspected).environment.get("NEO4J_AUTH", "").partition("/")
    return (user, password.partition("/")[0]) if slash else ("neo4j", None)


def neo4j_database(inspected: Mapping[str, Any]) -> str:
    """The name of the database that clients of an inspected Neo4j container use."""
    settings = Container.from_inspect(inspected).environment
    return settings.get("NEO4J_initial_dbms_default__database") or "neo4j"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + "…"
