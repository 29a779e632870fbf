# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parent's side of the guard: start it, tell it when the freeze begins and ends."""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import StackError
from ..operation.durable_json import read_json, write_json
from ..operation.places import Places, require_local
from ..operation.process import start_ticks
from .guard_process import SETTLE_S, turn
from .guard_process import main as _guard_main

READY_S = 20.0  # an interpreter starts in 0.05 s; a machine at its limit may take long
SETTLED_S = 15.0
_GRACE_S = 1.0  # for the guard's own round, on top of the time that it waits


class Guard:
    """One guard process. Arm it before anything is paused, and always end() it or let this process end."""

    def __init__(self, engine: Any, places: Places, operation_id: str, timeout: float, hold: float = 0.0):
        """timeout is in seconds, from go() to the moment when the guard resumes everything by itself.

        hold: seconds that it waits first, unless it is told to fire: another host may need them to stop what it runs.
        """
        require_local(engine)
        self._socket_path = engine.docker_host[len("unix://") :]
        self._places = places
        self._id = operation_id
        self._timeout = timeout
        self._hold = hold
        self._connection: socket.socket | None = None
        self._text = b""
        self._said: dict[str, Any] = {}

    def arm(self, containers: Sequence[Mapping[str, Any]]) -> None:
        """Start the guard and wait until it says that it is ready.

        containers: {id, name, started_at, freezer {file, freeze, thaw} or None}. Raises StackError if it cannot start.
        """
        pid, nonce = os.getpid(), secrets.token_hex(8)
        orders = {
            "socket": self._socket_path,
            "containers": list(containers),
            "timeout": self._timeout,
            "hold": self._hold,
            "pid": pid,
            "pid_start": start_ticks(pid),
            "id": self._id,
            "record": self._places.guard,
            "nonce": nonce,
        }
        take_over(self._places)
        write_json(self._places.guard, {"id": self._id, "nonce": nonce})
        directory = os.path.join(self._places.runtime, "guard")
        shutil.rmtree(directory, ignore_errors=True)  # a parent that was killed while arming leaves it
        try:
            os.mkdir(directory, 0o700)
            self._connection = self._start(directory)
            self._connection.sendall(json.dumps(orders).encode() + b"\n")
        except OSError as error:
            self.end()
            raise StackError(f"The guard of the freeze cannot be started ({error}); nothing was paused.") from error
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        self._listen(READY_S, "ready", "failed")
        if "ready" not in self._said:
            reason = self._said.get("failed", "it ended at once")
            self.end()
            raise StackError(f"The guard of the freeze cannot be started ({reason}); nothing was paused.")

    def go(self) -> None:
        """From now on the guard resumes the containers if this process dies. Raises StackError if the guard is gone."""
        if not self._send(b"go\n"):
            raise StackError("The guard of the freeze has ended by itself; nothing was paused; try again.")

    @property
    def fired(self) -> str | None:
        """Why the guard has resumed the containers, if it has: deadline, engine, terminated, asked."""
        self._listen(0.0)
        found = self._said.get("fired")
        return str(found) if found else None

    def fire(self) -> None:
        """Let the guard resume everything, by all its means; then wait for it as settled() does."""
        self._send(b"fire\n")

    def settled(self) -> bool:
        """Wait until a guard that has fired is through. True: the engine's record is right again too."""
        self._listen(SETTLED_S, "settled")
        return bool(self._said.get("settled"))

    def end(self) -> None:
        """The guard must do nothing any more. When this returns it does not, and its process ends."""
        if self._connection is None:
            return
        if "fired" not in self._said and self._send(b"end\n"):
            self._listen(SETTLED_S, "ended", "fired")
        if "fired" not in self._said:
            take_over(self._places)
        self._connection.close()
        self._connection = None

    def let_go(self) -> None:
        """Break off: the guard takes this process for dead, and resumes what is paused."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _start(self, directory: str) -> socket.socket:
        source = pkgutil.get_data(_guard_main.__module__.rpartition(".")[0], "guard_process.py")
        if source is None:
            raise StackError("The source of the guard cannot be read; install the collection again.")
        script = os.path.join(directory, "guard.py")
        with open(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(source)
        listener = socket.socket(socket.AF_UNIX)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{descriptor}/s")  # a socket's path holds 107 bytes only
            listener.listen(1)
            listener.settimeout(READY_S)
            self._spawn(script, os.path.join(directory, "s"))
            return listener.accept()[0]
        finally:
            os.close(descriptor)
            listener.close()

    def _spawn(self, script: str, address: str) -> None:
        if not sys.executable:
            raise StackError("This Python does not know its own interpreter; run it by its path.")
        python = [sys.executable, "-I", "-S", script, address]
        clean = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "env": clean,
            "cwd": "/",
            "timeout": READY_S,
        }
        try:
            if os.path.isdir("/run/systemd/system") and shutil.which("systemd-run"):
                name = f"openmemory-stack-guard-{self._places.project}-{os.getpid()}-{time.monotonic_ns()}"
                # a unit of its own outlives the one, or the session, that runs us
                unit = [
                    "systemd-run",
                    "--quiet",
                    "--collect",
                    "--no-ask-password",
                    f"--unit={name}",
                    "--property=OOMScoreAdjust=-900",
                ]
                unit += [f"--description=Resumes the containers of {self._places.project} if a backup dies", "--"]
                if subprocess.run([*unit, *python], check=False, **options).returncode == 0:
                    return
            subprocess.run([*python, "detach"], check=False, **options)
        except subprocess.TimeoutExpired as error:
            raise StackError("The guard of the freeze did not start in time; nothing was paused; try again.") from error

    def _send(self, word: bytes) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.sendall(word)
        except OSError:
            return False
        return True

    def _listen(self, seconds: float, *until: str) -> None:
        """Read what the guard says, until it says one of these words or seconds have passed."""
        deadline = time.monotonic() + seconds
        while self._connection is not None and not any(word in self._said for word in until):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._connection], [], [], left)[0]:
                return
            try:
                data = self._connection.recv(65536)
            except OSError:
                data = b""
            if not data:
                return
            *lines, self._text = (self._text + data).split(b"\n")
            for line in lines:
                self._said.update(json.loads(line))


def await_settled(places: Places, operation_id: str) -> None:
    """Give a guard of the operation that has fired the time it takes for a pause that comes late."""
    end = time.monotonic() + SETTLE_S + _GRACE_S
    while time.monotonic() < end:
        try:
            found = read_json(places.guard)
        except StackError:
            return
        fired = isinstance(found, dict) and found.get("id") == operation_id and found.get("reason")
        if not fired or found.get("settled") or time.time() - float(found.get("time") or 0) > SETTLE_S + _GRACE_S:
            return
        time.sleep(0.05)


def take_over(places: Places) -> None:
    """Forget what a guard did, which ends it: for a while it still resumes whatever is frozen of its containers."""
    with turn(places.guard), contextlib.suppress(OSError):
        os.unlink(places.guard)


def find_freezer(pid: int, container: str) -> dict[str, str] | None:
    """The freezer file of a container's cgroup, with the words that close and open it; None if it cannot be seen."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            groups = file.read()
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # others' mounts, too
            mounts = file.read()
    except OSError:
        return None
    return next((f for f in freezers(groups, mounts, container) if os.path.exists(f["file"])), None)


