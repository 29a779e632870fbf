# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of state=present, its execution, and that the one tells the truth about the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.present import (
    apply_present,
    describe_present,
    plan_present,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import parse_volumes


def run(engine: Any, entries: list[dict[str, Any]], check: bool = False, **options: Any) -> dict[str, Any]:
    plan = plan_present(engine, parse_volumes(entries, options.pop("compose_project", None)), **options)
    if not check:
        apply_present(plan)
    volumes = describe_present(plan)
    for volume in volumes:
        volume["filesystem"]["free_bytes"] = None  # moves by itself
    return {"changed": plan.changed, "actions": plan.actions, "diff": plan.diff, "volumes": volumes}


def entries(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        {"name": "managed", "labels": {"a": "b"}},
        {"name": "neo", "path": f"{tmp_path}/deep/neo", "store": "neo4j", "owner": os.getuid(), "group": os.getgid()},
        {"name": "plain", "path": f"{tmp_path}/plain", "mode": "2770"},
    ]


def test_check_mode_tells_what_the_run_does(engine: Any, tmp_path: Path) -> None:
    engine.add_path("old", tmp_path / "old")
    predicted = run(engine, entries(tmp_path), check=True, compose_project="shop")
    assert not (tmp_path / "deep").exists()
    assert set(engine.known) == {"old"}
    assert run(engine, entries(tmp_path), compose_project="shop") == predicted
    assert predicted["changed"]


def test_check_mode_on_an_engine_without_volumes_asks_for_its_root(engine: Any) -> None:
    predicted = run(engine, [{"name": "first"}], check=True)
    assert predicted["volumes"][0]["mountpoint"] == f"{engine.root}/volumes/first/_data"
    assert engine.calls == ["volumes", "containers", "info"]
    assert run(engine, [{"name": "first"}]) == predicted


def test_a_second_run_changes_nothing_and_costs_two_calls(engine: Any, tmp_path: Path) -> None:
    first = run(engine, entries(tmp_path))
    engine.calls.clear()
    again = run(engine, entries(tmp_path))
    assert engine.calls == ["volumes", "containers"]
    assert (again["changed"], again["actions"]) == (False, [])
    nothing = {"directories": {}, "volumes": {}}
    assert again["diff"] == {"before": nothing, "after": nothing}
    assert again["volumes"] == first["volumes"]


def test_directories_come_before_their_volumes(engine: Any, tmp_path: Path) -> None:
    done = run(engine, entries(tmp_path))
    assert done["actions"] == [
        "create volume managed",
        f"create directory {tmp_path}/deep/neo ({os.getuid()}:{os.getgid()}, mode 0750)",
        "create volume neo",
        f"create directory {tmp_path}/plain ({os.getuid()}:{os.getgid()}, mode 2770)",
        "create volume plain",
    ]
    assert (tmp_path / "deep" / "neo").stat().st_mode & 0o7777 == 0o750
    assert (tmp_path / "plain").stat().st_mode & 0o7777 == 0o2770
    assert engine.known["neo"]["Options"] == {"type": "none", "o": "bind", "device": f"{tmp_path}/deep/neo"}


def test_a_directory_that_cannot_be_made_leaves_no_volume(engine: Any, tmp_path: Path) -> None:
    plan = plan_present(engine, parse_volumes([{"name": "late", "path": f"{tmp_path}/late/x"}]))
    (tmp_path / "late").write_text("came between")
    with pytest.raises(StackError, match=r"Could not create directory .*/late/x"):
        apply_present(plan)
    assert "create late" not in engine.calls


