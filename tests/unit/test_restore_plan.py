# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a restore goes, and everything that it refuses before it touches anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import room
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import Mount, MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.manifest import Manifest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import plan as planning
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.plan import RestorePlan, make_plan
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.request import RestoreRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.targets import refuse_active
from ansible_collections.openmemory.stack.plugins.module_utils._core.state import State

from .conftest import FakeEngine

SNAPSHOT = Snapshot("5f0c" * 16, "5f0c5f0c", datetime(2026, 11, 25, 2, 15, tzinfo=UTC), (), "host", ())
ID = "20261125t021500-3fa9c1"
PROJECT = "com.docker.compose.project"
VOLUME = "com.docker.compose.volume"
REQUEST = RestoreRequest("om", "/repository", "/password")


class OneSnapshot(Repository):
    """A repository whose only snapshot is of the stack om with two volumes."""

    def __init__(self, project: str = "om", **volumes: dict[str, Any]):
        self.asked: list[tuple[str | None, ...]] = []
        self.tags: tuple[str, ...] = ()
        about = {
            key: {
                "name": f"{project}_{key}",
                "labels": {PROJECT: project, VOLUME: key, "com.docker.compose.config-hash": "c"},
            }
            for key in ("qdrant_storage", "openmemory_data")
        }
        self.found = Manifest(
            project,
            "id",
            "2026-11-25T02:15:00+00:00",
            "host",
            "0.2.0",
            "single",
            volumes={key: {**values, **volumes.get(key, {})} for key, values in about.items()},
            images={"qdrant": {"reference": "qdrant/qdrant:v1.20.0", "version": None}},
        )

    def resolve(self, text: str, project: str | None, ask: bool = True, volumes: Sequence[str] = ()) -> Snapshot:
        self.asked.append((text, project, *volumes))
        return replace(SNAPSHOT, tags=self.tags)

    def manifest_text(self, snapshot_id: str) -> str:
        assert snapshot_id == SNAPSHOT.id
        return str(self.found.to_json())


class Host(FakeEngine):
    """The small engine with what a plan reads of containers and images."""

    image_tag = "qdrant/qdrant:v1.20.1"

    def run(self, name: str, volumes: dict[str, str], project: str | None = "om", **more: Any) -> dict[str, Any]:
        container = self.use(volumes, name, **more)
        labels = {PROJECT: project, "com.docker.compose.service": name} if project else {}
        container["Labels"] = labels
        about = self.inspections[container["Id"]]
        about.update(Id=container["Id"], Image="sha256:1", State={"Status": container["State"]}, HostConfig={})
        about["Config"]["Labels"] = labels
        return container

    def inspect_image(self, name: str) -> dict[str, Any]:
        assert name == "sha256:1"
        return {"RepoTags": [self.image_tag], "Config": {}}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "docker")


def of_stack(host: Host, key: str, *files: str, name: str | None = None) -> Path:
    """A volume of the stack om on the host, with files in it."""
    made = host.add(name or f"om_{key}", labels={PROJECT: "om", VOLUME: key})
    place = Path(made["Mountpoint"])
    for file in files:
        (place / file).write_text("live")
    return place


def plan_of(
    host: Host, repository: OneSnapshot | None = None, mounts: MountTable | None = None, **asked: Any
) -> RestorePlan:
    request = replace(REQUEST, **asked)
    request.check()
    return make_plan(request, host, repository or OneSnapshot(), State(host, mounts))


def test_in_place_goes_to_the_stacks_own_volumes_whatever_their_name(host: Host) -> None:
    of_stack(host, "qdrant_storage", name="somewhere_else")
    of_stack(host, "openmemory_data")
    host.run("qdrant", {"somewhere_else": "/qdrant/storage"}, image="qdrant/qdrant:v1.20.1")
    plan = plan_of(host)
    assert [(target.key, target.name, target.exists, target.in_root) for target in plan.targets] == [
        ("openmemory_data", "om_openmemory_data", True, False),
        ("qdrant_storage", "somewhere_else", True, False),
    ]
    assert plan.targets[1].beside(ID) == f"{host.root}/volumes/somewhere_else/.openmemory-restore-{ID}"
    assert plan.crew.names() == ["qdrant"]
    assert plan.actions == [
        "restore volume om_openmemory_data from snapshot 5f0c5f0c of 2026-11-25 02:15:00",
        "restore volume somewhere_else from snapshot 5f0c5f0c of 2026-11-25 02:15:00",
        "stop qdrant",
        "start qdrant",
    ]


