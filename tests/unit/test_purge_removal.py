# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The removal, killed at every step: until the point of no return all runs again, after it all goes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_env import HEADER
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge import purge, trees
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.record import Doomed, Record
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.request import PurgeRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.undo import FINISHED

from .purge_host import Host


class Killed(BaseException):
    """Nobody catches it, as nobody catches kill -9."""


class Steps:
    """Counts everything that changes something, and dies at one of them; once dead nothing is done any more."""

    def __init__(self, die_at: int = -1):
        self.die_at = die_at
        self.count = 0

    def __call__(self, what: str = "") -> None:
        if self.die_at in (self.count, -2):
            self.die_at = -2  # cleaning up is no more than dead code then
            raise Killed(what)
        self.count += 1


def host_of(top: Path) -> tuple[Host, PurgeRequest]:
    host = Host.with_stack(top)
    project = top / "opt"
    project.mkdir()
    (project / "c.yml").write_text("services: {}")
    (project / ".env").write_text(f"{HEADER}COMPOSE_PROJECT_NAME=om\nCOMPOSE_FILE=c.yml\n")
    (host.directory / "a/b").mkdir(parents=True)
    (host.directory / "a/b/c").write_text("data")
    Places.of("om", str(top / "state"))
    (top / "state/om/last.json").write_text("{}")
    srv = str(host.directory.parent)
    asked = PurgeRequest(
        "om", confirm="om", snapshot="none", state_dir=str(top / "state"), project_src=str(project), directories=[srv]
    )
    return host, asked


def places_of(asked: PurgeRequest, top: Path) -> Places:
    return Places.of("om", asked.state_dir, str(top / "run"), create=False)


def seen(host: Host, top: Path) -> dict[str, Any]:
    """Containers with their states, networks, volumes, and every path that is not a volume's."""
    paths = {str(path.relative_to(top)) for name in ("srv", "opt", "state") for path in (top / name).rglob("*")}
    return {
        "containers": {each["Names"][0]: each["State"] for each in host.running},
        "networks": [each["Name"] for each in host.nets],
        "volumes": sorted(host.known),
        "paths": sorted(paths - {"state/om", "state/om/lock", *(f"state/om/journal.json{end}" for end in JOURNAL)}),
    }


JOURNAL = ("", ".new", ".room")
GONE = {"containers": {}, "networks": [], "volumes": [], "paths": []}


def watched(patch: pytest.MonkeyPatch, host: Host, steps: Steps) -> None:
    """Every change of the engine, the disk and the journal is a step, before and after."""
    host.step = steps

    def around(place: Any, name: str) -> None:
        act = getattr(place, name)

        def stepping(*given: Any, **named: Any) -> Any:
            steps(name)
            found = act(*given, **named)
            steps(name)
            return found

        patch.setattr(place, name, stepping)

    for name in ("_write", "end"):
        around(Journal, name)
    for name in ("rename", "unlink", "rmdir"):
        around(trees.os, name)


def test_killed_at_every_step(tmp_path: Path) -> None:
    step, ends = 0, []
    while True:
        top = tmp_path / str(step)
        top.mkdir()
        host, asked = host_of(top)
        before = seen(host, top)
        steps = Steps(step)
        patch = pytest.MonkeyPatch()
        try:
            with patch.context() as patched:
                watched(patched, host, steps)
                purge.run(asked, host, Progress())
        except Killed:
            pass
        else:
            break
        finally:
            host.step = lambda _what: None
        began = any(change.startswith("remove") for change in host.changes)
        said = recover(host, places_of(asked, top))
        now = seen(host, top)
        assert now in (before, GONE), (step, said)
        assert now == GONE or not began, step
        assert (FINISHED in said) <= (now == GONE)
        assert not [sentence for sentence in said if "was stopped" in sentence]  # nobody tries to start what goes
        assert recover(host, places_of(asked, top)) == []
        ends.append(now == GONE)
        step += 1
    assert seen(host, top) == GONE
    assert not (top / "state/om").exists()
    assert ends == sorted(ends)  # once nothing can be taken back, it stays so
    assert ends.count(False) >= 6
    assert ends.count(True) >= 40


def test_killed_in_the_recovery_too(tmp_path: Path) -> None:
    """Each recovery dies one step later than the one before, until one comes through."""
    host, asked = host_of(tmp_path)
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        watched(patched, host, Steps(14))
        with pytest.raises(Killed):
            purge.run(asked, host, Progress())
    for step in range(200):
        with patch.context() as patched:
            watched(patched, host, Steps(step))
            try:
                recover(host, places_of(asked, tmp_path))
            except Killed:
                continue
            break
    host.step = lambda _what: None
    assert seen(host, tmp_path) == GONE


