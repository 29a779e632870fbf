# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a purge finds, and everything that it refuses before it touches anything."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import BusyError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import Mount, MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.lock import OperationLock
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_env import HEADER
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge import plan as planning
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge import purge
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.project import project_files
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.refusals import is_system
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.request import PurgeRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.swap import Swap

from .purge_host import Host

ID = "20261125t021500-3fa9c1"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """The stack om: a managed volume and one with a path, two containers, a network."""
    return Host.with_stack(tmp_path)


@pytest.fixture
def request_(tmp_path: Path) -> PurgeRequest:
    return PurgeRequest("om", snapshot="none", confirm="om", state_dir=str(tmp_path / "state"))


def plan_of(host: Host, request: PurgeRequest, mounts: list[str] | None = None) -> planning.PurgePlan:
    request.check()
    places = Places.of("om", request.state_dir, create=False)
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        if mounts is not None:
            table = MountTable([Mount(point, "ext4") for point in ("/", *mounts)])
            patched.setattr(planning, "State", lambda engine: planning_state(engine, table))
        return planning.make_plan(request, host, places, ID)


def planning_state(engine: Host, table: MountTable) -> Any:
    from ansible_collections.openmemory.stack.plugins.module_utils._core.state import State

    return State(engine, table)


def refusal(host: Host, request: PurgeRequest, mounts: list[str] | None = None) -> str:
    with pytest.raises(StackError) as found:
        plan_of(host, request, mounts)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_all_that_goes_is_listed(host: Host, request_: PurgeRequest) -> None:
    plan = plan_of(host, request_)
    path = str(host.directory)
    assert plan.removed == {
        "containers": ["om-app", "om-store"],
        "networks": ["om_default"],
        "volumes": ["om_data", "om_place"],
        "paths": [path],
    }
    assert plan.crew.names() == ["om-app", "om-store"]
    assert plan.actions == [
        "stop om-store, om-app",
        "remove container om-app",
        "remove container om-store",
        "remove network om_default",
        "remove volume om_data (4 KiB)",
        "remove volume om_place",
        f"remove {path}, the data of the volume om_place (4 KiB)",
    ]
    assert plan.summary == "2 containers, 1 network, 2 volumes, 1 path"
    (doomed,) = plan.record.directories
    assert (doomed.trash, doomed.stays) == (f"{host.directory.parent}/.openmemory-purge-{ID}-0", False)
    assert not plan.nothing


def test_old_data_of_restores_goes_too_and_what_is_not_ours_stays(host: Host, request_: PurgeRequest) -> None:
    places = Places.of("om", request_.state_dir)
    mine, other = host.directory.parent / f".openmemory-stack-om_place-{ID}", host.directory.parent / "photos"
    for place in (mine, other):
        place.mkdir()
    swaps = [Swap("om_place", "place", str(host.directory), str(place), []) for place in (mine, other)]
    kept.save(places, [kept.Kept(ID, "5f0c", 1.0, 2e9, swap) for swap in swaps])
    plan = plan_of(host, request_)
    assert plan.removed["paths"] == [str(host.directory), str(mine), places.state]
    assert [warning for warning in plan.warnings if str(other) in warning]


def test_a_mount_point_is_emptied_and_stays(host: Host, request_: PurgeRequest) -> None:
    (doomed,) = plan_of(host, request_, [str(host.directory)]).record.directories
    assert (doomed.trash, doomed.stays) == (None, True)


def test_what_is_mounted_in_a_directory_is_refused(host: Host, request_: PurgeRequest) -> None:
    inside = str(host.directory / "disk")
    assert f"another file system is mounted in it at {inside}; unmount that first" in refusal(host, request_, [inside])


@pytest.mark.parametrize("inside", ["", "/disk"])
def test_what_is_mounted_in_a_managed_volume_is_refused(host: Host, request_: PurgeRequest, inside: str) -> None:
    """Docker itself would go into it."""
    place = host.known["om_data"]["Mountpoint"] + inside
    assert f"another file system is mounted in it at {place}; unmount that first" in refusal(host, request_, [place])


