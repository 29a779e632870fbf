# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup would capture, whom it freezes for that, and what it refuses."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest, tags_of
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.plan import (
    make_plan,
    refuse_others,
    volume_key,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError, StackError

PROJECT = "om"
LABELS = {"com.docker.compose.project": PROJECT}
DATABASE = ["DATABASE_URL=sqlite:////usr/src/openmemory/data/openmemory.db"]


def fill(volume: dict[str, Any], kind: str) -> None:
    root = Path(volume["Mountpoint"])
    if kind == "sqlite":
        connection = sqlite3.connect(root / "openmemory.db")
        connection.execute("create table memories (id text)")
        connection.commit()
        connection.close()
    elif kind == "qdrant":
        (root / "collections/memories").mkdir(parents=True)
        (root / "collections/memories/config.json").write_text("{}")
        (root / "raft_state.json").write_text("{}")
    elif kind == "neo4j":
        for name in ("databases/neo4j", "databases/system", "transactions/neo4j", "transactions/system"):
            (root / name).mkdir(parents=True)
            (root / name / "file").write_text("x")
    elif kind == "files":
        (root / "debug.log").write_text("x")


def service(engine: Any, name: str, image: str, volumes: dict[str, str], **options: Any) -> dict[str, Any]:
    container: dict[str, Any] = engine.use(volumes, name=name, image=image, **options)
    container["Labels"] = dict(LABELS)
    config = engine.inspections[container["Id"]]["Config"]
    config["Labels"] = {**LABELS, "com.docker.compose.service": name}
    return container


@pytest.fixture
def stack(engine: Any) -> Any:
    """The whole stack, running, with data in each of its volumes."""
    for key, kind in (
        ("openmemory_data", "sqlite"), ("qdrant_storage", "qdrant"), ("neo4j_data", "neo4j"), ("neo4j_logs", "files")
    ):  # fmt: skip
        labels = {**LABELS, "com.docker.compose.volume": key}
        fill(engine.add(f"{PROJECT}_{key}", labels=labels), kind)
    service(engine, "qdrant", "qdrant/qdrant:v1.20.0", {f"{PROJECT}_qdrant_storage": "/qdrant/storage"})
    service(engine, "neo4j", "neo4j:5", {f"{PROJECT}_neo4j_data": "/data", f"{PROJECT}_neo4j_logs": "/logs"})
    data = {f"{PROJECT}_openmemory_data": "/usr/src/openmemory/data"}
    service(engine, "openmemory-mcp", "mem0/openmemory-mcp:1.0", data, env=DATABASE)
    return engine


def identity(name: str) -> str:
    return name * 8


def test_the_whole_stack_is_one_plan_and_logs_need_no_freeze(stack: Any) -> None:
    plan = make_plan(stack, PROJECT)
    assert {volume.key: (volume.store, volume.quiesce) for volume in plan.volumes} == {
        "neo4j_data": ("neo4j", "pause"),
        "neo4j_logs": ("files", "none"),
        "openmemory_data": ("sqlite", "pause"),
        "qdrant_storage": ("qdrant", "pause"),
    }
    assert sorted(plan.pause) == sorted(identity(name) for name in ("neo4j", "openmemory-mcp", "qdrant"))
    assert plan.stop == []
    assert {volume.path for volume in plan.volumes} == {str(Path(v["Mountpoint"])) for v in stack.known.values()}
    assert all(volume.size.files for volume in plan.volumes)


def test_all_that_can_write_is_frozen_or_watched(stack: Any) -> None:
    stack.running[0]["State"] = "exited"
    stack.use({f"{PROJECT}_openmemory_data": "/backup"}, name="reader")["Mounts"][0]["RW"] = False
    stack.use({f"{PROJECT}_openmemory_data": "/mnt"}, name="foreign")
    plan = make_plan(stack, PROJECT)
    assert sorted(plan.pause) == sorted(identity(name) for name in ("neo4j", "openmemory-mcp", "qdrant", "foreign"))


def test_volumes_can_be_named_as_in_the_project_or_as_in_docker(stack: Any) -> None:
    asked = [{"name": "neo4j_data", "quiesce": "stop"}, {"name": f"{PROJECT}_qdrant_storage"}]
    plan = make_plan(stack, PROJECT, asked, "none")
    assert [(volume.name, volume.quiesce) for volume in plan.volumes] == [
        (f"{PROJECT}_neo4j_data", "stop"), (f"{PROJECT}_qdrant_storage", "none")
    ]  # fmt: skip
    assert (plan.stop, plan.pause) == ([identity("neo4j")], [])


def test_a_plan_knows_whether_it_is_of_all_volumes(stack: Any) -> None:
    names = ["openmemory_data", "qdrant_storage", "neo4j_data", "om_neo4j_logs"]
    assert make_plan(stack, PROJECT).whole
    assert make_plan(stack, PROJECT, [{"name": name} for name in names]).whole
    assert not make_plan(stack, PROJECT, [{"name": name} for name in names[1:]]).whole


def test_a_container_that_is_to_be_stopped_for_one_volume_is_not_paused_for_another(stack: Any) -> None:
    asked = [{"name": "neo4j_logs", "quiesce": "stop"}, {"name": "neo4j_data", "quiesce": "pause"}]
    for order in (asked, asked[::-1]):
        plan = make_plan(stack, PROJECT, order)
        assert (plan.stop, plan.pause) == ([identity("neo4j")], [])


def _empty(stack: Any) -> None:
    (Path(stack.known[f"{PROJECT}_neo4j_logs"]["Mountpoint"]) / "debug.log").unlink()


def _misplace(stack: Any) -> None:
    for about in (stack.running[0], stack.inspections[identity("qdrant")]):
        about["Mounts"][0]["Destination"] = "/mem0/storage"


def _outside(stack: Any) -> None:
    stack.inspections[identity("openmemory-mcp")]["Config"].update(Env=[], WorkingDir="/usr/src/openmemory")


def _bind(stack: Any) -> None:
    mount = {"Type": "bind", "Source": "/srv/q", "Destination": "/qdrant/storage", "RW": True}
    stack.inspections[identity("qdrant")]["Mounts"] = [mount]
    stack.running[0]["Mounts"] = [mount]


def _gone(stack: Any) -> None:
    stack.known[f"{PROJECT}_neo4j_data"]["Options"] = {"type": "none", "o": "bind", "device": "/nowhere/neo4j"}


def _crashing(stack: Any) -> None:
    stack.running[1]["State"] = "restarting"


def _remote(stack: Any) -> None:
    stack.docker_host = "tcp://192.0.2.1:2375"


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        (_empty, "om_neo4j_logs is empty"),
        (_misplace, "mounted at /mem0/storage"),
        (_outside, "writes to /usr/src/openmemory, inside the container only"),
        (_bind, "on /srv/q, which is no volume of the project"),
        (_gone, "/nowhere/neo4j is gone from disk"),
        (_crashing, "neo4j, which uses the volume om_neo4j_data, keeps restarting"),
        (_remote, "docker_host is tcp://192.0.2.1:2375"),
    ],
)
def test_what_would_not_be_backed_up_is_refused(stack: Any, breakage: Callable[[Any], None], words: str) -> None:
    make_plan(stack, PROJECT)
    breakage(stack)
    with pytest.raises(StackError, match=words):
        make_plan(stack, PROJECT)


