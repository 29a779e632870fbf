# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watches a restic that runs: what it says of its errors, whether it still moves anything, and ends it in time."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

RETRY = re.compile(r"^(?P<what>.*?) returned error, retrying after|^(?P<load>Load\(.*\)) failed:")
STALLED = "connection returned error, retrying after 0s: nothing moved for {:.0f} seconds"
_KEPT_LINES = 400  # of standard error; restic repeats itself for every blob of a damaged pack
_ENDS_WITHIN_S = 5.0
_STALL_S = 300.0  # a connection that is only silent gives no error; restic 0.14 then waits for ever
_MOVES = 1 << 20  # bytes in that time; restic's own progress lines are fewer
# Waiting mends none of these: a file that is not there, credentials, a clock, a full disk.
_IN_VAIN = re.compile(
    r"no such file or directory|Access ?Denied|access denied|access key ID? you provided|InvalidAccessKeyId"
    r"|signature we calculated|SignatureDoesNotMatch|token has expired|ExpiredToken|RequestTimeTooSkewed"
    r"|difference between the request time|401 Unauthorized|403 Forbidden|Storage backend has reached"
    r"|QuotaExceeded|[Qq]uota exceeded|Insufficient Storage|no space left on device|Bucket name ",
    re.IGNORECASE,
)


class Listener(threading.Thread):
    """Reads standard error, and ends restic where it would retry in vain: the same object again and again for longer
    than patience_s, an error that does not pass, or (stalls) where it moves nothing any more for five minutes.
    """

    def __init__(self, process: subprocess.Popen[bytes], patience_s: float, stalls: bool = False):
        super().__init__(daemon=True)
        self.process = process
        self.patience_s = patience_s
        self.lines: list[str] = []
        self.gave_up = False
        self._since: dict[str, float] = {}
        if stalls:
            threading.Thread(target=self._watch, daemon=True).start()

    def run(self) -> None:
        for raw in self.process.stderr or ():
            line = raw.decode("utf-8", "replace").replace("\x1b[2K", "").rstrip("\n")
            self._keep(line)
            retry = RETRY.search(line)
            if retry:
                self._consider(line, retry["what"] or retry["load"])

    def _keep(self, line: str) -> None:
        if len(self.lines) < _KEPT_LINES:
            self.lines.append(line)
        else:
            self.lines[-1] = line  # the last line says most

    def _consider(self, line: str, what: str) -> None:
        now = time.monotonic()
        since = self._since.setdefault(what, now)
        if _IN_VAIN.search(line) or now - since > self.patience_s:
            self._give_up()

    def _give_up(self) -> None:
        if not self.gave_up:
            self.gave_up = True
            threading.Thread(target=end, args=(self.process,), daemon=True).start()

    def _watch(self) -> None:
        moved, since = 0, time.monotonic()
        while self.process.returncode is None:
            time.sleep(1)
            now_moved, now = moved_by(self.process.pid), time.monotonic()
            if now_moved - moved >= _MOVES:
                moved, since = now_moved, now
            elif now - since > _STALL_S and self.process.returncode is None:
                self._keep(STALLED.format(now - since))
                self._give_up()
                return


class Ticker(threading.Thread):
    """Calls tell with a process id once a second."""

    def __init__(self, pid: int, tell: Callable[[int], None]):
        super().__init__(daemon=True)
        self._pid = pid
        self._tell = tell
        self._done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._done.wait(1):
            self._tell(self._pid)

    def stop(self) -> None:
        self._done.set()
        self.join()


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt restic, which then removes its lock; kill it where it tries that in vain."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()


def written_by(pid: int) -> int:
    """Bytes that a process of ours has written to files, pipes and sockets; 0 where the kernel does not tell."""
    return _counted(pid).get("wchar", 0)


def moved_by(pid: int) -> int:
    """The same, with what it has read."""
    counted = _counted(pid)
    return counted.get("wchar", 0) + counted.get("rchar", 0)


def _counted(pid: int) -> dict[str, int]:
    with suppress(OSError, ValueError), open(f"/proc/{pid}/io", encoding="ascii") as stream:
        return {name: int(value) for name, value in (line.split(":") for line in stream)}
    return {}
