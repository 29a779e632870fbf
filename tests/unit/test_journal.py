# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal, the places it lies in, and what recovery makes of it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation import journal as journaling
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.durable_json import write_json
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import THROWAWAY, recover


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))


@pytest.fixture
def journal(places: Places) -> Journal:
    return Journal.begin(places, "backup", "b1")


class Docker:
    """Containers by id, with their state, and what was asked for, in order."""

    is_local = True
    docker_host = "unix:///nowhere"

    def __init__(self, **states: str):
        self.states = states
        self.calls: list[str] = []

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name not in self.states:
            raise NotFoundError("gone")
        state, _separator, started = self.states[name].partition(" ")
        return {
            "State": {"Running": state != "exited", "Paused": state == "paused", "StartedAt": started or "t1", "Pid": 0}
        }

    def unpause(self, name: str) -> None:
        self.calls.append(f"unpause {name}")
        self.states[name] = "running"

    def start(self, name: str) -> None:
        self.calls.append(f"start {name}")
        self.states[name] = "running"

    def containers(self) -> list[dict[str, Any]]:
        return [
            {"Id": name, "Names": [f"/{name}"], "Labels": {THROWAWAY: name[6:]} if name.startswith("throw-") else {}}
            for name in self.states
        ]

    def networks(self, label: str) -> list[dict[str, Any]]:
        assert label == f"{THROWAWAY}=om"
        return []

    def remove_container(self, name: str) -> None:
        self.inspect_container(name)
        self.calls.append(f"remove {name}")
        del self.states[name]

    def remove_network(self, name: str) -> None:
        raise NotFoundError(name)

    def remove_volume(self, name: str) -> None:
        self.calls.append(f"remove volume {name}")


def entries(*names: str) -> list[dict[str, Any]]:
    return [{"id": name, "name": name, "started_at": "t1"} for name in names]


def test_what_is_noted_is_found_by_the_next_run(places: Places, journal: Journal) -> None:
    journal.phase("copy")
    journal.note("restore", {"a": 1, "b": 1})
    journal.note("restore", {"b": 2})
    journal.note("paused", entries("x", "y"))
    journal.note("paused", entries("y"))
    journal.add("throwaway.containers", "c1", "c2")
    journal.add("throwaway.containers", "c2", "c3")
    journal.drop("throwaway.containers", "c1", "never")
    found = Journal.load(places)
    assert found is not None
    assert found.data == journal.data
    assert found.data["restore"] == {"a": 1, "b": 2}
    assert found.data["throwaway"] == {"containers": ["c2", "c3"]}
    assert (found.data["paused"], found.data["phase"], found.data["pid"]) == (entries("y"), "copy", os.getpid())
    assert found.same_boot
    assert stat.S_IMODE(os.stat(places.journal).st_mode) == 0o600
    assert sorted(os.listdir(places.state)) == ["journal.json", "journal.json.room"]
    journal.end()
    journal.end()
    assert Journal.load(places) is None


def test_every_note_is_on_disk_before_it_counts(places: Places, journal: Journal, monkeypatch: Any) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, _real=real, _name=name: (done.append(_name), _real(*given)))
    journal.note("paused", [])
    assert done == ["fsync", "replace", "fsync"]


def test_room_for_the_way_back_is_kept_until_it_is_needed(places: Places, journal: Journal) -> None:
    room = f"{places.journal}.room"
    assert os.stat(room).st_blocks * 512 >= 1 << 20
    docker: Any = Docker()
    recover(docker, places, check_mode=True, lock_held=True)
    assert os.path.exists(room)
    journal.free_room()
    journal.free_room()
    assert not os.path.exists(room)
    journal.phase("undo")
    journal.end()


def test_a_second_journal_is_refused(places: Places, journal: Journal) -> None:
    with pytest.raises(StackError, match="run recover first"):
        Journal.begin(places, "backup", "b2")


@pytest.mark.parametrize(
    ("content", "words"), [("{", "is damaged"), ("[]", "is no"), ('{"operation":"x","format":2}', "newer")]
)
def test_a_journal_that_cannot_be_read_is_no_empty_one(places: Places, content: str, words: str) -> None:
    Path(places.journal).write_text(content)
    with pytest.raises(StackError, match=words):
        Journal.load(places)


RECOVERIES: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "paused": ({"paused": entries("a", "b")}, {"a": "paused", "b": "paused"}, ["unpause a", "unpause b"]),
    "resumed already": ({"paused": entries("a")}, {"a": "running"}, []),
    "paused, and gone": ({"paused": entries("a", "b")}, {"b": "paused"}, ["unpause b"]),
    "restarted since, and paused by the user": ({"paused": entries("a")}, {"a": "paused t2"}, []),
    "ended with dockerd": ({"paused": entries("a")}, {"a": "exited"}, ["start a"]),
    "after a reboot": (
        {"paused": entries("a"), "stopped": entries("b"), "boot_id": "another"},
        {"a": "exited", "b": "exited"},
        ["start b"],
    ),
    "stopped, in order": ({"stopped": entries("z", "a")}, {"a": "exited", "z": "exited"}, ["start z", "start a"]),
    "stopped, and one runs": ({"stopped": entries("z", "a")}, {"a": "running", "z": "exited"}, ["start z"]),
    "resumed first, started last": (
        {"stopped": entries("a"), "paused": entries("b"), "throwaway": {"containers": ["c"], "volumes": ["v"]}},
        {"a": "exited", "b": "paused", "c": "running"},
        ["unpause b", "remove c", "remove volume v", "start a"],
    ),
}


