# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volume_info tells: choice, users, misplaced mounts, and volumes that must not be touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import Mount, MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.volume_report import report_volumes


def names(report: dict[str, Any]) -> list[str]:
    return [volume["name"] for volume in report["volumes"]]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["loose", "other", "shop_a", "shop_b"]),
        ({"names": ["shop_b", "loose", "nope"]}, ["loose", "shop_b"]),
        ({"compose_project": "shop"}, ["shop_a", "shop_b"]),
        ({"labels": ["tier"]}, ["other", "shop_b"]),
        ({"labels": ["tier=gold"]}, ["shop_b"]),
        ({"labels": ["tier", "com.docker.compose.project"]}, ["shop_b"]),
        ({"compose_project": "shop", "labels": ["tier=gold"], "names": ["shop_a"]}, []),
        ({"compose_project": "none"}, []),
    ],
)
def test_every_filter_must_fit(engine: Any, filters: dict[str, Any], expected: list[str]) -> None:
    shop = {"com.docker.compose.project": "shop"}
    engine.add("shop_b", labels={**shop, "tier": "gold"})
    engine.add("shop_a", labels=shop)
    engine.add("other", labels={"tier": "iron"})
    engine.add("loose")
    report = report_volumes(engine, **filters)
    assert names(report) == expected
    assert report["missing"] == (["nope"] if "names" in filters and "nope" in filters["names"] else [])
    assert engine.calls == ["volumes", "containers"]


def test_an_external_volume_is_of_the_project_whose_container_mounts_it(engine: Any) -> None:
    engine.add("external")
    engine.add("loose")
    assert names(report_volumes(engine, compose_project="shop")) == []
    engine.use({"external": "/x"})["Labels"] = {"com.docker.compose.project": "shop"}
    assert names(report_volumes(engine, compose_project="shop")) == ["external"]
    assert names(report_volumes(engine, compose_project="other")) == []


def test_orphaned_empty_and_size(engine: Any) -> None:
    volume = engine.add("ab")
    engine.add("free")
    engine.use({"ab": "/x"}, state="exited")
    (Path(volume["Mountpoint"]) / "file").write_bytes(b"x" * 5000)
    used, free = report_volumes(engine, size_timeout=10)["volumes"]
    assert (used["orphaned"], used["empty"], used["size_bytes"], used["files"]) == (False, False, 5000, 1)
    assert (used["allocated_bytes"], used["size_complete"]) == (8192, True)
    assert (free["orphaned"], free["empty"], free["size_bytes"], free["files"]) == (True, True, 0, 0)
    assert used["store"]["kind"] == "files"
    assert "size_bytes" not in report_volumes(engine)["volumes"][0]
    assert report_volumes(engine, size_timeout=-1)["volumes"][0]["size_complete"] is False


