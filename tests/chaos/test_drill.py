# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills on the real stack: one that proves, those that must fail, and those that are killed.

Whatever becomes of one, nothing of it is left and the live stack has not noticed; a fixture looks after each test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup, sound_copy
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring import metrics
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import Outcome, outcome, read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof import ask, drill
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.throwaway import LABEL
from killing import Arm, after, at_phase, killed

from live_stack import MOUNTS, PASSWORD, LiveStack

PROJECT = "omdrill"
ROOT = Path("/var/tmp") / PROJECT
SERVICES = ("openmemory-mcp", "qdrant", "neo4j")
# Without Neo4j's logs: its image has a volume for them, so a throw-away gets an anonymous one, which must go, too.
VOLUMES = [{"name": key} for key in MOUNTS if key != "neo4j_logs"]
COUNT = 120  # memories: more than a page of the API
LISTED = Callable[[dict[str, Any]], None]


class Drills:
    """The live stack, its snapshots by what is wrong with them, and all that may be left of a drill."""

    def __init__(self) -> None:
        self.stack = LiveStack(PROJECT, ROOT / "stack", 28770)
        self.engine = Engine.connect()
        self.places = Places.of(PROJECT, str(ROOT / "state"))
        self.snapshots: dict[str, str] = {}
        self.volumes: set[str] = set()  # that throw-aways had

    def make(self) -> None:
        (ROOT / "password").touch(mode=0o600)
        (ROOT / "password").write_text("chaos")
        for directory in ("etc", "metrics"):
            (ROOT / directory).mkdir()
        (ROOT / f"etc/{PROJECT}.monitoring.json").write_text(f'{{"metrics_dir": "{ROOT}/metrics"}}')
        self.stack.up()
        self.stack.write(COUNT)
        with more_in_the_manifest("openmemory_data"):
            self.snapshots["sqlite"] = self.backup()
        with more_in_the_manifest("qdrant_storage", "neo4j_data"):
            self.snapshots["servers"] = self.backup()
        with self.torn():
            self.snapshots["torn"] = self.backup()
        self.stack.change_password(PASSWORD, "another-password")
        self.snapshots["password"] = self.backup()
        self.stack.change_password("another-password", PASSWORD)
        self.snapshots["good"] = self.backup()

    def backup(self) -> str:
        where = str(ROOT / "repository"), str(ROOT / "password")
        request = BackupRequest(PROJECT, *where, volumes=VOLUMES, state_dir=str(ROOT / "state"))
        return str(backup.run(request, self.engine, Progress())["snapshot_id"])

    @contextmanager
    def torn(self) -> Iterator[None]:
        """Qdrant lacks one memory and Neo4j another, as if somebody had removed them by hand."""
        point, node = self.lost()
        qdrant = ask.qdrant(self.stack.inspect("qdrant"))
        assert qdrant is not None
        [collection] = qdrant.ask("GET", "/collections")["result"]["collections"]
        points = f"/collections/{collection['name']}/points"
        [kept] = qdrant.ask("POST", points, {"ids": [point], "with_vector": True, "with_payload": True})["result"]
        qdrant.ask("POST", f"{points}/delete?wait=true", {"points": [point]})
        rename = "MATCH (m:Memory {id: $before}) SET m.id = $after"
        self.stack.graph().run(rename, {"before": node, "after": "lost"})
        yield
        self.stack.graph().run(rename, {"before": "lost", "after": node})
        again = {name: kept[name] for name in ("id", "vector", "payload")}
        qdrant.ask("PUT", f"{points}?wait=true", {"points": [again]})

    def lost(self) -> list[str]:
        return sorted(self.stack.acknowledged())[:2]

    def drill(self, what: str = "good", listener: LISTED | None = None, **asked: Any) -> dict[str, Any]:
        where = str(ROOT / "repository"), str(ROOT / "password")
        named = {"snapshot": self.snapshots[what], "state_dir": str(ROOT / "state"), "config_dir": str(ROOT / "etc")}
        request = drill.DrillRequest(PROJECT, *where, **{**named, **asked})
        found: dict[str, Any] = drill.run(request, Engine.connect(), Progress(listener=listener))
        return found

    def failing(self, what: str = "good", listener: LISTED | None = None) -> str:
        """What a drill that must fail says; it is on record as the last one, and in the metrics."""
        with pytest.raises(StackError) as caught:
            self.drill(what, listener)
        said = str(caught.value)
        last = self.last()
        assert (last.ok, last.message) == (False, said)
        assert self.metric("last_run_success") == 0
        assert "\n" not in said
        return said

    def last(self) -> Outcome:
        found = outcome(read_last(self.places), "drill")
        assert found is not None
        return found

    def metric(self, name: str) -> float:
        lines = Path(metrics.path_of(str(ROOT / "metrics"), PROJECT)).read_text().splitlines()
        [value] = [
            line.split()[1] for line in lines if line.startswith(f"openmemory_stack_{name}{{") and drills_own(line)
        ]
        return float(value)

    def throwaways(self) -> list[dict[str, Any]]:
        ours = [one for one in self.engine.containers() if (one["Labels"] or {}).get(LABEL) == PROJECT]
        found = [self.engine.inspect_container(one["Id"]) for one in ours]
        for about in found:
            self.volumes |= volumes_of(about)
        return found

    def left(self) -> list[str]:
        found = [str(about["Name"]) for about in self.throwaways()]
        found += [str(one["Name"]) for one in self.engine.networks(f"{LABEL}={PROJECT}")]
        found += sorted(self.volumes & {str(one["Name"]) for one in self.engine.volumes()})
        found += [str(path) for path in Path(self.places.scratch).rglob("*")]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(ROOT) in line]
        return found + [path for path in (self.places.journal,) if os.path.exists(path)]

    def files(self) -> set[str]:
        """Of the state directory, but for what any drill has there."""
        own = {self.places.scratch, self.places.last}
        return {str(path) for path in Path(self.places.state).rglob("*")} - own

    def live(self) -> dict[str, Any]:
        found = {name: self.stack.inspect(name) for name in SERVICES}
        return {
            name: (about["Id"], about["State"]["StartedAt"], about["State"]["Pid"]) for name, about in found.items()
        }


