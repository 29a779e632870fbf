# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard: a process of its own that lets containers run again if who paused them dies or takes too long.

It runs from one file with the standard library alone, because an Ansible module's code lies in a zip that vanishes.
Its orders come over a Unix socket, as does the parent's death: the kernel closes the parent's end, whatever killed it.
A second connection, to the engine, tells the same of dockerd. Where the engine does not answer, the freezer of the
container's cgroup is opened directly, and Docker's own record is put right when the engine is back.

Lines from the parent (JSON first, then words): orders, go, end, fire. Lines to it (JSON): ready, fired, settled, ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

SWEEP_S = 1.0  # how long the engine may take for all containers before their cgroups are opened without it
PATIENCE_S = 0.5  # and for one: a health check that froze with its container was seen to hold an unpause for 5 s
SETTLE_S = 1.5  # a pause that was on its way to the engine when the parent died comes after the first round
RECONCILE_S = 60.0  # how long to wait for an engine that is away, to put its record right
_CLOSED_S = 2.0  # how long a freezer may be closed for the engine's record
LOOK_S = 0.25  # how often the parent's life and a signal are looked at, besides the socket
PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n"


class Docker:
    """The three requests that are needed, over the engine's socket. Status 0 means no answer in time.

    Where systemd holds that socket, it takes connections while dockerd is dead, and they wait for the next dockerd,
    which first ends the containers that it finds. So a line is kept open to the one that paused: when it closes, no
    answer comes.
    """

    def __init__(self, path: str):
        self.path = path
        self.line: socket.socket | None = None

    def hold(self, proven: bool = False) -> bool:
        """Open the line, which stays open as long as this dockerd lives; False if it is dead already.

        proven: only to one that answers within a second, as systemd takes connections for a dead one too.
        """
        line = socket.socket(socket.AF_UNIX)
        try:
            line.settimeout(1.0)
            line.connect(self.path)
            line.sendall(PING)
            if proven and not line.recv(65536):
                raise ConnectionResetError
        except OSError:
            line.close()
            return False
        self.line = line
        return True

    def hear(self) -> bool:
        """Read from the line, when it is readable; False, and no line any more, if dockerd has died."""
        if self.line is None:
            return False
        try:
            alive = bool(self.line.recv(65536))
        except OSError:
            alive = False
        if not alive:
            self.line.close()
            self.line = None
        return alive

    def ask(self, method: str, path: str, timeout: float) -> tuple[int, bytes]:
        """Status and body; HTTP/1.0, so that the body ends with the connection. timeout: seconds for all of it."""
        until = time.monotonic() + timeout
        request = f"{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\n\r\n".encode()
        data = b""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                connection.connect(self.path)
                connection.sendall(request)
                while True:
                    watched = [connection] + ([self.line] if self.line else [])
                    readable = select.select(watched, [], [], max(0.01, until - time.monotonic()))[0]
                    if not readable or (connection not in readable and not self.hear()):
                        return 0, b""
                    if connection not in readable:
                        continue
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    data += chunk
            head, _separator, body = data.partition(b"\r\n\r\n")
            return int(head.split()[1]), body
        except (OSError, ValueError, IndexError):
            return 0, b""

    def unpause(self, container: str, timeout: float) -> int:
        return self.ask("POST", f"/containers/{container}/unpause", timeout)[0]

    def state(self, container: dict[str, Any], timeout: float = 1.0) -> str | None:
        """What the engine believes: paused, running, ended; None if it does not answer.

        When dockerd was away, a pause that waited in its socket may even reach the container's next run.
        """
        status, body = self.ask("GET", f"/containers/{container['id']}/json", timeout)
        if status == 404:
            return "ended"
        try:
            state = json.loads(body)["State"]
            return "paused" if state["Paused"] else "running" if state["Running"] else "ended"
        except (ValueError, KeyError, TypeError):
            return None


def is_frozen(container: dict[str, Any]) -> bool:
    """What the kernel says; False where the container has no freezer that is known."""
    freezer = container.get("freezer")
    if not freezer:
        return False
    try:
        with open(freezer["file"], encoding="ascii") as file:
            return file.read().strip() != str(freezer["thaw"])
    except OSError:  # the container has ended
        return False


