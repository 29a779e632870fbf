# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target's end of the line: requests one after the other, and a lease without which its containers are killed."""

from __future__ import annotations

import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from ..errors import StackError
from .line import LEASE_S, TICK_S

_LOOK_S = 0.05
_IDLE_TICK_S = 5.0
_IDLE_S = 30.0  # without an answer, where nothing runs here yet: the source is gone, and its connection has not noticed
_LIVE_S = 0.1
WATCHDOG_S = 1  # of systemd's
LOST = 3  # our exit code when the lease was lost


class Caller:
    """Reads requests from incoming and answers on outgoing. kill ends all that was started here, at once; it is told
    whether the source waits for it.

    While leased, a line that closes or an answer to a tick that does not come kills, and ends this process: what it was
    in the middle of does not matter any more, and what it has left is for the recovery that follows it.
    """

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, kill: Callable[[bool], None]):
        self._incoming = incoming
        self._outgoing = outgoing
        self._kill = kill
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._writing = threading.Lock()
        self._lock = threading.Lock()  # held by whoever decides on the lease
        self._leased = self._hurry = False
        self._ticks: dict[int, float] = {}
        self._valid = 0.0

    def begin(self) -> None:
        """Start to listen and to tick."""
        self._valid = _clock()
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next request; None when the source has hung up."""
        return self._requests.get()

    def say(self, **message: Any) -> None:
        """Send a message; that nobody listens any more is found by listening."""
        with suppress(OSError, ValueError), self._writing:
            self._outgoing.write(json.dumps(message).encode() + b"\n")
            self._outgoing.flush()

    def lease(self) -> None:
        """From now on: no answers, no containers. Raises StackError if there is no answer to begin with.

        The lease starts with a tick that has been answered: a request may have been long on its way.
        """
        asked = _clock()
        self._hurry = True
        while self._valid < asked:
            if _clock() - asked > LEASE_S:
                raise StackError("The source does not answer.")
            time.sleep(_LOOK_S / 5)
        self._leased = True

    def unlease(self, act: Callable[[], None] = lambda: None) -> None:
        """Do something while the lease still holds, after which none is needed. It is not done if that is lost."""
        with self._lock:
            if self._leased:
                act()
                self._leased = False

    def _listen(self) -> None:
        for line in self._incoming:
            try:
                message = json.loads(line)
            except ValueError:
                break
            if "tock" in message:
                sent = self._ticks.pop(int(message["tock"]), None)
                if sent is not None:
                    self._valid = max(self._valid, sent)
            elif message.get("do") == "stop" and self._leased:
                self._lose(answer=True)
            else:
                self._requests.put(message)
        self._lose()
        self._requests.put(None)

    def _watch(self) -> None:
        number, told = 0, 0.0
        while True:
            now = _clock()
            if self._leased and now - self._valid > LEASE_S:
                self._lose()
            if now - self._valid > _IDLE_S:
                self._requests.put(None)
                return
            if now - told >= (TICK_S if self._hurry else _IDLE_TICK_S):
                number, told = number + 1, now
                self._ticks[number] = now
                self.say(tick=number)
            time.sleep(_LOOK_S)

    def _lose(self, answer: bool = False) -> None:
        with self._lock:
            if not self._leased:
                return
            try:
                self._kill(answer)
                if answer:
                    self.say(done="stop")
            finally:
                os._exit(LOST)


def live() -> None:
    """Tell systemd's watchdog from now on that this process lives (sd_notify(3)); it kills us a second after it hears
    nothing, as one that was stopped by a signal sees to no lease. To be called first of all.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        threading.Thread(target=_live, args=(address,), daemon=True).start()


def _live(address: str) -> None:
    place = address.replace("@", "\0", 1) if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as watchdog:
        while True:
            with suppress(OSError):
                watchdog.sendto(b"WATCHDOG=1", place)
            time.sleep(_LIVE_S)


def _clock() -> float:
    """Goes on while this machine sleeps, as the source's does not stop then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
