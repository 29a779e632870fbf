# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup begins the commit of its snapshot before it asks the engine, by what the last one committed: where that was
something else, or the backup is refused, nothing of it is left.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import ahead as commit_ahead
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.ahead import CommitAhead
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from restore_stack import Stack


class Seen:
    """What becomes of the commits that are begun, and whether one was when the engine was first asked."""

    def __init__(self, stack: Stack, monkeypatch: pytest.MonkeyPatch):
        self.pipe = Path(stack.places.runtime) / "commit"
        self.repository = stack.directory / "repository"
        self.when_asked: list[bool] = []
        self.finished: list[bool] = []
        self.begun = 0
        send, begin, finish = Engine._send, CommitAhead.__enter__, CommitAhead.finish

        def sent(engine: Engine, *what: Any, **options: Any) -> Any:
            self.when_asked.append(self.pipe.exists())
            return send(engine, *what, **options)

        def started(ahead: CommitAhead) -> CommitAhead:
            self.begun += 1
            return begin(ahead)

        def done(ahead: CommitAhead) -> Any:
            commit = finish(ahead)
            self.finished.append(commit is not None)
            return commit

        monkeypatch.setattr(commit_ahead, "_OPENS_WITHIN_S", 60.0)
        monkeypatch.setattr(commit_ahead, "LONGEST_S", 120.0)  # a busy machine must not be what breaks one off
        monkeypatch.setattr(Engine, "_send", sent)
        monkeypatch.setattr(CommitAhead, "__enter__", started)
        monkeypatch.setattr(CommitAhead, "finish", done)

    def snapshots(self) -> set[str]:
        return {path.name for path in (self.repository / "snapshots").iterdir()}

    def assert_nothing_is_left(self) -> None:
        assert not self.pipe.exists()
        assert not list((self.repository / "locks").iterdir())


def test_the_next_commit_is_begun_before_the_engine_is_asked(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.backup()
    seen = Seen(stack, monkeypatch)
    before = seen.snapshots()
    stack.fill("changed")
    made = stack.backup()
    assert seen.when_asked[0]
    assert seen.finished == [True]
    assert seen.snapshots() - before == {made}
    seen.assert_nothing_is_left()
    wanted = stack.trees()
    stack.fill("after it")
    stack.restore(snapshot=made)
    assert stack.trees() == wanted


def test_kinds_that_take_turns_do_not_mislead_each_other(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.backup()
    seen = Seen(stack, monkeypatch)
    made = stack.backup(tags=["other"])
    assert (seen.when_asked[0], seen.begun, seen.finished) == (False, 1, [True])
    found = Repository(Restic(str(seen.repository), str(stack.password))).snapshots()
    assert "other" in next(one.tags for one in found if one.id == made)


def test_what_turns_out_to_be_another_way_is_begun_anew(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the stack has become larger than what is copied within the window."""
    stack.backup()
    stack.backup()
    seen = Seen(stack, monkeypatch)
    before = seen.snapshots()
    other = "two_pass" if "way=single" in committed(stack) else "single"
    exact = backup.choose
    monkeypatch.setattr(backup, "choose", lambda _asked, *more: exact(other, *more))
    made = stack.backup()
    assert (seen.when_asked[0], seen.begun, seen.finished) == (True, 2, [True])
    assert seen.snapshots() - before == {made}
    assert f"way={other}" in committed(stack)
    found = Repository(Restic(str(seen.repository), str(stack.password))).snapshots()
    assert f"way={other}" in next(one.tags for one in found if one.id == made)
    seen.assert_nothing_is_left()


def committed(stack: Stack) -> list[str]:
    """The tags that the last backup has committed with."""
    found: list[str] = json.loads(Path(stack.places.committed).read_text())["tags"]
    return found


def test_a_refused_backup_leaves_nothing_of_it(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.backup()
    seen = Seen(stack, monkeypatch)
    before = seen.snapshots()
    engine = stack.engine
    stack.engine = Engine.connect("unix:///run/omrest-none.sock", late=True)
    try:
        with pytest.raises(StackError, match="there is no such socket"):
            stack.backup()
    finally:
        stack.engine = engine
    assert (seen.when_asked, seen.begun) == ([True], 1)
    assert (seen.finished, seen.snapshots()) == ([], before)
    seen.assert_nothing_is_left()


def test_after_a_death_it_recovers_first(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.backup()
    Path(stack.places.journal).write_text("{}")
    seen = Seen(stack, monkeypatch)
    with pytest.raises(StackError, match="not a journal"):
        stack.backup()
    assert seen.begun == 0
    Path(stack.places.journal).unlink()
    assert stack.backup() in seen.snapshots()
    assert seen.begun == 1
