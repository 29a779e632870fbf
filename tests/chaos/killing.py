# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run in a process of its own that gets a SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover

Arm = Callable[[pytest.MonkeyPatch], None]
ENDS_S = 60.0  # for what nobody waits for: on a busy machine a watcher may take long for its last words


def at_phase(name: str, after_s: float) -> Arm:
    """SIGKILL so many seconds after a phase has begun; 0: at once."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        notes = Journal.notes

        def killing(self: Journal, values: dict[str, Any]) -> None:
            notes(self, values)
            if values.get("phase") == name:
                if after_s:
                    threading.Timer(after_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
                else:
                    os.kill(os.getpid(), signal.SIGKILL)

        patch.setattr(Journal, "notes", killing)

    return arm


def after(place: Any, name: str, number: int) -> Arm:
    """SIGKILL after the call number of a function or method of place."""

    def arm(patch: pytest.MonkeyPatch) -> None:
        function = getattr(place, name)
        calls: list[str] = []

        def killing(*given: Any, **named: Any) -> Any:
            found = function(*given, **named)
            calls.append(name)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        patch.setattr(place, name, killing)

    return arm


def killed(arm: Arm, run: Callable[[], object]) -> None:
    """What run does, in a process of its own, which dies."""
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            arm(pytest.MonkeyPatch())
            run()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def await_watcher(places: Places) -> None:
    """The watcher writes what it did when the journal is gone already."""
    end = time.monotonic() + ENDS_S
    while "recovered" not in read_last(places):
        assert time.monotonic() < end, "no watcher has recovered it"
        time.sleep(0.05)
    time.sleep(0.1)


def seconds_down(stack: Any, wanted: object) -> float:
    """How long it takes from now until the stack runs as wanted, and stays so; then its journal is gone too, after
    however long.
    """
    begun = time.monotonic()
    back: float | None = None
    while True:
        if stack.running() != wanted:
            back = None
        elif back is None:
            back = time.monotonic()
        elif not os.path.exists(stack.places.journal):
            return back - begun
        assert time.monotonic() < begun + ENDS_S, f"{stack.running()}, recovery has not ended"
        time.sleep(0.05)


def refused_while_away(stack: Any, operation: str, name: str) -> int:
    """What died is not taken back, and all runs on, while any of its directories is away; how many it has."""
    running, places = stack.running(), json.loads(Path(stack.places.journal).read_text())[operation]["beside"]
    for beside in places:
        os.rename(beside, f"{beside}.away")
        with pytest.raises(StackError, match=rf"The {name} has to be taken back, and .* is not there; mount its disk"):
            recover(stack.engine, stack.places)
        assert stack.running() == running
        os.rename(f"{beside}.away", beside)
    return len(places)
