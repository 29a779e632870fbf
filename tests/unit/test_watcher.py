# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process that watches an operation: when it ends with it, and when it goes on alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation import watcher
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.lock import OperationLock
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places

ENGINE: Any = SimpleNamespace(docker_host="unix:///nowhere")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))


@pytest.fixture
def said(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the watcher says and does is written here, as it is a process of its own."""
    path = tmp_path / "said"
    path.touch()

    def say(text: str) -> None:
        with path.open("a") as stream:
            stream.write(f"{text}\n")

    def recover(_engine: Any, _places: Places) -> list[str]:
        tries = path.read_text().count("recovering")
        say("recovering")
        if tries == 0:
            raise StackError("not yet.")
        with OperationLock(places, "recover"):
            os.unlink(places.journal)
        return ["All is as before."]

    monkeypatch.setattr(watcher, "_say", say)
    monkeypatch.setattr(watcher, "recover", recover)
    monkeypatch.setattr(watcher.Engine, "connect", lambda *_: ENGINE)
    monkeypatch.setattr(watcher, "_WAIT_S", 0.02)
    return path


def until(done: Any) -> None:
    end = time.monotonic() + 10
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    assert done()


def is_child(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def test_it_ends_with_an_operation_that_is_over(places: Places, said: Path) -> None:
    with OperationLock(places, "update"):
        journal = Journal.begin(places, "update", "u1")
        with watcher.Watcher(ENGINE, places) as watching:
            journal.end()
    assert not is_child(watching._child)  # it was waited for
    assert said.read_text() == ""


def test_it_goes_on_where_the_way_back_failed(places: Places, said: Path) -> None:
    """It does nothing while the lock is held, then says once what it does, however often that fails."""
    with OperationLock(places, "update"):
        Journal.begin(places, "update", "u1")
        with pytest.raises(StackError, match="not taken back"), watcher.Watcher(ENGINE, places):
            raise StackError("not taken back")
        time.sleep(0.2)
        assert said.read_text() == ""
    until(lambda: "recovered" in read_last(places))
    lines = said.read_text().splitlines()
    begun = "The update of the stack om died in begin."
    assert lines == [f"{begun} It is put right now.", "recovering", "recovering", f"{begun} All is as before."]
    assert not os.path.exists(places.journal)
