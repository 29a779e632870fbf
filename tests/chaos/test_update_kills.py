# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Updates on the real engine that die, at every step and killed, and what becomes of the stack then."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_project import Project
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.moving import rebuild
from ansible_collections.openmemory.stack.plugins.module_utils._core.moving.standby import Standby
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.watcher import Watcher
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.crew import Crew
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import exchange, update
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import undo as undoing
from killing import at_phase, await_watcher, killed, refused_while_away, seconds_down
from update_stack import (
    BOTH,
    NEW,
    PROJECT,
    Updated,
    compose_processes,
    deployed,
    home,
    images,
    write,
)  # fmt: skip

__all__ = ["deployed", "home", "images"]  # fixtures

PROMISED_S = 5.0


class DiedError(BaseException):
    """Stands for a death at a point: nothing of the run's own goes on after it."""


STEPS: dict[str, tuple[Any, str, bool]] = {
    "pull": (Project, "pull", True),
    "copy": (Standby, "follow", True),
    "stop": (Crew, "stop", True),
    "settle": (Standby, "settle", True),
    "files saved": (exchange.files, "save", True),
    "before the new ones": (Project, "present", False),
    "new ones run": (Project, "present", True),
    "prove": (exchange.Exchange, "_prove", True),
    "accepted": (exchange, "finish", False),
}


def die(home: Updated, step: str, monkeypatch: pytest.MonkeyPatch, images: dict[str, str]) -> None:
    owner, name, after = STEPS[step]
    real: Callable[..., Any] = getattr(owner, name)

    def dies(*arguments: Any, **options: Any) -> Any:
        if after:
            real(*arguments, **options)
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        patch.setattr(update._Update, "take_back", lambda *_: None)
        patch.setattr(Watcher, "_watch", lambda *_: None)  # it would be the first to recover
        with pytest.raises(DiedError):
            home.update(images)


@pytest.mark.parametrize("step", STEPS)
def test_a_death_at_each_step_is_undone_or_finished(home: Updated, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, files = home.trees(), home.files()
    die(home, step, monkeypatch, NEW)
    said = recover(home.engine, home.places)
    assert any("update that died" in sentence for sentence in said)
    assert home.trees() == before
    if step == "accepted":
        assert undoing.FINISHED in said
        assert home.running() == NEW
        assert len(kept.load(home.places)) == 3
    else:
        assert home.running() == BOTH
        assert home.files() == files
    assert recover(home.engine, home.places) == []
    assert not os.path.exists(f"{home.places.state}/before-update")  # which has the secrets


@pytest.mark.parametrize("step", ["settle", "new ones run"])
def test_the_next_update_undoes_and_then_updates(home: Updated, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.trees()
    die(home, step, monkeypatch, NEW)
    with pytest.raises(StackError, match="An operation has died on omupd; run openmemory-stack recover"):
        home.update(NEW, check_mode=True)
    result = home.update(NEW)
    assert any("update that died" in action for action in result["actions"])
    assert result["updated"] == ["app", "other"]
    assert (home.running(), home.trees()) == (NEW, before)


def test_a_death_in_the_way_back_is_gone_on_with(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.trees()
    die(home, "new ones run", monkeypatch, NEW)
    write(home)
    with monkeypatch.context() as patch:

        def dies(*_: Any) -> None:
            raise DiedError

        patch.setattr(rebuild, "make_all", dies)
        with pytest.raises(DiedError):
            recover(home.engine, home.places)
    recover(home.engine, home.places)
    assert (home.running(), home.trees()) == (BOTH, before)
    assert {entry.swap.key for entry in kept.load(home.places)} == {"data", "place", "disk"}


def test_nothing_is_taken_back_while_a_disk_is_away(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy of before would look as if it had been swapped in, and the others would go back without it."""
    before = home.trees()
    die(home, "new ones run", monkeypatch, NEW)
    assert home.running() == NEW
    assert refused_while_away(home, "update", "update") == 3
    recover(home.engine, home.places)
    assert (home.running(), home.trees()) == (BOTH, before)


def interrupted(_project: Project) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_takes_it_back(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.trees()

    with monkeypatch.context() as patch:
        patch.setattr(Project, "present", interrupted)
        with pytest.raises(KeyboardInterrupt):
            home.update(NEW)
    assert (home.running(), home.trees()) == (BOTH, before)


def afresh(home: Updated) -> None:
    """With a connection of its own, as this is called in a fork."""
    update.run(home.request(NEW), Engine.connect(), Progress())


KILLS = [("pull", 0.0), ("copy", 0.02), ("stop", 0.05), ("settle", 0.0), ("start", 0.2), ("start", 0.5), ("prove", 0.0)]


@pytest.mark.parametrize(("phase", "after_s"), KILLS)
def test_killed_the_old_versions_run_again_within_seconds(home: Updated, phase: str, after_s: float) -> None:
    """Nobody runs anything: the watcher recovers, and says so."""
    before, files = home.trees(), home.files()
    (home.state / PROJECT / "last.json").unlink(missing_ok=True)
    killed(at_phase(phase, after_s), lambda: afresh(home))
    assert seconds_down(home, BOTH) < PROMISED_S
    assert home.running() == BOTH
    assert home.trees() == before
    assert home.files() == files
    assert compose_processes() == []  # it must not go on beside the recovery
    await_watcher(home.places)
    told = read_last(home.places)["recovered"]
    assert told["message"].startswith("The update of the stack omupd died in ")
    assert recover(home.engine, home.places) == []


def test_killed_with_its_watcher_the_next_run_undoes_it(home: Updated) -> None:
    before = home.trees()

    def arm(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(Watcher, "_watch", lambda *_: None)
        at_phase("start", 0.3)(patch)

    killed(arm, lambda: afresh(home))
    assert os.path.exists(home.places.journal)
    assert any("update that died" in action for action in home.update({})["actions"])
    assert (home.running(), home.trees()) == (BOTH, before)


def test_where_the_way_back_fails_the_watcher_goes_on(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody runs anything: it needs the lock of the run that failed, and gets it when that has ended."""
    before = home.trees()
    (home.state / PROJECT / "last.json").unlink(missing_ok=True)
    mine, real = os.getpid(), rebuild.make_all

    def full(*arguments: Any) -> Any:
        if os.getpid() == mine:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "make_all", full)
        patch.setattr(Project, "present", interrupted)
        with pytest.raises(StackError, match=r"It could not be taken back: .*No space left on device"):
            home.update(NEW)
    await_watcher(home.places)
    assert (home.running(), home.trees()) == (BOTH, before)
    assert read_last(home.places)["recovered"]["message"].startswith("The update of the stack omupd died in ")
    assert recover(home.engine, home.places) == []
