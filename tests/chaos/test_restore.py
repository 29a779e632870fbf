# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores on the real engine: exact, and with a way back."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import room
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import back, kept, restore, writeback
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.safety import open_repository
from restore_stack import LABELS, PROJECT, VOLUMES, Stack, tree

DAY = 86400.0


def test_in_place_and_back_again(stack: Stack, snapshot: dict[str, Any]) -> None:
    live = stack.trees()
    result = stack.restore(safety=True)
    assert stack.trees() == snapshot
    assert result["stopped"] == ["omrest-store", "omrest-app"]
    assert stack.running() == ["omrest-app", "omrest-store"]
    assert result["safety_snapshot_id"]
    assert sorted(entry["volume"] for entry in result["kept"]) == [f"{PROJECT}_{name}" for name in VOLUMES]
    assert sorted(stack.left()) == sorted(entry["path"] for entry in result["kept"])
    almost_over = [
        replace(entry, created=entry.created - 6.9 * DAY, until=entry.until - 6.9 * DAY)
        for entry in kept.load(stack.places)
    ]
    kept.save(stack.places, almost_over)
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    assert stack.trees() == live
    # what was live until now is not thrown away with what was kept for it
    assert all(entry.until > time.time() + 6 * DAY for entry in kept.load(stack.places))
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    assert stack.trees() == snapshot
    stack.restore(snapshot=result["safety_snapshot_id"], safety=False, keep_days=0)
    assert stack.trees() == live
    assert len(stack.left()) == len(VOLUMES)  # of the first restore; those of the last had no time
    assert stack.left()[2].startswith(f"{stack.root('disk')}/.openmemory-stack-")
    stack.restore(snapshot=stack.backup(), target="new", new_prefix=f"{PROJECT}look_")
    assert sorted(place.name for place in (stack.directory / f"{PROJECT}look_disk").iterdir()) == ["live", "same"]
    stack.forget_new()


