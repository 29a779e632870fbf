# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module that Ansible runs on a host of the lab, and whose connections are cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.openmemory.stack.plugins.plugin_utils._progress import _MARK
from sleepers import REPOSITORY
from test_dockerd_killed import LAB

WAIT_S = 60.0
ENVIRONMENT = {
    "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / ".collections"),
    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    "ANSIBLE_NOCOLOR": "true",
    "ANSIBLE_FORCE_COLOR": "false",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=no",  # no connection outlives its command, so that a cut is one
}


class AnsibleRun:
    """Use it as a context manager. output is the file for what is said."""

    def __init__(self, host: str, module: str, asked: dict[str, Any], output: Path):
        self._output = output
        ansible = [str(Path(sys.executable).with_name("ansible")), host, "-i", str(LAB / "inventory.yml")]
        command = [*ansible, "-m", f"openmemory.stack.{module}", "-a", json.dumps(asked)]
        with output.open("w") as out:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env={**os.environ, **ENVIRONMENT},
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def __enter__(self) -> AnsibleRun:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self._output.read_text()

    def wait_for(self, text: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Until that is said."""
        end = time.monotonic() + WAIT_S
        while text not in self.said():
            assert time.monotonic() < end, f"never said {text!r}: {self.said()}"
            assert self.process.poll() is None, self.said()
            meanwhile()
            time.sleep(0.01)

    def cut(self) -> None:
        """End the connections of now, as the network does: ssh then says that its one is closed."""
        for pid in self._connections():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def cut_result(self, times: int) -> None:
        """End so many of the connections that ask for the result, which is after those that look how far it is."""
        looked, done, end = False, set[int](), time.monotonic() + WAIT_S
        while len(done) < times and self.process.poll() is None:
            assert time.monotonic() < end, self.said()
            for pid, line in self._connections().items():
                looked = looked or _MARK in line
                if looked and _MARK not in line and pid not in done:
                    with suppress(ProcessLookupError):  # it has just ended by itself, and counts for none
                        os.kill(pid, signal.SIGTERM)
                        done.add(pid)
        assert len(done) == times, self.said()

    def result(self) -> dict[str, Any]:
        """What the module gave, once it has ended well."""
        code = self.process.wait(WAIT_S)
        assert code == 0, self.said()
        found: dict[str, Any] = json.loads(self.said().partition(" => ")[2])
        return found

    def _connections(self) -> dict[int, str]:
        """The command lines of the ssh processes that it has now."""
        found, parents = {}, [self.process.pid]
        while parents:
            pid = parents.pop()
            with suppress(FileNotFoundError, ProcessLookupError):
                parents += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
                line = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
                if line.startswith("ssh\0"):
                    found[pid] = line
        return found
