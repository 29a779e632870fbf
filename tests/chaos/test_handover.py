# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's part of a migration through a repository, on the real engine with real restic."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import handover
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.retired import read_retirement
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from restore_stack import PROJECT, Stack

BOTH = ["omrest-app", "omrest-store"]


def request(stack: Stack) -> handover.HandoverRequest:
    where = str(stack.directory / "repository"), str(stack.password)
    return handover.HandoverRequest(PROJECT, "other", *where, state_dir=str(stack.state))


def run(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = handover.run(request(stack), stack.engine, Progress())
    return found


def back(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = handover.come_back(PROJECT, str(stack.state), stack.engine)
    return found


def policies(stack: Stack) -> set[str]:
    return {stack.client.inspect_container(name)["HostConfig"]["RestartPolicy"]["Name"] for name in BOTH}


@pytest.fixture
def here(stack: Stack) -> Iterator[Stack]:
    """The stack, with restart policies, and here again afterwards."""
    for name in BOTH:
        stack.engine.set_restart_policy(name, {"Name": "unless-stopped"})
    yield stack
    back(stack)
    for name in BOTH:
        stack.engine.set_restart_policy(name, {"Name": "no"})
        stack.client.start(name)


def test_it_is_retired_with_all_that_was_written_and_comes_back(here: Stack) -> None:
    trees = here.trees()
    result = run(here)
    assert here.running() == []
    assert policies(here) == {"no"}
    retirement = read_retirement(here.places)
    assert retirement is not None
    assert retirement.snapshot == result["snapshot_id"]
    assert here.trees() == trees
    again = run(here)
    assert (again["changed"], again["snapshot_id"]) == (False, result["snapshot_id"])
    with pytest.raises(StackError, match="was moved from this host to other"):
        here.backup()
    assert back(here)["changed"]
    assert here.running() == BOTH
    assert policies(here) == {"unless-stopped"}
    assert read_retirement(here.places) is None
    assert back(here) == {"changed": False, "actions": []}


def test_a_snapshot_that_cannot_be_relied_on_leaves_all_running(here: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Repository, "check", lambda *_about: ["a pack is damaged"])
    with pytest.raises(StackError, match=r"cannot be relied on.* Nothing was moved: the stack runs here as before"):
        run(here)
    assert here.running() == BOTH
    assert policies(here) == {"unless-stopped"}
    assert read_retirement(here.places) is None


@pytest.mark.parametrize("at", ["stop", "read back"])
def test_its_death_is_put_right_by_its_watcher(here: Stack, at: str) -> None:
    child = os.fork()
    if child == 0:
        phase = handover._Handover._phase

        def die(self: Any, name: str) -> None:
            phase(self, name)
            if name == at:
                os.kill(os.getpid(), signal.SIGKILL)

        handover._Handover._phase = die
        run(here)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    end = time.monotonic() + 60
    while (here.running() != BOTH or os.path.exists(here.places.journal)) and time.monotonic() < end:
        time.sleep(0.1)
    assert here.running() == BOTH
    assert policies(here) == {"unless-stopped"}
    assert not os.path.exists(here.places.journal)