@pytest.mark.parametrize(
    ("project", "asked", "words"),
    [
        ("memory", None, "no volume of it exists on this host; there are volumes of om"),
        (PROJECT, [{"name": "nope"}], "no volume nope .*there are neo4j_data, neo4j_logs, openmemory_data"),
        ("other", [{"name": "qdrant_storage"}], "did you mean om_qdrant_storage"),
        (PROJECT, [{"name": "neo4j_data"}, {"name": "om_neo4j_data"}], "names om_neo4j_data twice"),
    ],
)
def test_wrong_names_are_explained(stack: Any, project: str, asked: Any, words: str) -> None:
    with pytest.raises(StackError, match=words):
        make_plan(stack, project, asked)


def test_two_volumes_never_share_a_name_in_the_snapshot(stack: Any) -> None:
    fill(stack.add("neo4j_data"), "files")
    with pytest.raises(StackError, match="would have one name, neo4j_data"):
        make_plan(stack, PROJECT, [{"name": "neo4j_data"}, {"name": "om_neo4j_data"}])


@pytest.mark.parametrize(
    ("name", "labels", "key"),
    [
        ("om_a", {}, "a"),
        ("om_a", {**LABELS, "com.docker.compose.volume": "b"}, "b"),
        ("om_a", {"com.docker.compose.project": "x", "com.docker.compose.volume": "b"}, "a"),
        ("external", {}, "external"),
    ],
)
def test_the_name_inside_the_project(name: str, labels: dict[str, str], key: str) -> None:
    assert volume_key(PROJECT, {"Name": name, "Labels": labels}) == key