def drills_own(line: str) -> bool:
    return 'operation="drill"' in line or "operation=" not in line


def volumes_of(inspected: dict[str, Any]) -> set[str]:
    return {str(mount["Name"]) for mount in inspected["Mounts"] if mount["Type"] == "volume"}


@contextmanager
def more_in_the_manifest(*keys: str) -> Iterator[None]:
    """Snapshots that say of these volumes that they hold one thing more than they do."""
    make = sound_copy.make_manifest

    def lying(*given: Any) -> Any:
        manifest = make(*given)
        for key in keys:
            numbers = manifest.volumes[key]["census"]
            numbers = numbers.get("tables") or numbers.get("collections") or numbers
            numbers["memories" if "memories" in numbers else sorted(numbers)[0]] += 1
        return manifest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sound_copy, "make_manifest", lying)
        yield


@pytest.fixture(scope="module")
def drills() -> Iterator[Drills]:
    LiveStack(PROJECT, ROOT / "stack", 28770).down()
    shutil.rmtree(ROOT, ignore_errors=True)
    made = Drills()
    made.make()
    yield made
    made.stack.down()
    shutil.rmtree(ROOT)


@pytest.fixture(autouse=True)
def nothing_left_and_nothing_touched(drills: Drills, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    create = Engine.create_container

    def noting(self: Engine, name: str, body: dict[str, Any]) -> str:
        made: str = create(self, name, body)
        drills.volumes |= volumes_of(self.inspect_container(name))
        return made

    monkeypatch.setattr(Engine, "create_container", noting)
    live, files = drills.live(), drills.files()
    yield
    assert drills.left() == []
    assert drills.files() == files
    assert drills.live() == live
    found = drills.stack.read()
    assert found["agree"], found
    assert not found["missing_count"], found


def test_the_newest_snapshot_is_proven_beside_the_live_stack(drills: Drills) -> None:
    seen: list[dict[str, Any]] = []

    def look(state: dict[str, Any]) -> None:
        if state["phase"] == "read":
            seen.extend(drills.throwaways())

    result = drills.drill(listener=look, snapshot="latest")
    assert (result["ok"], result["snapshot_id"], result["warnings"]) == (True, drills.snapshots["good"], [])
    assert result["memories"] == COUNT
    assert result["census"]["openmemory_data"]["tables"]["memories"] == COUNT
    assert list(result["census"]["qdrant_storage"]["collections"].values()) == [COUNT]
    assert result["census"]["neo4j_data"]["nodes"] == COUNT + 1  # and the user
    assert len(seen) == len(SERVICES)
    [network] = drills_networks(seen)
    assert network.startswith("openmemory-throwaway-")
    assert not [port for about in seen for port in about["NetworkSettings"]["Ports"].values() if port]
    assert drills.volumes, "no throw-away had a volume, so none could be left"
    assert drills.last().ok
    assert (drills.metric("last_run_success"), drills.metric("drill_memories")) == (1, COUNT)


def drills_networks(seen: list[dict[str, Any]]) -> set[str]:
    return {name for about in seen for name in about["NetworkSettings"]["Networks"]}


def test_a_snapshot_with_fewer_rows_than_it_says_fails_before_anything_is_started(drills: Drills) -> None:
    assert drills.failing("sqlite") == (
        "The restored copy does not hold what the snapshot says: "
        f"openmemory_data: table memories: {COUNT} found, {COUNT + 1} expected."
    )


def test_a_snapshot_with_fewer_points_and_nodes_than_it_says_fails(drills: Drills) -> None:
    said = drills.failing("servers")
    assert said.startswith("The restored copy does not hold what the snapshot says: neo4j_data: nodes: ")
    assert f": {COUNT + 1} found, {COUNT + 2} expected. qdrant_storage: collection " in said
    assert said.endswith(f": {COUNT} found, {COUNT + 1} expected.")


def test_stores_that_do_not_know_the_same_memories_fail_though_each_holds_what_it_should(drills: Drills) -> None:
    point, node = drills.lost()
    assert drills.failing("torn") == (
        "The restored stack does not agree with itself: "
        f"Qdrant has no point for 1 of {COUNT} active memories ({point}). "
        f"Neo4j has no node for 1 of {COUNT} active memories ({node})."
    )


def test_another_password_than_that_of_the_settings_fails_and_offers_to_set_it(drills: Drills) -> None:
    assert drills.failing("password") == (
        f"{PROJECT}-neo4j-1 on the restored data refuses the password of this host's settings: the snapshot was made "
        "with another one, so a restore of it needs set_password: true."
    )


@pytest.fixture
def small_disk(drills: Drills) -> Iterator[Callable[[str], None]]:
    """The drills' own place is on a disk of its own, whose size can be set."""
    place = drills.places.scratch
    os.makedirs(place, mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, "size=4g,mode=0700", PROJECT, place], check=True)

    def resize(size: str) -> None:
        subprocess.run([*mount, f"remount,size={size}", PROJECT, place], check=True)

    yield resize
    subprocess.run(["umount", place], check=True)