def test_a_directory_appears_with_its_owner_or_not_at_all(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [{"name": "ab", "path": f"{tmp_path}/place", "mode": "0700"}]

    def refuse(*_arguments: Any) -> None:
        raise PermissionError(1, "No")

    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", refuse)
        with pytest.raises(StackError, match=r"Could not create directory .*: No"):
            run(engine, asked)
    assert os.listdir(tmp_path) == []
    (tmp_path / ".place.openmemory-new").mkdir()  # as a killed run leaves it
    run(engine, asked)
    assert sorted(os.listdir(tmp_path)) == ["docker", "place"]
    assert (tmp_path / "place").stat().st_mode & 0o7777 == 0o700


def test_neo4j_gets_its_owner_only_where_the_directory_is_new(engine: Any, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o711)
    asked = [{"name": f"neo-{name}", "path": f"{tmp_path}/{name}", "store": "neo4j"} for name in ("new", "old")]
    new, old = run(engine, asked, check=True)["volumes"]
    assert new["directory"] == {"owner": 7474, "group": 7474, "mode": "0750"}
    assert old["directory"] == {"owner": os.getuid(), "group": os.getgid(), "mode": "0711"}


def test_owner_and_mode_of_an_existing_directory_change_only_if_asked(engine: Any, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o711)
    (place / "inside").write_text("x")
    (place / "inside").chmod(0o600)
    run(engine, [{"name": "ab", "path": str(place)}])
    assert place.stat().st_mode & 0o7777 == 0o711
    done = run(engine, [{"name": "ab", "path": str(place), "mode": "0700"}])
    me = f"{os.getuid()}:{os.getgid()}"
    assert done["actions"] == [f"change directory {place} from {me}, mode 0711 to {me}, mode 0700"]
    directory = {"owner": os.getuid(), "group": os.getgid()}
    assert done["diff"]["before"]["directories"] == {str(place): {**directory, "mode": "0711"}}
    assert done["diff"]["after"]["directories"] == {str(place): {**directory, "mode": "0700"}}
    assert place.stat().st_mode & 0o7777 == 0o700
    assert (place / "inside").stat().st_mode & 0o7777 == 0o600
    assert not run(engine, [{"name": "ab", "path": str(place), "mode": "0700"}])["changed"]


def test_a_directory_that_is_gone_under_its_volume_is_not_made_again(engine: Any, tmp_path: Path) -> None:
    run(engine, [{"name": "ab", "path": f"{tmp_path}/disk"}])
    (tmp_path / "disk").rmdir()
    with pytest.raises(StackError, match=r"volume ab: exists, and its directory .*/disk is gone; mount its disk"):
        run(engine, [{"name": "ab", "path": f"{tmp_path}/disk"}])
    assert not (tmp_path / "disk").exists()


DRIFT = {
    "path for managed": ({"path": "/srv/new"}, {}, ["driver_opts.device", "driver_opts.o", "driver_opts.type"]),
    "managed for path": ({}, {"options": "bind"}, ["driver_opts.device", "driver_opts.o", "driver_opts.type"]),
    "another path": ({"path": "/srv/new"}, {"options": "bind"}, ["driver_opts.device"]),
    "another driver": ({"driver": "sshfs"}, {}, ["driver"]),
    "a label": ({"labels": {"a": "2"}}, {"labels": {"a": "1", "b": "1"}}, ["labels.a"]),
    "a missing label": ({"labels": {"a": "2"}}, {}, ["labels.a"]),
    "another project": ({}, {"labels": {"com.docker.compose.project": "x"}}, ["labels.com.docker.compose.project"]),
}


@pytest.mark.parametrize(("asked", "has", "names"), DRIFT.values(), ids=DRIFT.keys())
def test_drift_is_told_and_never_mended(
    engine: Any, tmp_path: Path, asked: dict[str, Any], has: dict[str, Any], names: list[str]
) -> None:
    if has.get("options"):
        has = {"options": {"type": "none", "o": "bind", "device": str(tmp_path)}}
    engine.add("ab", **has)
    before = dict(engine.known["ab"])
    wanted = [{"name": "ab", **asked}, {"name": "cd"}]
    with pytest.raises(StackError) as raised:
        run(engine, wanted, compose_project="shop")
    assert all(f"ab: {name} is " in str(raised.value) for name in names)
    assert "on_drift: ignore" in str(raised.value)
    done = run(engine, wanted, compose_project="shop", on_drift="ignore")
    assert [item["name"] for item in done["volumes"][0]["drift"]] == names
    assert engine.known["ab"] == before
    assert done["actions"] == ["create volume cd"]
    assert not Path("/srv/new").exists()


SAME = {
    "flags in another order": {"type": "nfs", "o": "rw,addr=192.0.2.1,nolock", "device": ":/x"},
    "an empty option": {"type": "nfs", "o": "addr=192.0.2.1,nolock,rw", "device": ":/x", "size": ""},
}


@pytest.mark.parametrize("has", SAME.values(), ids=SAME.keys())
def test_options_that_mean_the_same_are_no_drift(engine: Any, has: dict[str, str]) -> None:
    engine.add("ab", options=has)
    asked = {"type": "nfs", "o": "addr=192.0.2.1,rw,nolock", "device": ":/x"}
    assert not run(engine, [{"name": "ab", "driver_opts": asked}])["changed"]


@pytest.mark.parametrize("kind", ["none", "bind", ""])
def test_a_slash_and_the_type_of_a_bind_are_no_drift(engine: Any, tmp_path: Path, kind: str) -> None:
    (tmp_path / "place").mkdir()
    engine.add("ab", options={"type": kind, "o": "bind", "device": f"{tmp_path}/place/"})
    assert run(engine, [{"name": "ab", "path": f"{tmp_path}/place"}])["volumes"][0]["drift"] == []


def test_labels_of_compose_that_are_missing_are_no_drift(engine: Any) -> None:
    engine.add("shop_data")
    assert run(engine, [{"name": "shop_data"}], compose_project="shop")["volumes"][0]["drift"] == []


def test_containers_in_any_state_are_told(engine: Any) -> None:
    engine.add("ab")
    container = engine.use({"ab": "/data"}, state="exited", name="sleeper")
    container["Names"] = ["/other/alias", "/sleeper"]  # as the engine lists links
    assert run(engine, [{"name": "ab"}])["volumes"][0]["containers"] == [
        {
            "name": "sleeper",
            "id": "sleeper" * 8,
            "image": "busybox",
            "state": "exited",
            "destination": "/data",
            "read_only": False,
        }
    ]