def by_name(stack: Any) -> None:
    stack.use({"om_qdrant_storage": "/data"}, name="late")


def by_directory(stack: Any) -> None:
    late = stack.use({}, name="late")
    late["Mounts"] = [{"Type": "bind", "Source": stack.known["om_qdrant_storage"]["Mountpoint"], "RW": True}]


def by_another_volume(stack: Any) -> None:
    stack.add_path("other", stack.known["om_qdrant_storage"]["Mountpoint"])
    stack.use({"other": "/data"}, name="late")


def by_a_volume_inside(stack: Any) -> None:
    inside = Path(stack.known["om_qdrant_storage"]["Mountpoint"]) / "collections"
    inside.mkdir(exist_ok=True)
    stack.add_path("inside", inside)
    stack.use({"inside": "/data"}, name="late")


WAYS_IN = [by_name, by_directory, by_another_volume, by_a_volume_inside]


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_whoever_can_write_is_frozen_by_whatever_way_it_came_in(stack: Any, way_in: Callable[[Any], None]) -> None:
    way_in(stack)
    plan = make_plan(stack, PROJECT)
    assert "late" * 8 in plan.pause
    assert "late" * 8 in plan.containers
    refuse_others(stack, plan)


@pytest.mark.parametrize("way_in", WAYS_IN)
def test_a_writer_that_came_after_the_plan_breaks_the_instant(stack: Any, way_in: Callable[[Any], None]) -> None:
    plan = make_plan(stack, PROJECT)
    way_in(stack)
    with pytest.raises(StackError, match="late was started on the volume om_qdrant_storage"):
        refuse_others(stack, plan)
    stack.running[-1]["State"] = "exited"
    refuse_others(stack, plan)


def visit(stack: Any, volume: str, writes: bool = True, name: str = "visitor") -> None:
    """As docker run --rm: nothing of it is left but what the engine tells."""
    identity = name * 8
    mount = {"container": identity, "destination": "/data", "read/write": str(writes).lower()}
    stack.happened += [
        {"Type": "volume", "Action": "mount", "Actor": {"ID": volume, "Attributes": mount}},
        {"Type": "container", "Action": "start", "Actor": {"ID": identity, "Attributes": {"name": name}}},
    ]


@pytest.mark.parametrize("volume", ["om_qdrant_storage", "other"])
def test_a_writer_that_came_and_went_breaks_the_instant(stack: Any, volume: str) -> None:
    stack.add_path("other", stack.known["om_qdrant_storage"]["Mountpoint"])
    plan = make_plan(stack, PROJECT)
    visit(stack, volume)
    with pytest.raises(StackError, match="visitor was started on the volume om_qdrant_storage"):
        refuse_others(stack, plan, 1.0)
    refuse_others(stack, plan)  # right before the window nobody can have come in it


def test_a_writer_that_is_still_there_though_it_runs_no_more(stack: Any) -> None:
    plan = make_plan(stack, PROJECT)
    by_directory(stack)
    stack.running[-1]["State"] = "exited"
    refuse_others(stack, plan, 1.0)  # it ran before
    start = {"ID": stack.running[-1]["Id"], "Attributes": {"name": "late"}}
    stack.happened.append({"Type": "container", "Action": "start", "Actor": start})
    with pytest.raises(StackError, match="late was started"):
        refuse_others(stack, plan, 1.0)


