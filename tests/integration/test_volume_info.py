# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Module volume_info on the real engine."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.volume_report import report_volumes

MODULE = "openmemory.stack.volume_info"


def info(lab: Any, engine: Engine) -> dict[str, dict[str, Any]]:
    """What is told of the volumes of the test, by name."""
    return {entry["name"]: entry for entry in report_volumes(engine, names=lab.names(), size_timeout=30)["volumes"]}


def test_a_store_its_size_and_its_user(lab: Any) -> None:
    lab.client.create_volume("omtest_data", labels={"com.docker.compose.project": "omtest"})
    place = Path(lab.volume("omtest_data")["Mountpoint"])
    database = sqlite3.connect(place / "openmemory.db")
    database.execute("create table memories (id integer primary key)")
    database.commit()
    with open(place / "sparse", "wb") as stream:
        stream.truncate(10_000_000)
    os.link(place / "sparse", place / "again")
    lab.container("app", {"omtest_data": "/data:ro"}, start=True)
    database.execute("begin exclusive")
    told = lab.ansible(MODULE, "--check", compose_project="omtest", size=True)
    database.rollback()
    database.close()
    assert (told["changed"], told["missing"]) == (False, [])
    (entry,) = told["volumes"]
    assert (entry["store"]["kind"], entry["store"]["version"]) == ("sqlite", sqlite3.sqlite_version)
    assert (entry["store"]["health"], entry["empty"], entry["orphaned"]) == ("ok", False, False)
    used = subprocess.run(["du", "-s", "-B1", place], capture_output=True, text=True, check=True).stdout
    assert entry["allocated_bytes"] == int(used.split()[0]) - place.stat().st_blocks * 512
    assert (entry["files"], entry["size_complete"]) == (2, True)
    assert entry["size_bytes"] == 10_000_000 + os.path.getsize(place / "openmemory.db")
    about = subprocess.run(["findmnt", "-no", "FSTYPE,TARGET", "-T", place], capture_output=True, text=True, check=True)
    assert [entry["filesystem"]["type"], entry["filesystem"]["mount_point"]] == about.stdout.split()
    (user,) = entry["containers"]
    assert (user["name"], user["state"], user["destination"], user["read_only"]) == (
        "omtest-app",
        "running",
        "/data",
        True,
    )


def test_upstreams_misplaced_volume_is_found(lab: Any, engine: Engine) -> None:
    lab.container("qdrant", {"omtest_wrong": "/mem0/storage", "omtest_snapshots": "/qdrant/snapshots"}, "omtest/qdrant")
    lab.container("neo4j", {"omtest_right": "/data", "omtest_logs": "/logs"}, "omtest/neo4j", start=True)
    lab.container("app", {"omtest_app": "/usr/src/openmemory/data"}, "omtest/openmemory-mcp")
    url = "DATABASE_URL=sqlite:////usr/src/openmemory/data/openmemory.db"
    lab.container("app2", {"omtest_app2": "/usr/src/openmemory/data"}, "omtest/openmemory-mcp", env=(url,))
    told = {name: entry["misplaced"] for name, entry in info(lab, engine).items() if entry["misplaced"]}
    place = {"container": "omtest-qdrant", "store": "qdrant"}
    assert told.pop("omtest_wrong") == [{**place, "destination": "/mem0/storage", "expected": "/qdrant/storage"}]
    assert [one["container"] for one in told.pop("omtest_app")] == ["omtest-app"]
    assert told == {}


def test_volumes_that_cannot_be_looked_into(lab: Any, engine: Engine) -> None:
    nfs = {"type": "nfs", "o": "addr=127.0.0.1,rw,soft", "device": ":/nowhere"}
    gone = lab.directory / "gone"
    lab.client.create_volume("omtest_nfs", driver_opts=nfs)
    lab.client.create_volume("omtest_ram", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"})
    lab.client.create_volume("omtest_gone", driver_opts={"type": "none", "o": "bind", "device": str(gone)})
    lab.client.create_volume("omtest_lost")
    shutil.rmtree(lab.volume("omtest_lost")["Mountpoint"])
    told = info(lab, engine)
    assert "NFS at :/nowhere" in told["omtest_nfs"]["problem"]
    assert told["omtest_nfs"]["filesystem"]["type"] == "nfs"
    assert "tmpfs that no running container has made" in told["omtest_ram"]["problem"]
    for name in ("omtest_gone", "omtest_lost"):
        assert told[name]["problem"].endswith("is gone from disk.")
        assert told[name]["empty"] is None
    lab.container("user", {"omtest_ram": "/ram"}, start=True)
    ram = info(lab, engine)["omtest_ram"]
    assert (ram["problem"], ram["empty"], ram["filesystem"]["type"]) == (None, True, "tmpfs")
    assert ram["filesystem"]["total_bytes"] == 1024**2
    os.makedirs(lab.volume("omtest_lost")["Mountpoint"])  # so that Docker can remove it


def test_twenty_thousand_files_are_counted_or_said_to_be_more(lab: Any, engine: Engine) -> None:
    lab.client.create_volume("omtest_many")
    place = Path(lab.volume("omtest_many")["Mountpoint"])
    for directory in range(100):
        (place / str(directory)).mkdir()
        for file in range(200):
            os.close(os.open(place / str(directory) / str(file), os.O_CREAT))
    entry = report_volumes(engine, names=["omtest_many"], size_timeout=30)["volumes"][0]
    assert (entry["files"], entry["size_complete"]) == (20_000, True)
    entry = report_volumes(engine, names=["omtest_many"], size_timeout=0.01)["volumes"][0]
    assert entry["size_complete"] is False
    assert entry["files"] < 20_000


@pytest.mark.parametrize("names", [["omtest_none"], None])
def test_names_that_docker_does_not_have(lab: Any, engine: Engine, names: list[str] | None) -> None:
    told = report_volumes(engine, names=names)
    assert told["missing"] == (names or [])