def test_what_is_gone_is_a_problem_and_no_crash(engine: Any, tmp_path: Path) -> None:
    shutil.rmtree(engine.add("managed")["Mountpoint"])
    engine.add_path("bound", tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    engine.add_path("file", tmp_path / "file")
    problems = [volume["problem"] for volume in report_volumes(engine, size_timeout=10)["volumes"]]
    assert [problem.split(" ")[-4:] for problem in problems] == [
        ["is", "gone", "from", "disk."],
        [f"{tmp_path}/file", "is", "a", "file."],
        ["is", "gone", "from", "disk."],
    ]


@contextmanager
def recorded_touches() -> Iterator[list[str]]:
    """The paths that anything looks at meanwhile."""
    touched: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("scandir", "statvfs", "listdir", "lstat", "stat", "readlink"):
            plain = getattr(os, name)
            patch.setattr(
                os, name, lambda path, *a, plain=plain, **k: (touched.append(str(path)), plain(path, *a, **k))[1]
            )
        yield touched


def test_nfs_is_told_and_not_touched(engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"type": "nfs", "o": "addr=192.0.2.1,rw", "device": ":/export"}
    engine.add("off", options=options)
    mounted = engine.add("on", options=options)["Mountpoint"]
    engine.add_path("path", f"{tmp_path}/net/x")
    table = MountTable([Mount("/", "ext4"), Mount(f"{tmp_path}/net", "nfs4"), Mount(mounted, "nfs")])
    monkeypatch.setattr(MountTable, "read", lambda: table)
    with recorded_touches() as touched:
        report = report_volumes(engine, size_timeout=10)
    assert touched
    assert not [path for path in touched if path.startswith((f"{tmp_path}/net", mounted))]
    off, on, path = report["volumes"]
    for volume in (off, on, path):
        assert "hang" in volume["problem"]
        assert (volume["store"], volume["empty"], volume["size_bytes"]) == (None, None, None)
        assert volume["size_complete"] is False
        assert volume["filesystem"]["type"].startswith("nfs")
        assert volume["filesystem"]["free_bytes"] is None
    assert (off["backing"], off["device"], path["backing"]) == ("managed", ":/export", "path")


def test_a_remote_engine_is_told_and_its_paths_are_not_taken_for_ours(engine: Any, tmp_path: Path) -> None:
    engine.add("ab")
    engine.docker_host = "tcp://192.0.2.1:2376"
    with recorded_touches() as touched:
        volume = report_volumes(engine, size_timeout=1)["volumes"][0]
    assert (
        volume["problem"] == "docker_host tcp://192.0.2.1:2376 is not a socket of this host, so paths cannot be seen."
    )
    assert (volume["empty"], volume["filesystem"]) == (None, None)
    assert not [path for path in touched if path.startswith(str(tmp_path))]


def test_a_container_that_goes_meanwhile_is_no_crash(engine: Any) -> None:
    engine.add("ab")
    engine.use({"ab": "/x"})
    engine.inspections.clear()
    assert report_volumes(engine)["volumes"][0]["misplaced"] == []


LOCAL = "sqlite:////usr/src/openmemory/data/openmemory.db"
ANONYMOUS = "f" * 64

# image, environment, {volume: destination}, what is expected for the volume "ab"
PLACES: dict[str, tuple[str, list[str], dict[str, str], str | None]] = {
    "qdrant as upstream once did": ("qdrant/qdrant:v1.18.0", [], {"ab": "/mem0/storage"}, "/qdrant/storage"),
    "qdrant": ("qdrant/qdrant:v1.18.0", [], {"ab": "/qdrant/storage"}, None),
    "qdrant from above": ("qdrant/qdrant", [], {"ab": "/qdrant"}, None),
    "qdrant too deep": ("qdrant/qdrant", [], {"ab": "/qdrant/storage/collections"}, "/qdrant/storage"),
    "qdrant of a registry by digest": ("reg:5000/q/qdrant@sha256:00", [], {"ab": "/x"}, "/qdrant/storage"),
    "qdrant moved": ("qdrant/qdrant", ["QDRANT__STORAGE__STORAGE_PATH=/data"], {"ab": "/data"}, None),
    "qdrant moved away": ("mine", ["QDRANT__STORAGE__STORAGE_PATH=/data"], {"ab": "/qdrant/storage"}, "/data"),
    "qdrant's snapshots": ("qdrant/qdrant", [], {"ab": "/qdrant/snapshots"}, None),
    "another volume beside": ("qdrant/qdrant", [], {"cd": "/qdrant/storage", "ab": "/backup"}, None),
    "neo4j": ("neo4j:5.26.30", [], {"ab": "/data"}, None),
    "neo4j's logs": ("neo4j:5.26.30", [], {"ab": "/logs"}, None),
    "neo4j on its anonymous volume": ("neo4j", [], {"ab": "/var/lib/neo4j/data", ANONYMOUS: "/data"}, "/data"),
    "openmemory": ("mem0/openmemory-mcp:1.0", [f"DATABASE_URL={LOCAL}"], {"ab": "/usr/src/openmemory/data"}, None),
    "openmemory as upstream": ("mem0/openmemory-mcp", [], {"ab": "/usr/src/openmemory/data"}, "/usr/src/openmemory"),
    "openmemory on a server": ("mem0/openmemory-mcp", ["DATABASE_URL=postgresql://db/x"], {"ab": "/x"}, None),
    "openmemory's user interface": ("mem0/openmemory-ui", [], {"ab": "/x"}, None),
    "no store": ("busybox", [], {"ab": "/anywhere"}, None),
}


@pytest.mark.parametrize(("image", "env", "mounts", "expected"), PLACES.values(), ids=PLACES.keys())
def test_misplaced(engine: Any, image: str, env: list[str], mounts: dict[str, str], expected: str | None) -> None:
    for name in mounts:
        engine.add(name)
    container = engine.use(mounts, name="svc", image=image, env=env)
    if "openmemory" in image:
        engine.inspections[container["Id"]]["Config"]["WorkingDir"] = "/usr/src/openmemory"
    told = report_volumes(engine, names=["ab"])["volumes"][0]["misplaced"]
    assert [(one["container"], one["destination"], one["expected"]) for one in told] == (
        [("svc", mounts["ab"], expected)] if expected else []
    )
