# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module volume on the real engine, run through Ansible as a user runs it."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import docker
import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.absent import plan_absent
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.present import (
    apply_present,
    describe_present,
    plan_present,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import parse_volumes

MODULE = "openmemory.stack.volume"


def steady(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what moves by itself or tells how the module was called."""
    for volume in result["volumes"]:
        if volume.get("filesystem"):
            volume["filesystem"]["free_bytes"] = None
    return {key: result[key] for key in ("changed", "actions", "diff", "volumes") if key in result}


def test_from_nothing_to_removal(lab: Any) -> None:
    place = lab.directory / "parent" / "neo"
    asked = {
        "compose_project": "omtest",
        "size": True,
        "volumes": [
            {"name": "omtest_data", "store": "sqlite", "labels": {"tier": "gold"}},
            {"name": "omtest_neo", "path": str(place), "store": "neo4j", "mode": "0700", "min_free": "1M"},
            {"name": "omtest_ram", "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}},
        ],
    }
    predicted = lab.ansible(MODULE, "--check", "--diff", **asked)
    assert lab.names() == []
    assert not place.parent.exists()
    done = lab.ansible(MODULE, "--diff", **asked)
    assert steady(done) == steady(predicted)
    assert done["changed"]
    for told in done["volumes"]:
        real = lab.volume(told["name"])
        for key, name in {
            "Driver": "driver", "Options": "driver_opts", "Labels": "labels", "Mountpoint": "mountpoint",
        }.items():  # fmt: skip
            assert (real[key] or {}) == (told[name] or {})
        assert real["Labels"]["com.docker.compose.project"] == "omtest"
        assert "com.docker.compose.config-hash" not in real["Labels"]
    about = place.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o7777) == (7474, 7474, 0o700)
    again = lab.ansible(MODULE, "--diff", **asked)
    assert not again["changed"]
    assert again["volumes"] == [
        {**volume, "filesystem": again["volumes"][i]["filesystem"]} for i, volume in enumerate(done["volumes"])
    ]
    removal = {"state": "absent", "volumes": [{"name": name} for name in ("omtest_data", "omtest_neo")]}
    predicted = lab.ansible(MODULE, "--check", "--diff", **removal)
    assert len(lab.names()) == 3
    assert steady(lab.ansible(MODULE, "--diff", **removal)) == steady(predicted)
    assert lab.names() == ["omtest_ram"]
    assert place.is_dir()
    assert predicted["volumes"][1] == {"name": "omtest_neo", "removed": True, "directory_left": str(place)}
    assert not lab.ansible(MODULE, **removal)["changed"]


def test_data_lands_in_the_directory_and_outlives_the_volume(lab: Any) -> None:
    place = lab.directory / "data"
    lab.ansible(MODULE, volumes=[{"name": "omtest_data", "path": str(place)}])
    container = lab.container("writer", {"omtest_data": "/data"}, start=True)
    lab.put(container, "/data", "memory", b"kept")
    assert (place / "memory").read_bytes() == b"kept"
    told = lab.ansible(MODULE, volumes=[{"name": "omtest_data", "path": str(place)}], size=True)["volumes"][0]
    assert (told["size_bytes"], told["files"], told["store"]["kind"]) == (4, 1, "files")
    used = told["containers"][0]
    assert (used["name"], used["state"], used["destination"]) == ("omtest-writer", "running", "/data")
    absent = {"state": "absent", "volumes": [{"name": "omtest_data"}]}
    for flags in ([], ["--check"]):
        assert "is used by omtest-writer (running)" in lab.ansible(MODULE, *flags, **absent)["msg"]
    lab.client.remove_container(container, force=True)
    for flags in ([], ["--check"]):
        assert (
            "is not empty, /var/tmp/omtest/data holds 1 files with 4 bytes"
            in lab.ansible(MODULE, *flags, **absent)["msg"]
        )
    assert (place / "memory").read_bytes() == b"kept"
    (place / "memory").unlink()
    assert lab.ansible(MODULE, **absent)["changed"]
    assert place.is_dir()


def test_drift_never_recreates(lab: Any) -> None:
    lab.client.create_volume("omtest_data", labels={"tier": "iron"})
    container = lab.container("writer", {"omtest_data": "/data"})
    lab.put(container, "/data", "memory", b"kept")
    before = lab.volume("omtest_data")
    asked = {
        "volumes": [
            {"name": "omtest_data", "path": str(lab.directory / "new"), "labels": {"tier": "gold"}},
            {"name": "omtest_other"},
        ]
    }
    for flags in ([], ["--check"]):
        message = lab.ansible(MODULE, *flags, **asked)["msg"]
        assert "omtest_data: driver_opts.device is not set, asked for is /var/tmp/omtest/new" in message
        assert "omtest_data: labels.tier is iron, asked for is gold" in message
    assert lab.names() == ["omtest_data"]
    told = lab.ansible(MODULE, on_drift="ignore", **asked)
    assert told["actions"] == ["create volume omtest_other"]
    assert {"name": "labels.tier", "current": "iron", "desired": "gold"} in told["volumes"][0]["drift"]
    assert lab.volume("omtest_data") == before
    assert not (lab.directory / "new").exists()


def test_no_room_on_a_small_file_system(lab: Any) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "omtest", lab.directory], check=True)
    try:
        asked = {"name": "omtest_data", "path": f"{lab.directory}/a"}
        message = lab.ansible(MODULE, volumes=[{**asked, "min_free": "3M"}])["msg"]
        assert "no room: the new volumes on /var/tmp/omtest want 3 MiB free (min_free), and 2 MiB are" in message
        assert (lab.names(), os.listdir(lab.directory)) == ([], [])
        told = lab.ansible(MODULE, volumes=[{**asked, "min_free": "1M"}])["volumes"][0]["filesystem"]
        assert (told["type"], told["mount_point"], told["total_bytes"]) == ("tmpfs", "/var/tmp/omtest", 2 * 1024**2)
    finally:
        subprocess.run(["umount", lab.directory], check=True)


BAD = {
    "unknown key": ({"name": "omtest_bad", "device": "/x"}, "device is not a known key"),
    "relative": ({"name": "omtest_bad", "path": "srv"}, "is not absolute"),
    "a file": ({"name": "omtest_bad", "path": "/etc/passwd"}, "path /etc/passwd is a file"),
    "below a file": ({"name": "omtest_bad", "path": "/etc/passwd/x"}, "lies below /etc/passwd, which is a file"),
    "taken": ({"name": "omtest_bad", "path": "/var/tmp/omtest/fine"}, "is also that of volume omtest_fine of the list"),
    "inside": ({"name": "omtest_bad", "path": "/var/tmp/omtest/fine/x"}, "is inside /var/tmp/omtest/fine of volume"),
    "Docker's": ({"name": "omtest_bad", "path": "/var/lib/docker/x"}, "is inside Docker's own /var/lib/docker"),
    "mode": ({"name": "omtest_bad", "path": "/x", "mode": "0888"}, "mode '0888' is not octal"),
    "name": ({"name": "omtest/bad"}, "Docker refuses this name"),
    "room": ({"name": "omtest_bad", "min_free": "9000T"}, "no room"),
}
FINE = {"name": "omtest_fine", "path": "/var/tmp/omtest/fine"}


@pytest.mark.parametrize(("entry", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_changes_nothing(lab: Any, engine: Engine, entry: dict[str, Any], words: str) -> None:
    with pytest.raises(StackError) as raised:
        apply_present(plan_present(engine, parse_volumes([FINE, entry])))
    assert words in str(raised.value)
    assert lab.names() == []
    assert os.listdir(lab.directory) == []


def test_bad_input_reaches_the_user_as_one_sentence(lab: Any) -> None:
    result = lab.ansible(MODULE, volumes=[FINE, {"name": "omtest_bad", "path": "/etc/passwd"}])
    assert result["msg"] == "volume omtest_bad: path /etc/passwd is a file; give a directory."
    assert (result["changed"], lab.names(), os.listdir(lab.directory)) == (False, [], [])


def counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to the engine from now on."""
    sent: list[str] = []
    request = engine._session.request

    def count(method: str, url: str, **options: Any) -> Any:
        sent.append(f"{method} {url.rsplit('/', 1)[-1]}")
        return request(method, url, **options)

    monkeypatch.setattr(engine._session, "request", count)
    return sent


def test_no_change_costs_two_requests_for_a_hundred_volumes(
    lab: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"omtest_{number}" for number in range(100)]
    specs = parse_volumes([{"name": name, "path": f"{lab.directory}/{name}"} for name in names])
    apply_present(plan_present(engine, specs))
    fresh = Engine.connect()
    sent = counted(fresh, monkeypatch)
    plan = plan_present(fresh, specs)
    told = describe_present(plan)
    assert not plan.changed
    assert len(told) == 100
    assert sent == ["GET volumes", "GET json"]
    sent.clear()
    assert len(plan_absent(fresh, names).doomed) == 100
    assert sent == ["GET volumes", "GET json"]


def compose(lab: Any, text: str, *arguments: str) -> str:
    """Run Compose on a file, with nothing to read from; returns what it says."""
    (lab.directory / "compose.yml").write_text(text)
    command = ["docker", "compose", "-p", "omtest", "-f", "compose.yml", *arguments]
    run = subprocess.run(
        command,
        cwd=lab.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


SERVICE = (
    "services: {s: {image: omtest/sleep, command: [/bin/sleep, '600'], network_mode: none, volumes: ['data:/data']}}\n"
)


def test_compose_takes_our_volume_as_its_own_and_never_offers_to_recreate_it(lab: Any) -> None:
    lab.ansible(MODULE, compose_project="omtest", volumes=[{"name": "omtest_data"}])
    told = compose(lab, SERVICE + "volumes: {data: {driver: local}}\n", "create")
    assert "already exists" not in told
    assert "recreate" not in told.lower()
    lab.put("omtest-s-1", "/data", "memory", b"kept")
    before = lab.volume("omtest_data")
    told = compose(lab, SERVICE + "volumes: {data: {driver_opts: {type: tmpfs, device: tmpfs}}}\n", "create")
    assert "data will be lost" not in told.lower()
    assert lab.volume("omtest_data") == before
    assert (
        lab.ansible(MODULE, size=True, compose_project="omtest", volumes=[{"name": "omtest_data"}])["volumes"][0][
            "files"
        ]
        == 1
    )


def test_compose_warns_of_a_volume_without_labels(lab: Any) -> None:
    """So the silence in the test above means something."""
    lab.ansible(MODULE, volumes=[{"name": "omtest_data"}])
    assert "already exists but was not created by Docker Compose" in compose(
        lab, SERVICE + "volumes: {data: {driver: local}}\n", "create"
    )


@pytest.mark.parametrize(
    "options",
    [{"type": "tmpfs"}, {"device": "x"}, {"foo": "x"}, {"o": "x", "device": "x"}, {"o": "x", "type": "tmpfs"}],
)
def test_what_docker_refuses_is_refused_before_it_is_asked(lab: Any, options: dict[str, str]) -> None:
    with pytest.raises(docker.errors.APIError):
        lab.client.create_volume("omtest_bad", driver_opts=options)
    with pytest.raises(StackError, match=r"volume omtest_bad: driver_opts\."):
        parse_volumes([{"name": "omtest_bad", "driver_opts": options}])


def test_an_error_of_the_engine_is_a_sentence(engine: Engine) -> None:
    with pytest.raises(StackError, match=r"refused POST /volumes/create: .*invalid option"):
        engine.create_volume("omtest_bad", "local", {"foo": "x"}, {})
