# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two ends of a migration on either host, from the journal alone and killed at every step, without Docker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import (
    arrival_undo,
    departure_undo,
    ending,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.departure_undo import InDoubtError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.request import Key, MigrateRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.retired import read_retirement
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.swap import Move, Record, Swap

from .conftest import FakeEngine

OPERATION = "20261125t021500-5f0c2a"
ALWAYS, NO = {"Name": "always"}, {"Name": "no"}


class Killed(BaseException):
    """Nobody catches it, as nobody catches kill -9."""


class Host(FakeEngine):
    """Containers by id: {state, policy}. It dies after so many changes, if dies is set."""

    def __init__(self, root: Path):
        super().__init__(root)
        self.containers_by_id: dict[str, dict[str, Any]] = {}
        self.done: list[str] = []
        self.dies: int | None = None

    def have(self, state: str, policy: Mapping[str, Any]) -> None:
        for name in ("store", "app"):
            self.containers_by_id[name] = {"state": state, "policy": dict(policy)}

    @property
    def states(self) -> set[tuple[str, str]]:
        return {(one["state"], one["policy"]["Name"]) for one in self.containers_by_id.values()}

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name not in self.containers_by_id:
            raise NotFoundError(name)
        state = self.containers_by_id[name]["state"]
        about = {"Status": state, "Pid": 0, "Paused": state == "paused", "Running": state in ("running", "paused")}
        return {"Id": name, "Name": f"/{name}", "State": about}

    def set_restart_policy(self, container: str, policy: Mapping[str, Any]) -> None:
        self._change(f"policy {container}", container, policy=dict(policy))

    def unpause(self, container: str) -> None:
        self._change(f"unpause {container}", container, state="running")

    def start(self, container: str) -> None:
        self._change(f"start {container}", container, state="running")

    def kill(self, container: str) -> None:
        self._change(f"kill {container}", container, state="exited")

    def remove_container(self, container: str, volumes: bool = True, force: bool = True) -> None:
        assert not volumes
        self._change(f"remove {container}", container)
        del self.containers_by_id[container]

    def _change(self, what: str, container: str, **values: Any) -> None:
        if container not in self.containers_by_id:
            raise NotFoundError(container)
        if self.dies is not None:
            if self.dies == 0:
                raise Killed
            self.dies -= 1
        self.containers_by_id[container].update(values)
        self.done.append(what)


@dataclass
class Source:
    """The host that is left, dead at the commit."""

    host: Host
    places: Places
    journal: Journal

    def undo(self) -> list[str]:
        loaded = Journal.load(self.places)
        assert loaded is not None
        return departure_undo.undo(self.host, loaded)

    @property
    def stage(self) -> str:
        loaded = Journal.load(self.places)
        assert loaded is not None
        return str(loaded.data["migrate"]["stage"])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    places = Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))
    of = Places.of

    def within(project: str, state_dir: str, create: bool = True) -> Places:
        return of(project, state_dir, str(tmp_path / "run"), create)

    monkeypatch.setattr(Places, "of", within)
    monkeypatch.setattr(departure_undo, "_FIRST_PATIENCE_S", 0.0)
    monkeypatch.setattr(departure_undo, "_RETRY_S", 0.0)
    host = Host(tmp_path / "docker")
    host.have("paused", NO)
    request = MigrateRequest(
        "om", OPERATION, "new", "192.0.2.7", ["ssh-ed25519 AAAA"], state_dir=str(tmp_path / "state")
    )
    Key(places, OPERATION).make()
    journal = Journal.begin(places, "migrate", OPERATION)
    journal.note(
        "migrate",
        {
            "stage": departure_undo.COMMITTING,
            "request": request.as_json(),
            "volumes": {"data": {"name": "om_data"}},
            "policies": {"store": ALWAYS, "app": ALWAYS},
            "frozen": [{"id": "store", "name": "store"}, {"id": "app", "name": "app"}],
        },
    )
    return Source(host, places, journal)


