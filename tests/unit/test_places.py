# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a volume may lie: checked for the whole list, with nothing changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import Mount, MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.present import plan_present
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import parse_volumes

# {} is the test's directory, with: a file, a directory "dir", a link "link" to it, a link "dangling" to nowhere,
# a Docker volume "theirs" bound to "dir/theirs", and Docker's root "docker".
BAD = {
    "a file": (["{}/file"], "path {}/file is a file"),
    "below a file": (["{}/file/a/b"], "lies below {}/file, which is a file"),
    "a dangling link": (["{}/dangling"], "goes through {}/dangling, a symbolic link to {}/nowhere, which does not"),
    "below a dangling link": (["{}/dangling/x"], "goes through {}/dangling"),
    "one path twice": (["{}/x", "{}/x/"], "volume v1: path {}/x is also that of volume v0 of the list"),
    "one path through a link": (["{}/dir/x", "{}/link/x"], "volume v1: path {}/link/x is also that of volume v0"),
    "inside another": (["{}/x", "{}/x/y/z"], "volume v1: path {}/x/y/z is inside {}/x of volume v0 of the list"),
    "around another": (["{}/x/y", "{}/x"], "volume v0: path {}/x/y is inside {}/x of volume v1 of the list"),
    "Docker has it": (["{}/dir/theirs"], "is also that of Docker's volume theirs"),
    "Docker has it behind a link": (["{}/link/theirs"], "is also that of Docker's volume theirs"),
    "inside one that Docker has": (["{}/dir/theirs/x"], "is inside {}/dir/theirs of Docker's volume theirs"),
    "around one that Docker has": (["{}/dir"], "is around {}/dir/theirs of Docker's volume theirs"),
    "Docker's root": (["{}/docker"], "is inside Docker's own {}/docker"),
    "in Docker's root": (["{}/docker/volumes/theirs/_data/x"], "is inside Docker's own"),
    "around Docker's root": (["{}"], "holds Docker's own {}/docker"),
}


@pytest.fixture(autouse=True)
def _host(engine: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir" / "theirs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("dir")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    engine.add_path("theirs", tmp_path / "dir" / "theirs")


def plan(engine: Any, *entries: dict[str, Any]) -> None:
    plan_present(engine, parse_volumes(entries))


@pytest.mark.parametrize(("paths", "words"), BAD.values(), ids=BAD.keys())
def test_bad_places(engine: Any, tmp_path: Path, paths: list[str], words: str) -> None:
    entries = [{"name": f"v{i}", "path": path.replace("{}", str(tmp_path))} for i, path in enumerate(paths)]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StackError) as raised:
        plan(engine, {"name": "fine", "path": f"{tmp_path}/fine"}, *entries)
    assert words.replace("{}", str(tmp_path)) in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert not [call for call in engine.calls if call.startswith("create")]


def test_a_volume_that_drifts_keeps_its_place_from_the_others(engine: Any, tmp_path: Path) -> None:
    asked = [{"name": "theirs", "path": f"{tmp_path}/new"}, {"name": "mine", "path": f"{tmp_path}/dir/theirs"}]
    with pytest.raises(StackError, match=r"volume mine: path .* is also that of Docker's volume theirs"):
        plan_present(engine, parse_volumes(asked), on_drift="ignore")
    plan_present(
        engine, parse_volumes([{"name": "theirs", "path": f"{tmp_path}/dir/theirs/deeper"}]), on_drift="ignore"
    )
    plan_present(engine, parse_volumes([{"name": "theirs", "path": f"{tmp_path}/dir"}]), on_drift="ignore")


def test_a_place_that_two_volumes_of_docker_share_is_told(engine: Any, tmp_path: Path) -> None:
    engine.add_path("again", tmp_path / "dir" / "theirs")
    with pytest.raises(StackError, match=r"is also that of Docker's volume (again|theirs)"):
        plan(engine, {"name": "again", "path": f"{tmp_path}/dir/theirs"})


def test_a_drifting_volume_is_checked_too(engine: Any, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is a file"):
        plan_present(engine, parse_volumes([{"name": "theirs", "path": f"{tmp_path}/file"}]), on_drift="ignore")


def test_names_that_only_begin_alike_are_no_conflict(engine: Any, tmp_path: Path) -> None:
    plan(engine, {"name": "v0", "path": f"{tmp_path}/x"}, {"name": "v1", "path": f"{tmp_path}/xy"})


def test_a_link_to_a_directory_is_a_place(engine: Any, tmp_path: Path) -> None:
    plan(engine, {"name": "v0", "path": f"{tmp_path}/link/mine"})


def test_path_backing_needs_the_engine_of_this_host(engine: Any) -> None:
    engine.docker_host = "tcp://192.0.2.1:2376"
    with pytest.raises(StackError, match=r"needs the engine of this host, and docker_host is tcp://192\.0\.2\.1"):
        plan(engine, {"name": "v0", "path": "/srv/x"})
    plan(engine, {"name": "v0"})


@pytest.mark.parametrize(
    ("kind", "name"), [("nfs4", "NFS"), ("cifs", "CIFS"), ("fuse.sshfs", "FUSE"), ("fuseblk", "FUSE")]
)
@pytest.mark.parametrize("managed", [False, True])
def test_qdrant_needs_a_local_file_system(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, managed: bool
) -> None:
    table = MountTable([Mount("/", "ext4"), Mount(str(tmp_path), kind)])
    monkeypatch.setattr(MountTable, "read", lambda: table)
    place = {} if managed else {"path": f"{tmp_path}/q"}
    with pytest.raises(StackError, match=f"is on {kind}, and Qdrant does not support {name}"):
        plan(engine, {"name": "v0", "store": "qdrant", **place})
    plan(engine, {"name": "v0", "store": "neo4j", **place})


def test_no_room_is_said_for_the_sum(engine: Any, tmp_path: Path) -> None:
    figures = os.statvfs(tmp_path)
    free = figures.f_bavail * figures.f_frsize
    half = {"path": f"{tmp_path}/a", "min_free": free * 2 // 3}
    plan(engine, {"name": "v0", **half})
    with pytest.raises(StackError, match=r"volume v1: no room: the new volumes on .* want .* free \(min_free\)"):
        plan(engine, {"name": "v0", **half}, {"name": "v1", **half, "path": f"{tmp_path}/b"})


def test_room_is_asked_for_new_volumes_only(engine: Any) -> None:
    with pytest.raises(StackError, match="no room"):
        plan(engine, {"name": "managed", "min_free": "9000T"})
    engine.add("managed")
    plan(engine, {"name": "managed", "min_free": "9000T"})