def first_process(pid: int | None, container: str) -> str | None:
    """What no other process has in common with this one (its start, in the kernel's ticks); None if it is not there."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            inside = container in file.read()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return f"{pid} {file.read().rpartition(')')[2].split()[19]}" if inside else None
    except (OSError, IndexError):
        return None


def freezers(groups: str, mounts: str, container: str) -> list[dict[str, str]]:
    """Where a freezer may be, from /proc/PID/cgroup and /proc/self/mountinfo: version 1 first, which Docker prefers.

    Processes of the container may be in a cgroup below the one that Docker freezes, which has the id in its name.
    """
    paths: dict[str, str] = {}
    for line in groups.splitlines():
        _number, controllers, path = line.split(":", 2)
        if controllers == "" or "freezer" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = _whole(path, container)
    found = []
    for line in mounts.splitlines():
        before, _separator, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _source, options = after.split(" ", 2)  # the source may be empty
        if kind not in paths or (kind == "cgroup" and "freezer" not in options.split(",")):
            continue
        inside = paths[kind][len(root.rstrip("/")) :]
        if "/.." in paths[kind] or not (paths[kind] + "/").startswith(root.rstrip("/") + "/"):
            continue
        if kind == "cgroup":
            found.append({"file": f"{point}{inside}/freezer.state", "freeze": "FROZEN", "thaw": "THAWED"})
        else:
            found.append({"file": f"{point}{inside}/cgroup.freeze", "freeze": "1", "thaw": "0"})
    return sorted(found, key=lambda freezer: freezer["freeze"], reverse=True)


def _whole(path: str, container: str) -> str:
    parts = path.split("/")
    named = [number for number, part in enumerate(parts) if container in part]
    return "/".join(parts[: named[-1] + 1]) if named else path
