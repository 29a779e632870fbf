# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is recognised in a directory, and what is called damaged."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.stores import registry
from ansible_collections.openmemory.stack.plugins.module_utils._core.stores.found import Found


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_PATIENCE", 0.2)


def look(path: Path) -> Found:
    found = registry.look(str(path))
    assert found is not None
    return found


def database(path: Path, mode: str = "delete") -> sqlite3.Connection:
    connection = sqlite3.connect(path / "openmemory.db")
    connection.execute(f"pragma journal_mode={mode}")
    connection.execute("pragma user_version=7")
    connection.execute("create table memories (id integer primary key, content text)")
    connection.executemany("insert into memories (content) values (?)", [("x" * 900,)] * 200)
    connection.commit()
    return connection


def test_an_empty_directory_holds_no_store(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    assert registry.look(str(tmp_path)) is None


def test_anything_else_is_files(tmp_path: Path) -> None:
    (tmp_path / "debug.log").write_text("SQLite format 3")
    assert (look(tmp_path).kind, look(tmp_path).health) == ("files", "unknown")


def test_sqlite(tmp_path: Path) -> None:
    database(tmp_path).close()
    found = look(tmp_path)
    assert (found.kind, found.version, found.health) == ("sqlite", sqlite3.sqlite_version, "ok")
    assert found.details["databases"] == [
        {
            "file": "openmemory.db",
            "bytes": os.path.getsize(tmp_path / "openmemory.db"),
            "written_by": sqlite3.sqlite_version,
            "user_version": 7,
            "journal_mode": "rollback",
            "pending_journal": False,
        }
    ]


def test_a_live_sqlite_database_is_not_disturbed(tmp_path: Path) -> None:
    writer = database(tmp_path)
    writer.execute("begin exclusive")
    writer.execute("pragma cache_size=1")
    writer.execute("update memories set content = content || 'y'")  # spills: the journal is hot, the file half new
    before = {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_atime_ns) for entry in os.scandir(tmp_path)}
    found = look(tmp_path)
    assert (found.health, found.details["databases"][0]["pending_journal"]) == ("ok", True)
    after = {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_atime_ns) for entry in os.scandir(tmp_path)}
    assert {name: times[0] for name, times in after.items()} == {name: times[0] for name, times in before.items()}
    writer.commit()
    writer.close()


def test_a_pending_wal_is_told(tmp_path: Path) -> None:
    writer = database(tmp_path, "wal")
    found = look(tmp_path)
    told = found.details["databases"][0]
    assert (found.health, told["journal_mode"], told["pending_journal"]) == ("ok", "wal", True)
    writer.close()


@pytest.mark.parametrize(
    ("length", "words"), [(50, "cut off inside its header"), (8192, "is 8192 bytes long, and its header says")]
)
def test_a_database_that_is_cut_off(tmp_path: Path, length: int, words: str) -> None:
    database(tmp_path).close()
    os.truncate(tmp_path / "openmemory.db", length)
    found = look(tmp_path)
    assert found.health == "damaged"
    assert words in found.findings[0]


def test_a_database_cut_off_under_a_hot_journal_is_left_to_sqlite(tmp_path: Path) -> None:
    writer = database(tmp_path)
    writer.execute("pragma cache_size=1")
    writer.execute("update memories set content = content || 'y'")
    os.truncate(tmp_path / "openmemory.db", 8192)
    assert look(tmp_path).health == "unknown"


def test_an_impossible_page_size(tmp_path: Path) -> None:
    database(tmp_path).close()
    with open(tmp_path / "openmemory.db", "r+b") as stream:
        stream.seek(16)
        stream.write(b"\x03\x00")
    assert "impossible page size 768" in look(tmp_path).findings[0]


def qdrant(path: Path) -> Path:
    """The layout of a real server's storage, with two segments; returns the shard."""
    (path / "raft_state.json").write_text("{}")
    shard = path / "collections" / "memories" / "0"
    (shard / "wal").mkdir(parents=True)
    (shard.parent / "config.json").write_text("{}")
    (shard.parent / "version.info").write_text("1.18.0")
    for name in ("aa", "bb"):
        segment = shard / "segments" / name
        segment.mkdir(parents=True)
        (segment / "segment.json").write_text(json.dumps({"version": 3}))
        (segment / "version.info").write_text("0.6.0\n")
    return shard


def test_qdrant(tmp_path: Path) -> None:
    qdrant(tmp_path)
    found = look(tmp_path)
    assert (found.kind, found.version, found.health) == ("qdrant", "1.18.0", "ok")
    assert found.details == {"collections": ["memories"], "segments": 2, "storage_versions": ["0.6.0", "1.18.0"]}