def test_a_snapshot_of_some_volumes_warns_unless_they_are_named(host: Host) -> None:
    repository = OneSnapshot()
    repository.tags = ("project=om", "partial=openmemory_data+qdrant_storage")
    told = (
        "The snapshot 5f0c5f0c holds only openmemory_data, qdrant_storage, not all volumes of the stack om, and the "
        "others are left as they are; where there is a snapshot of all, give its id to bring back all."
    )
    assert told in plan_of(host, repository).warnings
    assert told not in plan_of(host, repository, volumes=["om_qdrant_storage"]).warnings
    assert repository.asked == [("latest", "om"), ("latest", "om", "qdrant_storage")]


def test_a_host_that_never_had_the_stack_gets_its_volumes_with_composes_labels(host: Host) -> None:
    (target, _other) = plan_of(host, volumes=None).targets
    assert (target.name, target.exists, target.labels) == (
        "om_openmemory_data",
        False,
        {PROJECT: "om", VOLUME: "openmemory_data"},  # without the hash Compose never asks to recreate
    )
    assert target.path == f"{host.root}/volumes/om_openmemory_data/_data"


def test_another_stacks_snapshot_goes_to_this_stacks_names(host: Host) -> None:
    repository = OneSnapshot("prod")
    plan = plan_of(host, repository, from_project="prod")
    assert repository.asked == [("latest", "prod")]
    assert [(target.name, target.labels[PROJECT]) for target in plan.targets] == [
        ("om_openmemory_data", "om"),
        ("om_qdrant_storage", "om"),
    ]


@pytest.mark.parametrize(
    ("prefix", "name", "labels"),
    [
        (None, "om-restored_qdrant_storage", {PROJECT: "om-restored", VOLUME: "qdrant_storage"}),
        ("look_", "look_qdrant_storage", {PROJECT: "look", VOLUME: "qdrant_storage"}),
        ("look-", "look-qdrant_storage", {}),  # Compose would not look for it
    ],
)
def test_new_volumes_have_names_and_labels_of_their_own(
    host: Host, prefix: str | None, name: str, labels: dict[str, str]
) -> None:
    of_stack(host, "qdrant_storage", "live")
    host.run("qdrant", {"om_qdrant_storage": "/qdrant/storage"}, image="qdrant/qdrant:v1.20.1")
    plan = plan_of(host, volumes=["qdrant_storage"], target="new", new_prefix=prefix)
    (target,) = plan.targets
    assert (target.name, target.exists, target.labels, plan.crew.ids) == (name, False, labels, [])


def test_a_volume_with_a_path_is_made_beside_the_old_path(host: Host, tmp_path: Path) -> None:
    options = {"type": "none", "o": "bind", "device": str(tmp_path / "srv/qdrant")}
    repository = OneSnapshot(qdrant_storage={"driver_opts": options})
    (target,) = plan_of(host, repository, volumes=["qdrant_storage"], target="new").targets
    assert target.path == f"{tmp_path}/srv/om-restored_qdrant_storage"
    assert target.driver_opts == {**options, "device": target.path}
    assert target.beside(ID) == f"{tmp_path}/srv/.openmemory-stack-om-restored_qdrant_storage-{ID}"


