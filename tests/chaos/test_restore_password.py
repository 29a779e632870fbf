# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Neo4j's password through whole restores: its data brings that of the snapshot's time, whatever the settings say.

The tests are one story on one stack, in their order: the password is changed after the snapshot, in Neo4j and in the
settings; restored without and with set_password; then restored where no container is, and where one is stopped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof import ask
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import restore
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.request import RestoreRequest

from live_stack import PASSWORD, READY_SECONDS, LiveStack

PROJECT = "ompass"
ROOT = Path("/var/tmp") / PROJECT
WHERE = str(ROOT / "repository"), str(ROOT / "password")
NEW = "password-of-later"
NEO4J = f"{PROJECT}-neo4j-1"
GRAPH = ["neo4j_data"]
COUNT, MORE = 40, 5  # memories in the snapshot, and after it


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    """With a snapshot; then both its settings and Neo4j itself got another password, and memories were added."""
    LiveStack(PROJECT, ROOT / "stack", 28775).down()
    shutil.rmtree(ROOT, ignore_errors=True)
    made = LiveStack(PROJECT, ROOT / "stack", 28775)
    (ROOT / "password").touch(mode=0o600)
    (ROOT / "password").write_text("chaos")
    made.up()
    made.write(COUNT)
    backup.run(BackupRequest(PROJECT, *WHERE, state_dir=str(ROOT / "state")), Engine.connect(), Progress())
    made.change_password(PASSWORD, NEW)
    settings = made.directory / "docker-compose.yml"
    settings.write_text(settings.read_text().replace(PASSWORD, NEW))
    made.up()
    made.write(MORE)
    yield made
    made.down()
    shutil.rmtree(ROOT)


def restored(**asked: Any) -> dict[str, Any]:
    request = RestoreRequest(PROJECT, *WHERE, state_dir=str(ROOT / "state"), safety=False, wait_timeout=60, **asked)
    found: dict[str, Any] = restore.run(request, Engine.connect(), Progress())
    return found


def accepted(stack: LiveStack) -> list[str]:
    """Which of the two passwords the running Neo4j takes, once it answers."""
    end = time.monotonic() + READY_SECONDS
    found = []
    for password in (PASSWORD, NEW):
        while True:
            try:
                stack.graph(password).run("RETURN 1")
                found.append(password)
                break
            except ask.LoginError:
                break
            except (ask.AnswerError, ask.UnansweredError):
                assert time.monotonic() < end, "Neo4j does not answer"
                time.sleep(0.2)
    return found


def held(stack: LiveStack) -> set[int]:
    """How many memories each store holds, as the service reads them with its own password."""
    return {len(memories) for memories in stack.stores().values()}


def test_a_restore_whose_neo4j_refuses_the_hosts_password_is_taken_back(stack: LiveStack) -> None:
    assert (accepted(stack), held(stack)) == ([NEW], {COUNT + MORE})
    with pytest.raises(StackError) as caught:
        restored(force=True)
    assert str(caught.value).startswith(
        f"Neo4j in {NEO4J} refuses the password of this host's settings: restored data keeps the password that it was "
        "backed up with. Set NEO4J_PASSWORD to that one, or restore with set_password: true. It was taken back: the "
        "data is as it was before, and "
    )
    assert (accepted(stack), held(stack)) == ([NEW], {COUNT + MORE})


def test_with_set_password_it_ends_well_and_the_service_works_with_it(stack: LiveStack) -> None:
    result = restored(force=True, set_password=True)
    assert f"set the password of the restored Neo4j to that of {NEO4J}" in result["actions"]
    assert result["warnings"] == []
    assert (accepted(stack), held(stack)) == ([NEW], {COUNT})
    stack.write(1)
    assert held(stack) == {COUNT + 1}


def test_where_no_container_is_the_password_of_then_is_said_and_can_be_changed_after_it(stack: LiveStack) -> None:
    stack.down()
    result = restored(volumes=GRAPH)
    assert result["warnings"] == [
        f"No container of Neo4j is on the volume {PROJECT}_neo4j_data, so its login was not checked: the data keeps "
        "the password of the snapshot's time. Deploy Neo4j with that one as NEO4J_PASSWORD (stack_neo4j_password), or "
        "restore again with set_password: true once its container is there."
    ]
    stack.compose("up", "--detach", "neo4j")
    assert accepted(stack) == [PASSWORD]
    stack.change_password(PASSWORD, NEW)
    assert accepted(stack) == [NEW]


def test_where_its_container_is_there_and_stopped_it_is_said_and_set_password_sets_it(stack: LiveStack) -> None:
    stack.compose("stop", "neo4j")
    result = restored(volumes=GRAPH, force=True)
    assert result["warnings"][1:] == [
        f"{NEO4J} is not started, so its login was not checked: the data keeps the password of the snapshot's time. If "
        f"that is not the one in the settings of {NEO4J}, restore again with set_password: true."
    ]
    assert result["warnings"][0].startswith("None of the containers ran")
    result = restored(volumes=GRAPH, force=True, set_password=True)
    assert len(result["warnings"]) == 1
    stack.compose("start", "neo4j")
    assert accepted(stack) == [NEW]