@pytest.mark.parametrize("stage", ["volume", "directory"])
def test_what_was_made_anew_after_its_removal_stays(tmp_path: Path, stage: str) -> None:
    host, asked = host_of(tmp_path)

    def die(what: str) -> None:
        if what == "remove volume om_place":  # by now om_data is gone, and says so
            raise Killed

    host.step = die
    with pytest.raises(Killed):
        purge.run(asked, host, Progress())
    host.step = lambda _what: None
    if stage == "volume":
        shutil.rmtree(host.root / "volumes/om_data")
        host.add("om_data", labels={"com.docker.compose.project": "om"})
        assert FINISHED in recover(host, places_of(asked, tmp_path))
        assert list(host.known) == ["om_data"]
        return
    host.run("om-new", {"om_place": "/place"})
    with pytest.raises(
        StackError, match=r"container om-new was made since the purge began and uses the volume om_place"
    ):
        recover(host, places_of(asked, tmp_path))
    assert (host.directory / "file").read_text() == "data"


def test_what_was_stopped_is_known_whatever_the_snapshot_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A freeze clears what it had stopped from the journal."""
    host, asked = host_of(tmp_path)

    def freeze(self: Any) -> None:
        self.journal.notes({"paused": [], "stopped": []})
        raise Killed

    monkeypatch.setattr(purge._Purge, "_save", freeze)
    monkeypatch.setattr(purge._Purge, "take_back", lambda _self, _error: None)
    with pytest.raises(Killed):
        purge.run(asked, host, Progress())
    assert {each["State"] for each in host.running} == {"exited"}
    recover(host, places_of(asked, tmp_path))
    assert {each["State"] for each in host.running} == {"running"}


def test_an_error_before_the_removal_takes_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, asked = host_of(tmp_path)
    before = seen(host, tmp_path)

    def fail(_self: Any) -> str:
        raise StackError("The disk is full.")

    monkeypatch.setattr(purge._Purge, "_save", fail)
    with pytest.raises(StackError) as found:
        purge.run(asked, host, Progress())
    assert str(found.value) == "The disk is full. Nothing was removed, and om-app, om-store started again."
    assert seen(host, tmp_path) == before


def test_an_error_in_the_removal_says_how_it_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host, asked = host_of(tmp_path)

    def refuse(_path: str, _trash: str) -> bool:
        raise StackError("It is read-only.")

    with monkeypatch.context() as patched:
        patched.setattr("ansible_collections.openmemory.stack.plugins.module_utils._core.purge.undo.move_away", refuse)
        with pytest.raises(
            StackError, match=r"It is read-only\. The removal has begun and cannot be taken back; .* again"
        ):
            purge.run(asked, host, Progress())
    result = purge.run(asked, host, Progress())
    assert (result["changed"], FINISHED in result["actions"]) == (True, True)
    assert seen(host, tmp_path) == GONE
    assert not purge.run(asked, host, Progress())["changed"]


@pytest.mark.parametrize("change", ["volume", "container", "start"])
def test_what_changed_while_the_snapshot_was_made_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """It is in no snapshot."""
    host, asked = host_of(tmp_path)

    def meanwhile(_self: Any) -> None:
        if change == "volume":
            host.add("om_new", labels={"com.docker.compose.project": "om"})
        elif change == "container":
            host.run("om-new", {})
        else:
            host.start(host.running[0]["Id"])

    monkeypatch.setattr(purge._Purge, "_save", meanwhile)
    with pytest.raises(StackError, match="while the purge was under way; run it again"):
        purge.run(asked, host, Progress())
    assert not [each for each in host.changes if each.startswith("remove")]
    assert {each["State"] for each in host.running} == {"running"}


def test_a_tree_goes_whole_and_nothing_that_it_points_to(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "file").write_text("stays")
    at = tree
    for _level in range(1200):  # deeper than Python's own recursion goes
        at = at / "d"
    for level in (tree, tree / "d/d/d"):
        level.mkdir(parents=True, exist_ok=True)
        (level / "link").symlink_to(outside)
        (level / "file").write_text("goes")
        os.mkfifo(level / "pipe")
    descriptor = os.open(tree / "d/d/d", os.O_RDONLY)
    for _level in range(1200):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    assert trees.remove_tree(str(tree))
    assert not tree.exists()
    assert (outside / "file").read_text() == "stays"
    assert not trees.remove_tree(str(tree))


def test_a_link_in_place_of_a_tree_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    assert not trees.remove_tree(str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "outside").is_dir()


def test_what_was_mounted_meanwhile_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree/disk").mkdir(parents=True)
    (tmp_path / "tree/disk/file").write_text("stays")
    numbers = iter(["mnt_id: 1", "mnt_id: 2"])
    monkeypatch.setattr(trees, "_mount_of", lambda _descriptor: next(numbers))
    with pytest.raises(StackError, match=r"tree cannot be removed .*something is mounted there at disk"):
        trees.remove_tree(str(tmp_path / "tree"))
    assert (tmp_path / "tree/disk/file").read_text() == "stays"


def test_the_record_comes_back_as_it_was_and_a_damaged_one_is_said() -> None:
    record = Record(volumes=["a"], directories=[Doomed("/srv/a", "x", "a", "/srv/b", True)], files=["/f"])
    assert Record.from_json({**record.as_json(), "done": ["volume a"]}) == record
    with pytest.raises(StackError, match="record of a purge is damaged"):
        Record.from_json({"stage": "removing"})