def answering(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """What the target says to the question."""
    monkeypatch.setattr(Key, "question", lambda _key, _request: ["sh", "-c", script])


def accepted(monkeypatch: pytest.MonkeyPatch, value: bool) -> None:
    answering(monkeypatch, f"echo Welcome to this host; echo '{json.dumps({'accepted': value})}'")


def test_if_the_target_has_taken_over_the_source_is_retired(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(monkeypatch, True)
    assert source.undo() == ["The stack runs on new by now, so it was retired here."]
    assert source.host.states == {("exited", "no")}
    found = read_retirement(source.places)
    assert found is not None
    assert (found.target, found.volumes["data"]["name"], found.policies["app"]) == ("new", "om_data", ALWAYS)
    assert not Key(source.places, OPERATION).exists


def test_if_it_has_not_the_source_goes_on_as_before(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(monkeypatch, False)
    assert source.undo() == ["The stack was not moved."]
    assert source.host.states == {("running", "always")}
    assert [done for done in source.host.done if "unpause" in done] == ["unpause store", "unpause app"]
    assert read_retirement(source.places) is None
    assert not Key(source.places, OPERATION).exists


@pytest.mark.parametrize(
    "script",
    [
        "exit 255",
        "echo 'Connection refused' >&2; exit 255",
        "echo no JSON",
        "echo '[]'",
        """echo '{"other": 1}'""",
        "true",
    ],
)
def test_in_doubt_nothing_is_changed_and_all_is_said(
    source: Source, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    answering(monkeypatch, script)
    with pytest.raises(InDoubtError, match=r"runs on neither side and nothing is lost\. .* openmemory-stack recover"):
        source.undo()
    assert source.host.done == []
    assert source.stage == departure_undo.COMMITTING
    assert Key(source.places, OPERATION).exists


def test_it_asks_until_there_is_an_answer(source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(departure_undo, "_FIRST_PATIENCE_S", 5.0)
    tries = tmp_path / "tries"
    answering(monkeypatch, f"""echo >> {tries}; [ $(wc -l < {tries}) -gt 2 ] && echo '{{"accepted": true}}'""")
    source.undo()
    assert source.host.states == {("exited", "no")}


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("dies", range(5))
def test_a_death_at_any_step_ends_as_it_would_have(
    source: Source, monkeypatch: pytest.MonkeyPatch, value: bool, dies: int
) -> None:
    """And once the target has said what it is, it is not asked again: it may have forgotten by then."""
    accepted(monkeypatch, value)
    source.host.dies = dies
    try:
        source.undo()
    except Killed:
        source.host.dies = None
        if value:
            answering(monkeypatch, "exit 255")
        source.undo()
    if value:
        assert source.host.states == {("exited", "no")}
        assert read_retirement(source.places) is not None
    else:
        policies = {one["policy"]["Name"] for one in source.host.containers_by_id.values()}
        assert policies == {"always"}
        assert read_retirement(source.places) is None


def test_a_move_that_never_committed_asks_nobody(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "exit 255")
    source.journal.note("migrate", {"stage": departure_undo.MOVING})
    assert source.undo() == ["The stack was not moved."]
    assert {policy for _state, policy in source.host.states} == {"always"}


def test_a_container_that_somebody_has_removed_is_no_hindrance(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted(monkeypatch, True)
    del source.host.containers_by_id["app"]
    source.undo()
    assert source.host.states == {("exited", "no")}


@dataclass
class Target:
    """The host that the stack goes to, with what had come swapped in."""

    host: Host
    places: Places
    record: Record
    live: Path
    journal: Journal

    def note(self, stage: str) -> None:
        self.record.stage = stage
        self.journal.note(arrival_undo.KEY, self.record.as_json())

    def undo(self) -> list[str]:
        loaded = Journal.load(self.places)
        return arrival_undo.undo(self.host, loaded) if loaded is not None else []


@pytest.fixture
def target(tmp_path: Path) -> Target:
    places = Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))
    live = tmp_path / "srv/data"
    beside = tmp_path / f"srv/.openmemory-stack-om_data-{OPERATION}"
    live.mkdir(parents=True)
    (live / "of the image").touch()
    (beside / "new").mkdir(parents=True)
    (beside / "new/come").write_text("data")
    swap = Swap(
        "om_data", "data", str(live), str(beside), [Move(str(live), f"{beside}/new", f"{beside}/old", True, True)]
    )
    record = Record(OPERATION, "", places.state)
    record.beside = [str(beside)]
    record.swaps = [swap]
    host = Host(tmp_path / "docker")
    host.have("running", NO)
    journal = Journal.begin(places, "arrival", OPERATION)
    journal.notes({arrival_undo.CONTAINERS: {"store": ALWAYS, "app": ALWAYS}})
    one = Target(host, places, record, live, journal)
    one.note(arrival_undo.SWAPPING)
    return one


@pytest.mark.parametrize("swapped", [True, False])
def test_what_was_not_accepted_leaves_no_trace(target: Target, swapped: bool) -> None:
    if swapped:
        target.record.swaps[0].forward()
        assert [path.name for path in target.live.iterdir()] == ["come"]
    target.undo()
    assert target.host.containers_by_id == {}
    assert [path.name for path in target.live.iterdir()] == ["of the image"]
    assert os.listdir(target.live.parent) == ["data"]
    assert read_last(target.places)["arrival"] == {"operation": OPERATION, "accepted": False}


def test_its_containers_are_dead_before_anything_is_moved(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.record.swaps[0].forward()
    back = Swap.back

    def checked(swap: Swap) -> bool:
        assert target.host.states == {("exited", "no")}
        return back(swap)

    monkeypatch.setattr(Swap, "back", checked)
    target.undo()


def test_what_was_accepted_stays_and_starts_by_itself_from_then_on(target: Target) -> None:
    target.record.swaps[0].forward()
    target.note(arrival_undo.ACCEPTED)
    assert target.undo() == ["The stack had been taken over, and runs here."]
    assert target.host.states == {("running", "always")}
    assert [path.name for path in target.live.iterdir()] == ["come"]
    assert read_last(target.places)["arrival"] == {"operation": OPERATION, "accepted": True, "volumes": ["om_data"]}
    assert Journal.load(target.places) is None


@pytest.mark.parametrize("stage", [arrival_undo.SWAPPING, arrival_undo.ACCEPTED])
@pytest.mark.parametrize("dies", range(5))
def test_a_death_at_any_step_of_the_target_ends_as_it_would_have(target: Target, stage: str, dies: int) -> None:
    target.record.swaps[0].forward()
    target.note(stage)
    target.host.dies = dies
    try:
        target.undo()
    except Killed:
        target.host.dies = None
        target.undo()
    kept = stage == arrival_undo.ACCEPTED
    assert target.host.states == ({("running", "always")} if kept else set())
    assert [path.name for path in target.live.iterdir()] == ["come" if kept else "of the image"]
    assert read_last(target.places)["arrival"]["accepted"] is kept


def test_only_what_runs_is_killed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.have("running", NO)
    host.containers_by_id["store"]["state"] = "exited"
    assert ending.end_at_once(host, ["store", "app", "gone"]) == ["app"]
    assert host.done == ["kill app"]