def test_segments_that_a_server_makes_or_drops_are_not_judged(tmp_path: Path) -> None:
    segments = qdrant(tmp_path) / "segments"
    (segments / "new").mkdir()
    (segments / "old.deleted").mkdir()
    (segments / "old.deleted" / "version.info").write_text("0.6.0")
    (tmp_path / "collections" / ".draft").mkdir()
    found = look(tmp_path)
    assert (found.health, found.findings, found.details["segments"]) == ("ok", [], 2)


def test_a_collection_that_is_being_made_gets_a_moment(tmp_path: Path) -> None:
    config = qdrant(tmp_path).parent / "config.json"
    config.unlink()
    later = threading.Timer(0.02, config.write_text, ["{}"])
    later.start()
    assert look(tmp_path).health == "ok"
    later.join()


def test_a_directory_that_goes_while_it_is_read_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qdrant(tmp_path)
    answers = [None, FileNotFoundError(2, "gone")]  # the last comes first
    scandir = os.scandir

    def vanishing(path: str) -> Any:
        if path.endswith("segments") and (answer := answers.pop()):
            raise answer
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert look(tmp_path).health == "ok"


def test_qdrant_without_collections(tmp_path: Path) -> None:
    (tmp_path / "collections").mkdir()
    (tmp_path / "raft_state.json").write_text("{}")
    found = look(tmp_path)
    assert (found.kind, found.version, found.health) == ("qdrant", None, "ok")


def test_versions_of_parts_are_not_taken_for_qdrants(tmp_path: Path) -> None:
    (qdrant(tmp_path).parent / "version.info").write_text("0.4.2")
    assert look(tmp_path).version is None


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("segments/aa/segment.json", "segment memories/0/aa has no readable segment.json"),
        ("../config.json", "collection memories has no config.json"),
        ("wal", "shard memories/0 has segments but no wal directory"),
    ],
)
def test_qdrant_with_something_missing(tmp_path: Path, broken: str, words: str) -> None:
    shard = qdrant(tmp_path)
    os.rename(shard / broken, tmp_path / "elsewhere")
    found = look(tmp_path)
    assert found.health == "damaged"
    assert words in found.findings[0]


def test_qdrant_with_a_segment_file_cut_off(tmp_path: Path) -> None:
    (qdrant(tmp_path) / "segments" / "bb" / "segment.json").write_text('{"vers')
    assert "segment memories/0/bb has no readable" in look(tmp_path).findings[0]


def neo4j(path: Path) -> None:
    (path / "dbms").mkdir()
    for name in ("neo4j", "system"):
        (path / "databases" / name).mkdir(parents=True)
        # As 5.26 writes it; seen in the first page of a real store.
        (path / "databases" / name / "neostore").write_bytes(
            b"\x23R\xb4\x97" + b"\0" * 60 + b"\x06record\x01\x07aligned\x01\x01\x01"
        )
        (path / "transactions" / name).mkdir(parents=True)
        (path / "transactions" / name / "neostore.transaction.db.0").write_bytes(b"x")


def test_neo4j(tmp_path: Path) -> None:
    neo4j(tmp_path)
    found = look(tmp_path)
    assert (found.kind, found.version, found.health) == ("neo4j", None, "ok")
    formats = {"neo4j": "record-aligned", "system": "record-aligned"}
    assert found.details == {"databases": ["neo4j", "system"], "formats": formats}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("transactions/neo4j", "database neo4j has no transaction logs"),
        ("transactions/neo4j/neostore.transaction.db.0", "database neo4j has an empty transactions/neo4j"),
        ("databases/neo4j", "transactions/neo4j belongs to a database that is not in databases/"),
        ("transactions", "database neo4j has no transaction logs"),
    ],
)
def test_neo4j_with_something_missing(tmp_path: Path, broken: str, words: str) -> None:
    (tmp_path / "data").mkdir()
    neo4j(tmp_path / "data")
    os.rename(tmp_path / "data" / broken, tmp_path / "elsewhere")
    found = look(tmp_path / "data")
    assert (found.kind, found.health) == ("neo4j", "damaged")
    assert words in found.findings[0]


def test_neo4j_without_its_system_database(tmp_path: Path) -> None:
    neo4j(tmp_path)
    os.rename(tmp_path / "databases" / "system", tmp_path / "s")
    os.rename(tmp_path / "transactions" / "system", tmp_path / "t")
    assert "the database system is missing" in look(tmp_path).findings[0]


def test_the_result_is_plain_data(tmp_path: Path) -> None:
    database(tmp_path).close()
    result: dict[str, Any] = look(tmp_path).as_result()
    assert set(result) == {"kind", "version", "health", "findings", "details"}
    json.dumps(result)
