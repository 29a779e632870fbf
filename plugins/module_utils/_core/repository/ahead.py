# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A commit that is begun before there is anything to store: restic derives its key while the data is still copied.

restic backup reads its exclude files after it has opened the repository and before it looks at any file (0.14 to 0.18,
tried). So it gets a pipe for one: that it opens it tells that the password is right, and it waits for the pipe's end.
The pipe holds half a pattern, which restic refuses, until it may go on: where its end comes since we died, nothing is
stored.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress

from ..operation.beside import beside
from .repository import Commit, Repository
from .watching import end

LONGEST_S = 10.0  # from the beginning until it may go: the snapshot's time is that of the beginning
_LOOK_S = 0.01
_OPENS_WITHIN_S = 3.0
_HALF, _REST = b"/proc/[", b"x]\n"  # together a pattern that matches nothing


class CommitAhead:
    """Use it as a context manager, then opened() and finish(). What is not finished is broken off on leaving.

    names must be there when it begins, whatever is in them: restic looks for them first. place: path of the pipe, which
    is made and removed.
    """

    def __init__(
        self,
        repository: Repository,
        staging: str,
        names: Sequence[str],
        tags: Sequence[str],
        place: str,
        progress: Callable[[int, int], None] | None = None,
    ):
        def make() -> Commit:
            return repository.commit(staging, names, tags, None, progress, place, self._begun)

        self._make = make
        self._repository = repository
        self._for = staging, list(names), list(tags)
        self._place = place
        self._pipe = -1
        self._result: Future[Commit] = Future()  # of a commit that has not been begun
        self._opened, self._go, self._broken_off = threading.Event(), threading.Event(), threading.Event()
        self._deciding = threading.Lock()  # held by whoever lets it go or breaks it off
        self._process: subprocess.Popen[bytes] | None = None
        self._server = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> CommitAhead:
        with suppress(FileNotFoundError):
            os.unlink(self._place)
        os.mkfifo(self._place, 0o600)
        both = os.open(self._place, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(both, _HALF)
            # before restic begins: it cannot be interrupted while it waits for somebody to open the other end
            self._pipe = os.open(self._place, os.O_WRONLY | os.O_CLOEXEC)
        finally:
            os.close(both)
        self._server.start()
        self._result = beside(self._make)  # ends with the commit: restic dies with it
        return self

    def __exit__(self, *_error: object) -> None:
        self.break_off()

    def is_for(self, staging: str, names: Sequence[str], tags: Sequence[str]) -> bool:
        """Whether this is what would be committed, and has not been broken off as it took too long."""
        return not self._broken_off.is_set() and self._for == (staging, list(names), list(tags))

    def break_off(self) -> None:
        """End it, unless it has been finished. It may be called again.

        restic leaves its lock where it is interrupted while it makes it (seen), so it gets the time to open first.
        """
        until = time.monotonic() + _OPENS_WITHIN_S
        while not (self._go.is_set() or self._result.done() or time.monotonic() > until or self._opened.wait(_LOOK_S)):
            pass
        if not self._result.done():  # also where a signal ends the wait of finish()
            self._broken_off.set()
            self._end_restic()
            wait([self._result])
        self._server.join()
        with suppress(FileNotFoundError):
            os.unlink(self._place)

    def opened(self) -> None:
        """Wait until the repository is open; the error of commit() where it cannot be opened."""
        while not self._opened.wait(_LOOK_S) and not self._result.done():
            pass
        if self._broken_off.is_set():
            self._repository.open()
        elif self._result.done():
            self._result.result()

    def finish(self) -> Commit | None:
        """Store what is there now, like Repository.commit(); None where it took too long until now."""
        with self._deciding:
            if self._broken_off.is_set():
                return None
            self._go.set()
        return self._result.result()

    def _begun(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        if self._broken_off.is_set():
            self._end_restic()

    def _end_restic(self) -> None:
        if self._process is not None:
            end(self._process)

    def _serve(self) -> None:
        """Complete the pattern when it may go, also for a restic that is run again since it met a stale lock."""
        begun = time.monotonic()
        with os.fdopen(self._pipe, "wb", buffering=0) as pipe:
            readers = select.poll()
            readers.register(pipe, 0)  # POLLERR, which is always told, means that nobody reads
            while not self._go.wait(_LOOK_S):
                if self._result.done() or self._broken_off.is_set():
                    return
                if not self._opened.is_set() and not readers.poll(0):
                    self._opened.set()
                if time.monotonic() - begun > LONGEST_S and self._is_late():
                    return
            with suppress(BrokenPipeError):
                pipe.write(_REST)
        while not self._result.done():
            with suppress(OSError):  # nobody reads
                pipe_again = os.open(self._place, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                with os.fdopen(pipe_again, "wb", buffering=0) as pipe:
                    pipe.write(_HALF + _REST)
            time.sleep(_LOOK_S)

    def _is_late(self) -> bool:
        with self._deciding:
            if self._go.is_set():
                return False
            self._broken_off.set()
        self._end_restic()
        return True