def foreign_user(host: Host) -> None:
    host.run("backup", {"om_data": "/x"}, project=None, state="exited")


def foreign_bind(host: Host) -> None:
    container = host.run("web", {}, project="web", state="exited")
    container["Mounts"].append({"Type": "bind", "Source": str(host.directory / "sub"), "Destination": "/x"})


def foreign_label(host: Host) -> None:
    host.known["om_data"]["Labels"] = {"com.docker.compose.project": "web"}


def foreign_network(host: Host) -> None:
    container = host.run("proxy", {}, project="web")
    container["NetworkSettings"] = {"Networks": {"x": {"NetworkID": "net-1"}}}


def same_place(host: Host) -> None:
    host.add_path("web_data", host.directory)


def around(host: Host) -> None:
    host.add_path("web_data", host.directory.parent)


def within(host: Host) -> None:
    (host.directory / "sub").mkdir()
    host.add_path("web_data", host.directory / "sub")


def repository_inside(host: Host) -> None:
    for name in ("data", "index", "keys", "snapshots"):
        (host.directory / "a/b" / name).mkdir(parents=True)
    (host.directory / "a/b/config").write_text("x")


def paused(host: Host) -> None:
    host.running[0]["State"] = "paused"


def system_directory(host: Host) -> None:
    host.known["om_place"]["Options"]["device"] = "/var/lib"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            foreign_user,
            "volume om_data is also used by the container backup (exited) of no Compose project; remove that",
        ),
        (foreign_bind, "volume om_place is also used by the container web (exited) of the project web"),
        (foreign_label, "volume om_data is of the project web and is used by om-app, om-store of om"),
        (foreign_network, "docker network disconnect om_default proxy"),
        (same_place, "and the volume web_data, which is not of this stack, is there, too; move it first"),
        (around, "and the volume web_data, which is not of this stack, lies at"),
        (within, "and the volume web_data, which is not of this stack, lies at"),
        (repository_inside, "There is a repository of restic at"),
        (paused, "is paused, so it cannot be stopped; resume it (docker unpause)"),
        (system_directory, "lies in /var/lib, which is not the stack's alone but the system's"),
    ],
)
def test_what_is_not_the_stacks_alone_is_refused(
    host: Host, request_: PurgeRequest, change: Callable[[Host], None], words: str
) -> None:
    change(host)
    said = refusal(host, request_)
    assert words in said
    with pytest.raises(StackError):
        purge.run(request_, host, Progress())
    assert not os.path.exists(request_.state_dir)
    assert host.changes == []


@pytest.mark.parametrize("name", ["repository", "password_file"])
@pytest.mark.parametrize("place", ["inside", "same", "managed", "state"])
def test_what_stays_must_not_lie_in_what_goes(host: Host, request_: PurgeRequest, name: str, place: str) -> None:
    Places.of("om", request_.state_dir)
    Path(request_.state_dir, "om/last.json").touch()
    where = {
        "inside": host.directory / "sub/thing",
        "same": host.directory,
        "managed": Path(host.known["om_data"]["Mountpoint"]) / "thing",
        "state": Path(request_.state_dir) / "om/thing",
    }[place]
    said = refusal(host, replace(request_, **{name: str(where)}))
    assert said.startswith(f"The {name} {where} and ")
    assert said.endswith(f"lie in each other; move the {name} to another place first.")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", True),
        ("/srv", True),
        ("/var/lib", True),
        ("/home/max", True),
        ("/etc/openmemory", True),
        ("/usr/share/x", True),
        ("/srv/openmemory", False),
        ("/var/lib/openmemory", False),
        ("/home/max/openmemory", False),
    ],
)
def test_directories_of_the_system(path: str, expected: bool) -> None:
    assert is_system(path) == expected


def test_another_machines_engine_is_refused(host: Host, request_: PurgeRequest) -> None:
    host.docker_host = "tcp://192.0.2.1:2376"
    with pytest.raises(StackError, match="is not a socket of this host"):
        purge.run(request_, host, Progress())


