# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The side of test_whole_kills that runs on a host of the lab: whole_host.py DIRECTORY.

It reads one request per line, [name of a method, its arguments], and answers with one line: {"value"} or {"error"}. It
needs no pytest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import docker
from aftermath import PROMISED_S, end_of, freezers, frozen, hold_at, leftovers, thaw_seconds, wait_running
from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from light_stack import Stack

BACK_S = 60.0
# An engine that comes back from its own death ends what runs, and takes "unless-stopped" for stopped by the user then.
POLICIES = {"store": "always", "app": "always"}


class Host:
    """The stack, and what its data may be after a death: as it is now (old) or as in the newest snapshot (new)."""

    def __init__(self, directory: str):
        self.stack = Stack(Path(directory), POLICIES)
        self.old: dict[str, Any] = {}
        self.new: dict[str, Any] = {}
        self.known: list[dict[str, Any]] = []
        self.rounds = 0

    def make(self) -> None:
        self.stack.make()
        self.stack.snapshot, self.new = self._backup()

    def clean(self) -> None:
        self.stack.clean()

    def begin(self) -> str:
        """Other data than in the newest snapshot, of which the id is returned."""
        self.rounds += 1
        self.back()
        (self.stack.directory / "go").unlink(missing_ok=True)
        self.stack.afresh(f"live{self.rounds}")
        self.old = self.stack.trees()
        assert self.old != self.new
        self.known = freezers(self.stack)
        return self.stack.snapshot

    def frozen(self) -> int:
        """How many containers the kernel does not let run."""
        return len(frozen(self.known))

    def thaw(self, pid: int) -> list[float | bool]:
        """Seconds until all run, and whether the process is gone by then; for who has just killed its connection."""
        seconds = thaw_seconds(self.known)
        end = time.monotonic() + PROMISED_S
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
            time.sleep(0.02)
        return [seconds, not os.path.exists(f"/proc/{pid}")]

    def kill_dockerd(self) -> float:
        """Seconds until all run; what was frozen must not have been ended for it."""
        held = frozen(self.known)
        subprocess.run(["systemctl", "reset-failed", "docker"], check=True)
        oldest = ["pgrep", "--oldest", "--exact", "dockerd"]  # for a moment what it starts has its name too
        os.kill(int(subprocess.run(oldest, capture_output=True, check=True).stdout), signal.SIGKILL)
        seconds = thaw_seconds(self.known)
        for pid in held if seconds < PROMISED_S else ():
            os.kill(pid, 0)
        return seconds

    def go(self) -> None:
        """Whoever stays at a point goes on."""
        (self.stack.directory / "go").touch()

    def hold(self, at: str) -> int:
        """Whoever comes to this phase stands still; its pid, 0 if it got past it."""
        journal, seen = self.stack.places.journal, False

        def ended() -> bool:
            """Whoever runs it is on another host, so by the journal: it was there and is gone."""
            nonlocal seen
            there = os.path.exists(journal)
            over, seen = seen and not there, seen or there
            return over

        return hold_at(self.stack, at, ended=ended)

    def let_go(self, pid: int) -> None:
        os.kill(pid, signal.SIGCONT)

    def snapshots(self) -> list[str]:
        """Their ids."""
        return os.listdir(self.stack.repository / "snapshots")

    def back(self) -> None:
        """dockerd answers again; systemd would start it too, two seconds later."""
        subprocess.run(["systemctl", "start", "docker"], check=True, timeout=BACK_S)
        self.stack.client = docker.APIClient()
        self.stack.engine = Engine.connect()
        assert self.stack.client.ping()

    def put_right(self, by: str) -> dict[str, Any]:
        """What became of it, after recover() or after the next backup, whichever is asked for; then both verbs work."""
        stack, said = self.stack, []
        if by == "recover":
            said = recover(stack.engine, stack.places)
        else:
            made = self._backup()
        running = wait_running(stack)
        found = {
            "said": said,
            "data": end_of(self.old, self.new, stack.trees()),
            "running": running,
            "left": leftovers(stack),
        }
        if by == "recover":
            made = self._backup()
        stack.snapshot, self.new = made
        stack.afresh("other")
        stack.restore()
        found["next"] = [end_of(self.new, {}, stack.trees()), wait_running(stack), leftovers(stack)]
        return found

    def _backup(self) -> tuple[str, dict[str, Any]]:
        return self.stack.backup(keep=Keep(last=3)), self.stack.trees()


def main(directory: str) -> None:
    vars(compose_health)["_STABLE_SECONDS"] = 0.3  # these containers have no health check
    host = Host(directory)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": getattr(host, name)(*arguments)}
        except (AssertionError, OSError, StackError, docker.errors.APIError, subprocess.SubprocessError):
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