def set_freezer(container: dict[str, Any], word: str) -> None:
    """Open ("thaw") or close ("freeze") the freezer of a container's cgroup."""
    freezer = container.get("freezer")
    if freezer:
        with contextlib.suppress(OSError), open(freezer["file"], "w", encoding="ascii") as file:
            file.write(freezer[word])


def resume(docker: Docker, container: dict[str, Any], timeout: float) -> bool:
    """Let one container run, through the engine or without it. True: the engine knows that it runs (or has ended).

    A container whose freezer was opened behind the engine's back cannot be unpaused: runc says that it is not paused,
    and the engine keeps "Paused". So the freezer is closed for that one call, to a dockerd that is seen to live.
    """
    until = time.monotonic() + timeout
    status = docker.unpause(container["id"], timeout)
    if status in (204, 404):
        known = True
    elif status == 0:
        known = False
    else:
        state = docker.state(container, max(0.1, until - time.monotonic()))
        known = state in ("running", "ended")
        if state == "paused" and not is_frozen(container) and (docker.line or docker.hold(proven=True)):
            set_freezer(container, "freeze")
            known = docker.unpause(container["id"], min(_CLOSED_S, max(0.5, until - time.monotonic()))) == 204
    if is_frozen(container):
        set_freezer(container, "thaw")
    return known