def test_without_the_name_it_is_refused_and_says_what_would_go(host: Host, request_: PurgeRequest) -> None:
    with pytest.raises(StackError) as found:
        purge.run(replace(request_, confirm=""), host, Progress())
    assert str(found.value) == (
        "This would remove the stack om with all of its data, without a snapshot: 2 containers, 1 network, 2 volumes, "
        "1 path; set confirm: om to have it done."
    )
    assert (host.changes, os.path.exists(request_.state_dir)) == ([], False)
    predicted = purge.run(replace(request_, confirm=""), host, Progress(), check_mode=True)
    assert (predicted["changed"], predicted["removed"]["volumes"]) == (True, ["om_data", "om_place"])
    assert (host.changes, os.path.exists(request_.state_dir)) == ([], False)


def test_while_another_operation_is_under_way_nothing_is_done(host: Host, request_: PurgeRequest) -> None:
    places = Places.of("om", request_.state_dir)
    with OperationLock(places, "backup"), pytest.raises(BusyError, match="under way on the stack om: backup"):
        purge.run(request_, host, Progress())
    assert host.changes == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"confirm": "openmemory"}, "confirm is 'openmemory', and the stack to remove is om; set confirm: om"),
        ({"snapshot": "perhaps"}, "snapshot is 'perhaps'; use one of make, none"),
        ({"snapshot": "make"}, "repository is not given, and a snapshot is made first; give it, or set snapshot: none"),
        ({"snapshot": "make", "repository": "/r"}, "password_file is not given"),
        ({"project_src": "opt"}, "project_src is opt, which is not an absolute path"),
        ({"directories": ["srv"]}, "directories is srv, which is not an absolute path"),
        ({"project": "Open Memory"}, "compose_project is 'Open Memory'"),
    ],
)
def test_bad_requests(request_: PurgeRequest, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(StackError) as found:
        replace(request_, **asked).check()
    assert words in str(found.value)


def test_a_snapshot_that_cannot_be_made_is_known_before_anything_stops(host: Host, request_: PurgeRequest) -> None:
    asked = replace(request_, snapshot="make", repository="/nowhere/r", password_file="/nowhere/p")
    with pytest.raises(StackError, match=r"There is no repository at /nowhere/r\. .* set snapshot: none"):
        purge.run(asked, host, Progress())
    assert host.changes == []


def test_a_name_that_nobody_knows_is_refused_and_a_purged_one_is_not_changed(tmp_path: Path) -> None:
    empty, state = Host(tmp_path / "docker"), str(tmp_path / "state")
    asked = PurgeRequest("om", "/nowhere/r", "/nowhere/p", confirm="om", state_dir=state)
    with pytest.raises(StackError, match="nothing of it is on this host, nor a snapshot of it in /nowhere/r"):
        purge.run(asked, empty, Progress())
    result = purge.run(replace(asked, snapshot="none"), empty, Progress())
    assert (result["changed"], result["actions"]) == (False, ["nothing of the stack om is on this host"])
    assert not os.path.exists(state)


def test_only_files_of_ours_are_files_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("a person's")
    for name in ("a.yml", "b.yml", ".openmemory-stack.json"):
        (tmp_path / name).write_text("x")
    assert project_files(str(tmp_path), "om") == []
    settings = f"{HEADER}KEY=x\nCOMPOSE_PROJECT_NAME=om\nCOMPOSE_FILE=a.yml:b.yml:../c.yml:gone.yml\n"
    (tmp_path / ".env").write_text(settings)
    found = [os.path.basename(path) for path in project_files(str(tmp_path), "om")]
    assert found == ["a.yml", "b.yml", ".openmemory-stack.json", ".env"]
    assert project_files(str(tmp_path), "other") == []
    (tmp_path / ".env").write_text(settings.removeprefix(HEADER))
    assert project_files(str(tmp_path), "om") == []
