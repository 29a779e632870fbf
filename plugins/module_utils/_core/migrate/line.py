# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's end of the line to the target: requests, their answers, and the target's ticks.

One message is one line of JSON. The target numbers its ticks, and the source answers each with its number at once: the
target may let its containers run only as long as an answer to a tick is younger than LEASE_S, so the source knows when
they stand still by its own clock alone, however slow or dead the network between them is.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..errors import StackError
from ..operation.process import dies_with_us

PROTOCOL = 1
LINE = "openmemory-stack arrive"  # what the key opens
SETTLE = "openmemory-stack settle"
LEASE_S = 1.6  # how long the target runs without an answer
FENCED_S = 1.6  # how long it may take after that until all of its containers are dead
SILENCE_S = 1.2  # without a tick, where there should be some every TICK_S
TICK_S = 0.3
_LOOK_S = 0.1
_ENDS_WITHIN_S = 1.0


class LineLostError(StackError):
    """The target cannot be heard any more."""


class Line:
    """Starts command, whose standard streams are the line. Raises StackError if it does not greet as it should."""

    def __init__(self, command: Sequence[str], timeout: float, watch: Callable[[], None] = lambda: None):
        """timeout: seconds until the greeting. watch is called while an answer is waited for, and may raise."""
        self.watch = watch
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._on_phase: Callable[[str], None] = lambda _name: None
        self._leased = False
        self._answering = True
        self._ticked = self._tocked = time.monotonic()
        self._writing = threading.Lock()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=dies_with_us(),
            )
        except OSError as error:
            raise StackError(f"{command[0]} cannot be started ({error.strerror}); install it.") from error
        self._said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self._errors = threading.Thread(target=self._hear_errors, daemon=True)
        self._errors.start()
        greeting = self._answer(timeout)
        if greeting.get("hello") != PROTOCOL:
            self.close()
            raise StackError(
                "The target runs another version of openmemory.stack than the source; run migrate.yml again, which "
                "brings both to the same."
            )

    def ask(
        self, verb: str, timeout: float, on_phase: Callable[[str], None] = lambda _name: None, **about: Any
    ) -> dict[str, Any]:
        """What the target answers to a request. on_phase is called with the name of each step that it begins.

        Raises StackError with the target's own sentence if it refuses, LineLostError if it cannot be heard.
        """
        self._on_phase = on_phase
        self._say({"do": verb, **about})
        answer = self._answer(timeout)
        if "failed" in answer:
            raise StackError(str(answer["failed"]))
        return answer

    def lease(self) -> None:
        """From now on the target's containers may run: ticks must come."""
        self._ticked = time.monotonic()
        self._leased = True

    def fence(self) -> None:
        """Close the line, and return when the target's containers stand still for certain."""
        leased, self._leased = self._leased, False
        self._answering = False  # a target that has not begun yet must not, and one that runs not for longer
        with suppress(StackError):
            self._say({"do": "stop"})
            if leased:
                self.watch = lambda: None
                while self._answer(LEASE_S).get("done") != "stop":
                    continue
                leased = False
        self.close()
        if leased:
            time.sleep(max(0.0, self._tocked + LEASE_S + FENCED_S - time.monotonic()))

    def close(self) -> None:
        """Hang up; safe to call again."""
        with self._writing, suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with suppress(OSError):
            self._process.terminate()
        try:
            self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:  # it was stopped by a signal, or hangs
            self._process.kill()
            self._process.wait()

    def _answer(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while True:
            try:
                found = self._answers.get(timeout=_LOOK_S)
            except queue.Empty:
                now = time.monotonic()
                if self._leased and now - self._ticked > SILENCE_S:
                    raise self._lost(f"it was silent for {SILENCE_S:g} s") from None
                if now > deadline:
                    raise self._lost(f"no answer in {timeout:g} s") from None
                self.watch()
                continue
            if found is None:
                raise self._lost(self._why())
            return found

    def _lost(self, why: str) -> LineLostError:
        return LineLostError(f"The target cannot be heard any more ({why}).")

    def _why(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDS_WITHIN_S)
        self._errors.join(_ENDS_WITHIN_S)
        lines = [line for line in self._said if line]
        return lines[-1].rstrip(".") if lines else "the connection was closed"

    def _say(self, message: dict[str, Any]) -> None:
        try:
            with self._writing:
                if self._process.stdin is None:
                    raise OSError("closed")
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._lost(self._why()) from None

    def _read(self) -> None:
        for line in self._process.stdout or ():
            try:
                message = json.loads(line)
            except ValueError:
                self._said.append(line.decode("utf-8", "replace").strip())
                continue
            if "tick" in message:
                if not self._answering:
                    continue
                self._ticked = time.monotonic()
                self._tocked = self._ticked  # before it is sent: the target's own time is earlier still
                with suppress(StackError):
                    self._say({"tock": message["tick"]})
            elif "phase" in message:
                self._on_phase(str(message["phase"]))
            else:
                self._answers.put(message)
        self._answers.put(None)

    def _hear_errors(self) -> None:
        for line in self._process.stderr or ():
            self._said.append(line.decode("utf-8", "replace").strip())