def test_a_mount_point_stays_and_is_swapped_inside(host: Host, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    host.add(
        "om_qdrant_storage", options={"type": "none", "o": "bind", "device": f"{tmp_path}/disk"}, labels={PROJECT: "om"}
    )
    mounts = MountTable([Mount("/", "ext4"), Mount(f"{tmp_path}/disk", "ext4")])
    (target,) = plan_of(host, mounts=mounts, volumes=["qdrant_storage"]).targets
    assert (target.in_root, target.beside(ID)) == (True, f"{tmp_path}/disk/.openmemory-stack-{ID}")


def test_a_database_goes_with_its_side_files() -> None:
    assert planning.path_names("sub/db") == ["sub/db", "sub/db-journal", "sub/db-wal", "sub/db-shm"]
    assert planning.path_names("sub/db-wal") == ["sub/db-wal"]


def full(host: Host) -> None:
    of_stack(host, "qdrant_storage", "live")
    of_stack(host, "openmemory_data")


def foreign(host: Host) -> None:
    of_stack(host, "qdrant_storage")
    host.run("intruder", {"om_qdrant_storage": "/data"}, project="other")


def foreign_bind(host: Host) -> None:
    place = of_stack(host, "qdrant_storage")
    container = host.run("intruder", {}, project=None)
    container["Mounts"] = [{"Type": "bind", "Source": str(place)}]


def foreign_volume(host: Host) -> None:
    host.add_path("theirs", of_stack(host, "qdrant_storage"))
    host.run("intruder", {"theirs": "/data"}, project="other")


def volume_inside(host: Host) -> None:
    inside = of_stack(host, "qdrant_storage") / "collections"
    inside.mkdir()
    host.add_path("inside", inside)


def paused(host: Host) -> None:
    of_stack(host, "qdrant_storage")
    host.run("qdrant", {"om_qdrant_storage": "/qdrant/storage"}, state="paused")


def no_prefix(host: Host) -> None:
    host.add("qdrant_storage")
    host.add("openmemory_data")


def other_prefix(host: Host) -> None:
    host.add("stack_qdrant_storage")


def too_old(host: Host) -> None:
    of_stack(host, "qdrant_storage")
    host.image_tag = "qdrant/qdrant:v1.19.0"
    host.run("qdrant", {"om_qdrant_storage": "/qdrant/storage"}, image="qdrant/qdrant:v1.19.0")


def mounted_by_docker(host: Host) -> None:
    host.add("om_qdrant_storage", options={"type": "ext4", "device": "/dev/sdb"}, labels={PROJECT: "om"})


def nothing(host: Host) -> None:
    """The host has never seen the stack."""


Q = ["qdrant_storage"]


@pytest.mark.parametrize(
    ("make", "asked", "said"),
    [
        (full, {}, "The volume om_qdrant_storage is not empty; set force: true"),
        (foreign, {}, "in use by the container intruder of the project other, not om; stop that container"),
        (foreign, {"force": True}, "in use by the container intruder"),
        (foreign_bind, {}, "in use by the container intruder of no Compose project"),
        (foreign_volume, {}, "in use by the container intruder of the project other"),
        (volume_inside, {"volumes": Q, "force": True}, r"The volume inside .* lies inside the volume om_qdrant_sto"),
        (paused, {}, "qdrant, which uses the volume om_qdrant_storage, is paused; resume it"),
        (no_prefix, {}, "no volume om_openmemory_data on this host, and it would be made anew beside openmemory_data"),
        (other_prefix, {"volumes": Q}, r"made anew beside stack_qdrant_storage; .* name_map \(qdrant_storage: stack_"),
        (full, {"volumes": Q, "name_map": {"qdrant_storage": "qdrant_storage"}}, "made anew beside om_qdrant_storage"),
        (full, {"volumes": Q, "target": "new", "new_prefix": "om_"}, "om_qdrant_storage is there already"),
        (
            full,
            {"volumes": ["neo4j"]},
            "volumes names neo4j, which is not in the snapshot; it holds openmemory_data, q",
        ),
        (full, {"volumes": [*Q, "om_qdrant_storage"]}, "names om_qdrant_storage twice"),
        (full, {"name_map": {"neo4j": "x1"}}, "name_map names neo4j, which is not in the snapshot"),
        (full, {"name_map": {"qdrant_storage": "om_openmemory_data"}}, "Two volumes of the snapshot would go to"),
        (full, {"volumes": Q, "path": "live"}, "live is there in the volume om_qdrant_storage; set force"),
        (full, {"volumes": Q, "path": "sub/file"}, "has no directory sub now; restore sub as a whole"),
        (nothing, {"volumes": Q, "path": "file"}, "om_qdrant_storage is not; leave out path"),
        (too_old, {"volumes": Q}, "written by Qdrant 1.20.0, and Qdrant 1.19.0 .* Set ignore_versions"),
        (mounted_by_docker, {"volumes": Q}, r"is mounted by Docker itself \(ext4\)"),
        (nothing, {"path": "../x", "volumes": Q}, "without .. in it"),
        (nothing, {"path": "x"}, "volumes must name the one volume"),
        (nothing, {"path": "x", "volumes": Q, "target": "new"}, "leave out target: new"),
        (nothing, {"path": "x", "volumes": Q, "probe": True}, "path is x, and probe is for whole volumes; leave"),
        (nothing, {"path": "x", "volumes": Q, "set_password": True}, "path is x, and set_password is for whole"),
        (nothing, {"new_prefix": "x"}, "new_prefix is for target: new"),
        (nothing, {"target": "elsewhere"}, "target is 'elsewhere'"),
        (nothing, {"volumes": []}, "volumes is an empty list"),
        (nothing, {"keep_days": -1}, "keep_days is -1"),
    ],
)
def test_refused_in_one_sentence_and_nothing_touched(
    host: Host, tmp_path: Path, make: Callable[[Host], None], asked: dict[str, Any], said: str
) -> None:
    make(host)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StackError, match=said):
        plan_of(host, OneSnapshot(qdrant_storage={"store": "qdrant"}), **asked)
    assert sorted(tmp_path.rglob("*")) == before
    assert not [call for call in host.calls if call.startswith(("create", "remove"))]