@pytest.mark.parametrize(("noted", "states", "calls"), RECOVERIES.values(), ids=RECOVERIES.keys())
def test_recovery(places: Places, journal: Journal, noted: Any, states: dict[str, str], calls: list[str]) -> None:
    journal.notes(noted)
    docker: Any = Docker(**states)
    planned = recover(docker, places, check_mode=True)
    assert docker.calls == []
    assert Journal.load(places) is not None
    said = recover(docker, places)
    assert docker.calls == calls
    assert [f"Would have: {sentence}" for sentence in said] == planned
    assert said[-1] == f"Ended the backup that died in the phase {journal.data['phase']}."
    assert recover(docker, places) == []
    assert docker.calls == calls


def test_one_container_that_does_not_start_keeps_no_other_down(places: Places, journal: Journal) -> None:
    class Broken(Docker):
        def start(self, name: str) -> None:
            super().start(name)
            if name == "a":
                raise StackError("port 8765 is taken.")

    journal.note("stopped", entries("a", "b"))
    docker: Any = Broken(a="exited", b="exited")
    with pytest.raises(StackError, match=r"Container a was stopped and does not start again \(port 8765 is taken"):
        recover(docker, places)
    assert docker.calls == ["start a", "start b"]
    assert Journal.load(places) is not None


@pytest.mark.parametrize(("operation", "calls"), [("b1", []), ("another", ["unpause a"])])
def test_what_the_guard_resumed_belongs_to_the_user(
    places: Places, journal: Journal, operation: str, calls: list[str]
) -> None:
    journal.note("paused", entries("a"))
    write_json(places.guard, {"id": operation, "reason": "parent", "resumed": ["a"]})
    docker: Any = Docker(a="paused")
    recover(docker, places)
    assert docker.calls == calls


def test_an_operation_of_a_newer_version_is_left_alone(places: Places, journal: Journal) -> None:
    journal.note("operation", "levitate")
    journal.note("stopped", [{"id": "one", "name": "one"}])
    docker: Any = Docker(one="exited")
    with pytest.raises(StackError, match=r"does not know \(levitate\); recover with the version that began it"):
        recover(docker, places)
    assert docker.calls == []
    assert Journal.load(places) is not None


def test_throw_aways_of_this_project_go_without_a_journal(places: Places) -> None:
    docker: Any = Docker(**{"throw-om": "running", "throw-other": "running", "om": "running"})
    assert recover(docker, places) == ["Removed throw-away container throw-om."]
    assert sorted(docker.states) == ["om", "throw-other"]


def test_directories_that_were_left_are_removed(places: Places, journal: Journal, tmp_path: Path) -> None:
    for directory in (tmp_path / "left" / "x", Path(places.scratch) / "y", Path(places.staging) / "kept"):
        directory.mkdir(parents=True)
    journal.add("remove", str(tmp_path / "left"), str(tmp_path / "never"))
    docker: Any = Docker()
    recover(docker, places)
    assert not (tmp_path / "left").exists()
    assert sorted(os.listdir(places.state)) == ["lock", "staging"]


@pytest.mark.parametrize("path", ["/", "/etc", "relative", "/a/../b", "/a/b/"])
def test_no_journal_makes_recovery_remove_what_no_operation_left(places: Places, journal: Journal, path: str) -> None:
    journal.note("remove", [path])
    docker: Any = Docker()
    with pytest.raises(StackError, match="cannot be; look at it"):
        recover(docker, places)
    assert json.loads(Path(places.journal).read_text())["remove"] == [path]


def test_places_are_private(places: Places, tmp_path: Path) -> None:
    os.chmod(places.state, 0o755)
    Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))
    made = [tmp_path / "state", tmp_path / "state/om", tmp_path / "run", tmp_path / "run/om"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700] * 4


def test_check_mode_makes_no_places(tmp_path: Path) -> None:
    places = Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"), create=False)
    docker: Any = Docker()
    assert recover(docker, places, check_mode=True) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("project", "state_dir"), [("", "/x"), ("a/b", "/x"), ("..", "/x"), ("om", "relative")])
def test_places_that_cannot_be(project: str, state_dir: str) -> None:
    with pytest.raises(StackError, match="correct it"):
        Places.of(project, state_dir, create=False)


def test_an_engine_elsewhere_is_refused(places: Places) -> None:
    docker: Any = Docker()
    docker.is_local, docker.docker_host = False, "ssh://elsewhere"
    with pytest.raises(StackError, match="docker_host ssh://elsewhere is not a socket of this host"):
        recover(docker, places)


def test_what_could_not_be_written_is_not_believed(places: Places, journal: Journal, monkeypatch: Any) -> None:
    journal.note("update", {"stage": "replacing"})
    data = journal.data  # whoever recovers holds on to it

    def full(*_: Any) -> None:
        raise StackError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(journaling, "write_json", full)
        with pytest.raises(StackError, match="no room"):
            journal.notes({"update": {"stage": "accepted"}, "stopped": []})
    assert (journal.data["update"], "stopped" in journal.data) == ({"stage": "replacing"}, False)
    journal.notes({"stopped": []})
    found = Journal.load(places)
    assert found is not None
    assert found.data == data
    assert data["update"] == {"stage": "replacing"}
