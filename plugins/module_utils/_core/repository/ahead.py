# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A commit that is begun before there is anything to store: restic derives its key while the data is still copied.

restic backup reads its exclude files after it has opened the repository and before it looks at any file (0.14 to 0.18,
tried). So it gets a pipe for one: that it opens it tells that the password is right, and it waits for the pipe's end.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from .repository import Commit, Repository
from .watching import end

_LOOK_S = 0.01
_GRACE_S = 0.2


class CommitAhead:
    """Use it as a context manager, then opened() and finish(). What is not finished is broken off on leaving.

    names must be there when it begins, whatever is in them: restic looks for them first. place: path of the pipe, which
    is made and removed. The snapshot's time is the beginning.
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
        self.tags = list(tags)
        self.names = list(names)
        self._place = place
        self._result: Future[Commit] = Future()
        self._opened, self._go, self._broken_off = threading.Event(), threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._worker = threading.Thread(target=self._work, daemon=True)  # ends with the commit: restic dies with it

    def __enter__(self) -> CommitAhead:
        with suppress(FileNotFoundError):
            os.unlink(self._place)
        os.mkfifo(self._place, 0o600)
        self._worker.start()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        if not self._result.done():  # also where a signal ends the wait of finish()
            self._broken_off.set()
            if self._process is not None:
                end(self._process)
            self._worker.join()
        with suppress(FileNotFoundError):
            os.unlink(self._place)

    def opened(self) -> None:
        """Wait until the repository is open; the error of commit() where it cannot be opened."""
        while not self._opened.wait(_LOOK_S) and not self._result.done():
            pass
        if self._result.done():
            self._result.result()

    def finish(self) -> Commit:
        """Store what is there now; like Repository.commit()."""
        self._go.set()
        return self._result.result()

    def _work(self) -> None:
        try:
            self._result.set_result(self._make())
        except BaseException as error:  # for the thread that waits, whatever it is
            self._result.set_exception(error)

    def _begun(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        if self._broken_off.is_set():
            end(process)

    def _serve(self) -> None:
        """Hold the pipe open for each restic that opens it, until it may go: one that met a stale lock is run again."""
        while not self._result.done():
            try:
                pipe = os.open(self._place, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.ENXIO, errno.EINTR):  # nobody reads yet
                    return
            else:
                self._opened.set()
                while not (self._go.wait(_LOOK_S) or self._result.done() or self._broken_off.is_set()):
                    pass
                if self._broken_off.is_set():
                    time.sleep(
                        _GRACE_S
                    )  # it has its signal before it may go on: newer restic waits for the pipe to end
                os.close(pipe)
            time.sleep(_LOOK_S)