def test_no_room_is_said_before_anything_is_fetched(drills: Drills, small_disk: Callable[[str], None]) -> None:
    small_disk("8m")
    said = drills.failing()
    assert said.startswith("There is no room for a copy beside the live data: ")
    assert f"are needed on the file system of {drills.places.scratch}, 8 MiB are free, " in said


def test_a_disk_that_fills_up_meanwhile_is_named(drills: Drills, small_disk: Callable[[str], None]) -> None:
    said = drills.failing(listener=lambda state: small_disk("8m") if state["phase"] == "fetch" else None)
    assert said.startswith(f"The disk is full: there was no room to write {drills.places.scratch}/drill-")


@pytest.mark.parametrize(
    ("arm", "phase", "containers"),
    [
        pytest.param(at_phase("fetch", 0.15), "fetch", 0, id="fetch"),
        pytest.param(at_phase("check", 0.0), "check", 0, id="check"),
        pytest.param(after(Engine, "create_network", 1), "start", 0, id="network"),
        pytest.param(after(Engine, "create_container", 2), "start", 2, id="start"),
        pytest.param(at_phase("read", 0.0), "read", 3, id="read"),
        pytest.param(after(Engine, "remove_container", 1), "read", 2, id="clean-up"),
    ],
)
def test_killed_in_any_phase_and_put_right(drills: Drills, arm: Arm, phase: str, containers: int) -> None:
    killed(arm, partial(drills.drill, "good"))
    assert drills.places.journal in drills.left()
    assert len(drills.throwaways()) == containers
    said = recover(drills.engine, drills.places)
    assert len([sentence for sentence in said if "throw-away container" in sentence]) == containers
    assert said[-1] == f"Ended the drill that died in the phase {phase}."
    assert recover(drills.engine, drills.places) == []
    end = time.monotonic() + 5
    while living_restic():
        assert time.monotonic() < end, "restic outlives the drill that started it"
        time.sleep(0.05)


def living_restic() -> list[str]:
    """Those at this repository. One that has ended has no environment any more, even if nobody has asked for it yet."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (place / "comm").read_text() == "restic\n" and str(ROOT).encode() in (place / "environ").read_bytes():
                found.append(place.name)
    return found


def test_the_next_drill_puts_right_what_a_killed_one_has_left(drills: Drills) -> None:
    killed(after(Engine, "create_container", 3), partial(drills.drill, "good"))
    assert len(drills.throwaways()) == len(SERVICES)
    result = drills.drill()
    assert result["ok"]
    assert "Ended the drill that died in the phase start." in result["actions"]