@contextlib.contextmanager
def turn(record: str) -> Iterator[None]:
    """One at a time: a guard that resumes, or the operation that takes its containers over. record: the guard's."""
    try:
        descriptor = os.open(os.path.dirname(record), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # then there is no record to fight for
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Parent:
    """The connection to the process that pauses. closed: it is dead, or has let go."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        self.closed = False
        self._text = b""

    def lines(self) -> list[str]:
        """What has come; call it when the connection is readable."""
        try:
            data = self.connection.recv(65536)
        except OSError:
            data = b""
        self.closed = self.closed or not data
        *whole, self._text = (self._text + data).split(b"\n")
        return [line.decode() for line in whole]

    def first(self) -> str:
        lines: list[str] = []
        while not lines:
            lines = self.lines()
            if self.closed:
                raise SystemExit(1)
        return lines[0]

    def say(self, **words: Any) -> None:
        with contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(words).encode() + b"\n")

    def wait(self, seconds: float) -> list[str]:
        """Sleep, or return earlier with what the parent says."""
        if self.closed:
            time.sleep(seconds)
            return []
        readable, _writable, _failed = select.select([self.connection], [], [], seconds)
        return self.lines() if readable else []


class Guard:
    """Waits, and fires at most once."""

    def __init__(self, parent: Parent, orders: dict[str, Any]):
        self.parent = parent
        self.orders = orders
        self.containers: list[dict[str, Any]] = orders["containers"]
        self.docker = Docker(orders["socket"])
        self.terminated = False
        self._fired = False
        signal.signal(signal.SIGTERM, self._terminate)

    def _terminate(self, number: int, frame: Any) -> None:
        self.terminated = True

    def run(self) -> None:
        status = self.docker.ask("GET", "/_ping", 5.0)[0]
        if status != 200:
            self.parent.say(failed=f"the engine did not answer at {self.orders['socket']}")
            return
        self.parent.say(ready=True)
        reason = self.watch()
        if reason:
            if reason != "asked":
                self.parent.say(fired=reason)  # at once, so that it does not go on meanwhile
                time.sleep(float(self.orders.get("hold") or 0.0))
            self.fire(reason)

    def watch(self) -> str | None:
        """Why to fire, or None if there is nothing to do any more."""
        deadline: float | None = None
        while True:
            now = time.monotonic()
            watched = [self.parent.connection] + ([self.docker.line] if self.docker.line else [])
            wait = LOOK_S if deadline is None else max(0.0, min(LOOK_S, deadline - now))
            readable = select.select(watched, [], [], wait)[0]
            words = self.parent.lines() if self.parent.connection in readable else []
            if "end" in words:
                self.parent.say(ended=True)
                return None
            if "go" in words:
                deadline = time.monotonic() + float(self.orders["timeout"])
                if not self.docker.hold():
                    return "engine"
            going = deadline is not None
            if self.parent.closed or not self._parent_lives():
                return "parent" if going else None
            if "fire" in words:
                return "asked"
            if self.terminated:
                return "terminated" if going else None
            if self.docker.line in readable and not self.docker.hear():
                return "engine"
            if deadline is not None and time.monotonic() >= deadline:
                return "deadline"

    def fire(self, reason: str) -> None:
        """Let everything run, then stay until the engine's record is right and nothing late has come."""
        with turn(self.orders["record"]):
            if self._is_taken_over():
                return
            self._fired = True
            self._record(reason, set())
            self.parent.say(fired=reason)
            known = self._sweep(reason)
            self._record(reason, known)
        if self._settle(reason, known):
            self.parent.say(settled=len(known) == len(self.containers))

    def _sweep(self, reason: str) -> set[str]:
        """Open everything once; the ids of which the engine knows that they run."""
        if reason == "engine":  # asking first would only cost time
            for container in self.containers:
                set_freezer(container, "thaw")
        until = time.monotonic() + SWEEP_S
        known: set[str] = set()
        for container in self.containers:
            left = until - time.monotonic()
            if left <= 0:
                set_freezer(container, "thaw")
            elif resume(self.docker, container, min(PATIENCE_S, left)):
                known.add(container["id"])
            else:
                until = time.monotonic()  # it did not answer once: do not let the others wait for it
        return known

    def _settle(self, reason: str, known: set[str]) -> bool:
        """Look after the containers until it has been quiet for a while; False if somebody wants no more of it.

        The next operation says so by removing the record of this one: what is frozen from then on, it froze itself.
        """
        end = time.monotonic() + RECONCILE_S
        quiet = time.monotonic()
        while time.monotonic() < end and (len(known) < len(self.containers) or time.monotonic() - quiet < SETTLE_S):
            if "end" in self.parent.wait(0.1):
                return False
            with turn(self.orders["record"]):
                if self._is_taken_over():
                    return False
                if self._look_after(known):
                    quiet = time.monotonic()
        with turn(self.orders["record"]):
            if self._is_taken_over():
                return False
            self._record(reason, known, settled=True)
        return True

    def _look_after(self, known: set[str]) -> bool:
        """Resume what is frozen still or again, and ask the engine about those not known to run; True if that grew."""
        grown = False
        for container in self.containers:
            if is_frozen(container) and not resume(self.docker, container, 1.0):
                known.discard(container["id"])
        for container in self.containers:
            if container["id"] in known and container.get("freezer"):
                continue
            state = self.docker.state(container)
            if state is None:
                break  # the engine is away: one question at a time
            if state != "paused" or resume(self.docker, container, 2.0):
                grown = grown or container["id"] not in known
                known.add(container["id"])
        return grown

    def _is_taken_over(self) -> bool:
        """Whether another operation has the containers now: the record is another guard's, or was taken away."""
        try:
            with open(self.orders["record"], "rb") as file:
                return bool(json.load(file)["nonce"] != self.orders["nonce"])
        except FileNotFoundError:
            return self._fired and os.path.isdir(os.path.dirname(self.orders["record"]))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _record(self, reason: str, known: set[str], settled: bool = False) -> None:
        """For recover(): what runs, and is the user's again. What has ended with dockerd is not."""
        resumed = [c["id"] for c in self.containers if c["id"] in known and self.docker.state(c) == "running"]
        path = str(self.orders["record"])
        value = {"id": self.orders["id"], "nonce": self.orders["nonce"], "reason": reason, "time": time.time()}
        with contextlib.suppress(OSError):
            with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump({**value, "resumed": resumed, "settled": settled}, file)
            os.replace(path + ".new", path)

    def _parent_lives(self) -> bool:
        """Besides the connection, which a child that the parent forked may hold open."""
        try:
            with open(f"/proc/{self.orders['pid']}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return False
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == self.orders["pid_start"]


def main(arguments: list[str]) -> None:
    """main([SOCKET]) or main([SOCKET, "detach"]), which goes into a session of its own first."""
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    if "detach" in arguments[1:]:
        if os.fork():
            os._exit(0)
        os.setsid()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(arguments[0])
    os.chdir("/")
    parent = Parent(connection)
    Guard(parent, json.loads(parent.first())).run()


if __name__ == "__main__":
    main(sys.argv[1:])