def test_visitors_that_only_read_or_go_elsewhere_and_what_was_stopped_by_us_are_left_alone(stack: Any) -> None:
    stack.add("elsewhere")
    plan = make_plan(stack, PROJECT)
    visit(stack, "om_qdrant_storage", writes=False)
    visit(stack, "elsewhere", name="second")
    visit(stack, "om_neo4j_logs", name="third")
    visit(stack, "gone since", name="fourth")
    start = {"ID": plan.pause[0], "Attributes": {"name": "ours"}}
    mount = {"container": plan.pause[0], "read/write": "true"}
    stack.happened += [
        {"Type": "volume", "Action": "mount", "Actor": {"ID": "om_qdrant_storage", "Attributes": mount}},
        {"Type": "container", "Action": "start", "Actor": start},
    ]
    refuse_others(stack, plan, 1.0)


def test_readers_agents_and_logs_are_left_alone(stack: Any) -> None:
    plan = make_plan(stack, PROJECT)
    reader, agent = stack.use({"om_neo4j_data": "/data"}, name="reader"), stack.use({}, name="agent")
    reader["Mounts"][0]["RW"] = False
    agent["Mounts"] = [{"Type": "bind", "Source": f"{stack.root}/volumes", "RW": True}]
    stack.use({"om_neo4j_logs": "/logs"}, name="shipper")
    refuse_others(stack, plan)
    assert not {"reader" * 8, "agent" * 8, "shipper" * 8} & {*make_plan(stack, PROJECT).pause}


def test_what_a_restore_keeps_in_a_mount_point_does_not_make_the_volume_full(stack: Any) -> None:
    place = Path(stack.known["om_qdrant_storage"]["Mountpoint"])
    shutil.rmtree(place)
    old = place / ".openmemory-stack-20261125t021500-3fa9c1/old"
    old.mkdir(parents=True)
    (old / "kept").write_text("of before the restore")
    with pytest.raises(StackError, match="The volume om_qdrant_storage is empty, and a backup of it would save noth"):
        make_plan(stack, PROJECT)
    (place / ".openmemory-stack-mine").write_text("not a name of ours")
    make_plan(stack, PROJECT)


def test_a_store_that_goes_on_writing_while_it_is_copied_makes_no_verified_snapshot(stack: Any) -> None:
    request = BackupRequest(PROJECT, "/repository", "/password")
    plan = make_plan(stack, PROJECT, quiesce="none")
    assert plan.torn == ["om_neo4j_data", "om_openmemory_data", "om_qdrant_storage"]
    assert "verified=none" in tags_of(request, plan)
    for container in stack.running:
        container["State"] = "exited"
    plan = make_plan(stack, PROJECT, quiesce="none")
    assert plan.torn == []
    assert "verified=quick" in tags_of(request, plan)
    assert make_plan(stack, PROJECT).torn == []


def test_a_container_that_goes_while_the_plan_is_made(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job on one of the volumes has ended by the closer look; one on another volume is not looked at."""
    asked = [{"name": "qdrant_storage"}]
    expected = make_plan(stack, PROJECT, asked)
    stack.add("elsewhere")
    for volume in ("elsewhere", "om_qdrant_storage"):
        job = stack.use({volume: "/data"}, name="job")
        del stack.inspections[job["Id"]]
        if volume == "elsewhere":
            assert make_plan(stack, PROJECT, asked) == expected
    with pytest.raises(NotFoundError):
        make_plan(stack, PROJECT, asked)
    real = stack.inspect_container

    def looked_at(name: str) -> Any:
        if name == job["Id"]:
            stack.running = [one for one in stack.running if one["Id"] != name]  # gone, and so in no later list
        return real(name)

    monkeypatch.setattr(stack, "inspect_container", looked_at)
    assert make_plan(stack, PROJECT, asked) == expected