def test_what_is_fetched_is_written_out_meanwhile(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    (stack.root("data") / "live" / "large").write_bytes(os.urandom(3 << 20))
    snapshot = stack.backup()
    begun: set[str] = set()
    begin, call = writeback.begin_writing, Restic.call

    def note(file: int, offset: int, length: int) -> None:
        begin(file, offset, length)
        begun.add(os.readlink(f"/proc/self/fd/{file}"))

    def end_later(self: Restic, *arguments: str, **options: Any) -> Any:
        found = call(self, *arguments, **options)
        time.sleep(1 if arguments[0] == "restore" else 0)  # as if there had been more to fetch
        return found

    monkeypatch.setattr(writeback, "begin_writing", note)
    monkeypatch.setattr(Restic, "call", end_later)
    stack.restore(snapshot=snapshot)
    ours = [place for place in begun if place.endswith("/large")]  # sleep, which lies there too, may be large as well
    assert [place.split("/")[-5:] for place in ours] == [[".new.restoring", "volumes", "data", "live", "large"]]


def test_the_safety_capture_of_one_volume_leaves_the_copies_of_the_others(stack: Stack) -> None:
    """They make the next backup a delta; and a snapshot of one volume holds no other."""
    elsewhere = stack.directory / "copies"
    stack.backup(staging_dir=str(elsewhere))
    default = stack.state / PROJECT / "staging"
    shutil.rmtree(default, ignore_errors=True)
    copies = elsewhere / PROJECT / "staging"
    there = {name: (copies / "volumes" / name).stat().st_ino for name in VOLUMES}
    asked: dict[str, Any] = {"volumes": ["place"], "staging_dir": str(elsewhere)}
    safety = stack.restore(safety=True, **asked)["safety_snapshot_id"]
    assert not default.exists()
    assert {each.name for each in (copies / ".resting").iterdir()} == {*VOLUMES} - {"place"}  # it was made there
    repository = open_repository(replace(stack.request, **asked), stack.places)
    listed = repository.restic.call("ls", safety, doing="list").lines
    assert {line.split("/")[2] for line in listed if line.startswith("/volumes/")} == {"place"}
    stack.backup(staging_dir=str(elsewhere))
    assert {name: (copies / "volumes" / name).stat().st_ino for name in VOLUMES} == there
    stack.restore(safety=True, volumes=["place"])
    assert not default.exists()  # no backup keeps a copy there


def test_what_is_refused_the_first_time_leaves_not_even_a_directory(stack: Stack) -> None:
    fresh = stack.directory / "fresh"
    with pytest.raises(StackError, match="names none of the stack"):
        stack.restore(state_dir=str(fresh), snapshot="tag:none")
    with pytest.raises(StackError, match="nothing-of-ours"):
        stack.backup(state_dir=str(fresh), volumes=[{"name": "nothing-of-ours"}])
    assert not (fresh / PROJECT).exists()


def test_check_mode_changes_nothing(stack: Stack) -> None:
    live, files = stack.trees(), sorted(stack.state.rglob("*"))
    result = restore.run(stack.request, stack.engine, Progress(), check_mode=True)
    assert result["changed"]
    assert [action.split()[0] for action in result["actions"]] == [*["restore"] * 4, "stop", "start"]
    assert (stack.trees(), sorted(stack.state.rglob("*")), stack.left()) == (live, files, [])


def test_one_database_without_the_stale_files_beside_it(stack: Stack, snapshot: dict[str, Any]) -> None:
    root = stack.root("db")
    (root / "openmemory.db-wal").write_bytes(b"stale")
    (root / "openmemory.db-journal").write_bytes(b"stale")
    (root / "other").write_text("stays")
    others = {name: found for name, found in stack.trees().items() if name != "db"}
    result = stack.restore(volumes=["db"], path="openmemory.db")
    assert result["census"] == {"db": {"tables": {"memories": 1}}}  # as it was checked
    assert sorted(place.name for place in root.iterdir()) == ["openmemory.db", "other"]
    assert tree(root)["openmemory.db"] == snapshot["db"]["openmemory.db"]
    assert {name: found for name, found in stack.trees().items() if name != "db"} == others
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    assert (root / "openmemory.db-wal").read_bytes() == b"stale"


def test_a_database_in_a_volume_of_files_comes_without_stale_files_too(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = stack.root("data") / "sub"
    root.mkdir(exist_ok=True)
    with closing(sqlite3.connect(root / "history.db")) as database:
        database.execute("CREATE TABLE IF NOT EXISTS history (id)")
    made = stack.backup()
    (root / "history.db-wal").write_bytes(b"stale")
    asked: dict[str, Any] = {"snapshot": made, "volumes": ["data"], "path": "sub/history.db"}
    with monkeypatch.context() as full:
        full.setattr(room, "free_and_total", lambda _place: (4096, 1 << 30))
        live = stack.trees()
        with pytest.raises(StackError, match=r"12 KiB are needed .* 8 KiB are missing; make room"):
            stack.restore(**asked)
        assert stack.trees() == live
    stack.restore(**asked)
    assert sorted(place.name for place in root.iterdir()) == ["history.db"]


def test_the_latest_of_one_volume_is_a_newer_backup_of_it(stack: Stack) -> None:
    whole = stack.backup()
    stack.fill("later")
    alone, wanted = stack.backup(volumes=[{"name": "place"}]), stack.trees()
    stack.fill("live")
    live = stack.trees()
    result = stack.restore(snapshot="latest", volumes=[f"{PROJECT}_place"])
    assert result["snapshot_id"] == alone
    assert stack.trees() == {**live, "place": wanted["place"]}
    result = stack.restore(snapshot=alone)
    assert any("holds only place, not all volumes" in warning for warning in result["warnings"])
    assert stack.restore(snapshot="latest")["snapshot_id"] == whole


def test_a_backup_of_one_volume_is_not_the_stacks(stack: Stack, tmp_path: Path) -> None:
    """Not for its age, nor for a failure before it, nor where there is no other yet."""

    def run(**asked: Any) -> dict[str, Any]:
        where = str(stack.repository), str(stack.password)
        request = BackupRequest(PROJECT, *where, state_dir=str(stack.state), **asked)
        found: dict[str, Any] = backup.run(request, stack.engine, Progress(), config_dir=str(tmp_path))
        return found

    (tmp_path / f"{PROJECT}.json").write_text('{"project": "omrest"}')
    Path(stack.places.last).unlink()
    some = run(volumes=[{"name": "place"}])
    assert [*read_last(stack.places)] == ["backup_of_some"]
    run()
    with pytest.raises(StackError):
        run(volumes=[{"name": "nowhere"}])
    before = read_last(stack.places)
    assert {"finished", "created"} <= {*before["backup"]}
    run(volumes=[{"name": "place"}])
    after = read_last(stack.places)
    assert after.pop("backup_of_some")["snapshot_id"] != before.pop("backup_of_some")["snapshot_id"]
    assert after == before
    assert some["snapshot_id"] != after["backup"]["snapshot_id"]


def test_into_new_volumes_nothing_stops(stack: Stack, snapshot: dict[str, Any]) -> None:
    live = stack.trees()
    result = stack.restore(target="new", new_prefix=f"{PROJECT}look_", force=False)
    paths = {key: Path(about["path"]) for key, about in result["volumes"].items()}
    try:
        assert {key: tree(path) for key, path in paths.items()} == snapshot
        assert (stack.trees(), result["stopped"], result["kept"], stack.left()) == (live, [], [], [])
        about = stack.client.inspect_volume(f"{PROJECT}look_place")
        assert about["Labels"] == {f"{LABELS}project": f"{PROJECT}look", f"{LABELS}volume": "place"}
        assert about["Options"]["device"] == str(paths["place"]) == f"{stack.directory}/{PROJECT}look_place"
    finally:
        stack.forget_new()


def test_what_does_not_start_is_taken_back(stack: Stack) -> None:
    """The container runs a program of its volume, which the snapshot has not as an executable file."""
    live = stack.trees()
    (stack.root("data") / "run").chmod(0o600)
    broken = stack.backup()
    (stack.root("data") / "run").chmod(0o755)
    with pytest.raises(
        StackError, match=r"(?s)permission denied.* taken back: the data is as it was before, and omrest-"
    ):
        stack.restore(snapshot=broken)
    assert (stack.trees(), stack.running()) == (live, ["omrest-app", "omrest-store"])
    assert sorted(entry.path for entry in kept.load(stack.places)) == sorted(stack.left())  # it was live
    assert Journal.load(stack.places) is None