def test_a_snapshot_of_another_stack_is_refused(host: Host) -> None:
    with pytest.raises(StackError, match=r"is of the stack prod, not of om; .* set from_project: prod"):
        plan_of(host, OneSnapshot("prod"))


def test_versions_are_only_a_warning_when_asked(host: Host) -> None:
    too_old(host)
    plan = plan_of(host, OneSnapshot(qdrant_storage={"store": "qdrant"}), volumes=Q, ignore_versions=True)
    assert "Qdrant 1.19.0 cannot take it over" in plan.warnings[0]


NEVER = "No container of Neo4j is on the volume om_qdrant_storage, so its login was not checked"
STOPPED = "graph is not started, so its login was not checked"


@pytest.mark.parametrize(
    ("state", "auth", "asked", "said"),
    [
        (None, "", {}, NEVER),
        (None, "", {"set_password": True}, NEVER),
        (None, "", {"target": "new"}, None),  # nothing is deployed on it
        ("running", "neo4j/password", {}, None),  # it is started and asked
        ("running", "neo4j/password", {"start": False}, STOPPED),
        ("exited", "neo4j/password", {}, STOPPED),
        ("exited", "neo4j/password", {"set_password": True}, None),
        ("exited", "none", {}, None),
    ],
)
def test_a_login_that_nobody_tries_is_said(
    host: Host, state: str | None, auth: str, asked: dict[str, Any], said: str | None
) -> None:
    host.image_tag = "neo4j:5.26.0"
    if state:
        of_stack(host, "qdrant_storage")
        host.run("graph", {"om_qdrant_storage": "/data"}, image="neo4j:5.26.0", state=state, env=[f"NEO4J_AUTH={auth}"])
    plan = plan_of(host, OneSnapshot(qdrant_storage={"store": "neo4j"}), volumes=Q, **asked)
    warnings = [warning for warning in plan.warnings if "login" in warning]
    assert len(warnings) == (said is not None)
    assert warnings == [] or str(said) in warnings[0]


def test_how_much_room_is_missing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_and_total", lambda path: (1 << 20, 1 << 40))
    repository = OneSnapshot(qdrant_storage={"size_bytes": 5 << 20})
    with pytest.raises(StackError, match=r"5 MiB are needed .* 1 MiB are free, 4 MiB are missing"):
        plan_of(host, repository, volumes=Q)
    assert not os.path.exists(host.root / "volumes")


def test_only_what_runs_is_stopped_and_dependents_first(host: Host) -> None:
    of_stack(host, "qdrant_storage")
    of_stack(host, "openmemory_data")
    host.run("qdrant", {"om_qdrant_storage": "/qdrant/storage"}, image="qdrant/qdrant:v1.20.1")
    app = host.run("app", {"om_openmemory_data": "/data"}, state="restarting")
    host.run("job", {"om_openmemory_data": "/data"}, state="exited")
    host.inspections[app["Id"]]["Config"]["Labels"]["com.docker.compose.depends_on"] = "qdrant:service_healthy:false"
    plan = plan_of(host)
    assert plan.crew.names() == ["qdrant", "app"]
    assert plan.actions[-2:] == ["stop app, qdrant", "start qdrant, app"]


@pytest.mark.parametrize("bound", [False, True])
def test_a_container_that_came_after_the_plan_stops_the_swap(host: Host, bound: bool) -> None:
    place = of_stack(host, "qdrant_storage")
    old = host.run("qdrant", {"om_qdrant_storage": "/qdrant/storage"}, image="qdrant/qdrant:v1.20.1")
    plan = plan_of(host, volumes=Q)
    host.inspections[old["Id"]]["State"]["Status"] = "exited"  # the engine's list still says running, as it may
    refuse_active(plan.targets, host)
    old["State"] = "exited"
    refuse_active(plan.targets, host)
    late = host.run("late", {} if bound else {"om_qdrant_storage": "/qdrant/storage"})
    if bound:
        late["Mounts"] = [{"Type": "bind", "Source": str(place)}]
    with pytest.raises(StackError, match="container late was started on the volume om_qdrant_storage"):
        refuse_active(plan.targets, host)
    with pytest.raises(StackError, match=r"while the update was under way, .*, or repeat the update with it running"):
        refuse_active(plan.targets, host, "update")
