# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process of our own that puts the stack right if this one is killed: what was stopped does not wait for a next run.

It is a fork, so it has the code also where Ansible has removed the module by then.
"""

from __future__ import annotations

import os
import signal
import syslog
import time
from contextlib import suppress
from datetime import datetime, timezone
from importlib import import_module
from types import TracebackType

from ..engine import Engine
from ..errors import BusyError, StackError
from .journal import Journal
from .last import record_last
from .lock import RECOVERY, OperationLock
from .places import Places
from .recover import recover

_DONE = b"."
_TRIES_S = 60.0  # another run may have come first, and the engine may be away for a moment
_WAIT_S = 0.2
_PAUSE = 0.25  # of what a try took that failed: who comes meanwhile gets at the lock too, and hears why


class Watcher:
    """Use it as a context manager around what stops containers, with the lock held and the journal begun.

    However that ends, also by an exception, the watcher ends with it if the journal is gone. If that is still there, or
    this process is gone without a word, it recovers the stack as soon as the lock is free, and says so in the system's
    log and in last.json, under "recovered". Nothing else may have been started yet, as a fork has no other thread.
    """

    def __init__(self, engine: Engine, places: Places):
        self._docker_host = engine.docker_host
        self._places = places
        self._pipe = -1
        self._child = 0
        self._said = ""

    def __enter__(self) -> Watcher:
        reading, self._pipe = os.pipe()  # not inherited by commands that we run, only by the fork
        self._child = os.fork()
        if self._child == 0:
            try:
                os.close(self._pipe)
                _detach(reading)
                self._watch(reading)
            finally:
                os._exit(0)  # nothing of the parent's may be cleaned up here
        os.close(reading)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.path.exists(self._places.journal):  # whoever took it back failed, or comes after us
            os.close(self._pipe)
            return  # it needs the lock that we hold, so it is not waited for
        with suppress(OSError):  # somebody has killed it
            os.write(self._pipe, _DONE)
        os.close(self._pipe)
        with suppress(OSError):
            os.waitpid(self._child, 0)

    def _watch(self, reading: int) -> None:
        import_module("..purge.undo", __package__)  # while its code can still be read: recover() imports it late
        if os.read(reading, 1) == _DONE:
            return
        end = time.monotonic() + _TRIES_S
        while True:
            begun = time.monotonic()
            try:
                self._recover()
                return
            except BusyError:  # whoever has the lock recovers first of all
                if time.monotonic() > end:
                    return
            except StackError as error:
                if time.monotonic() > end:
                    _say(f"It could not be put right: {error}; run openmemory-stack recover.")
                    return
            time.sleep(max(_WAIT_S, _PAUSE * (time.monotonic() - begun)))

    def _recover(self) -> None:
        journal = Journal.load(self._places)
        if journal is None:
            return
        what = f"The {journal.data['operation']} of the stack {self._places.project} died in {journal.data['phase']}."
        with OperationLock(self._places, RECOVERY):  # raises BusyError, and nothing is said, while others have it
            pass
        if what != self._said:  # once, however often it is tried
            _say(f"{what} It is put right now.")
        self._said = what
        said = recover(Engine.connect(self._docker_host), self._places)
        if not said:  # somebody else was quicker
            return
        _say(" ".join([what, *said]))
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record_last(self._places, "recovered", {"created": now, "message": what, "actions": said})


def _detach(reading: int) -> None:
    """Live on without the parent's terminal, standard streams (whoever reads them waits for their end) and signals."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    top = os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 1024
    os.closerange(3, reading)
    os.closerange(reading + 1, min(top, 65536))


def _say(text: str) -> None:
    syslog.openlog("openmemory-stack", syslog.LOG_PID)
    syslog.syslog(syslog.LOG_WARNING, text)
