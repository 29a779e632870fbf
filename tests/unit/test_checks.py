# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of a copy: damage is found, and nothing in the copy is changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.checks import (
    active_memories,
    check_staged,
    check_volume,
    clean,
    refusal,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.stores import scratch as scratch_copies
from ansible_collections.openmemory.stack.plugins.module_utils._core.stores import sqlite_check

Damage = Callable[[Path], object]


def digest(root: Path) -> str:
    """Of all names, contents and modification times below root."""
    seen = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        seen.update(f"{path.relative_to(root)} {path.lstat().st_mtime_ns}".encode())
        seen.update(path.read_bytes() if path.is_file() else b"")
    return seen.hexdigest()


def database(root: Path, rows: int = 300, mode: str = "delete") -> sqlite3.Connection:
    root.mkdir(exist_ok=True)
    made = sqlite3.connect(root / "openmemory.db", isolation_level=None)
    made.execute(f"PRAGMA journal_mode = {mode}")
    made.execute("PRAGMA synchronous = OFF")
    made.executescript("CREATE TABLE users (id TEXT PRIMARY KEY);")
    made.executescript("CREATE TABLE memories (id TEXT PRIMARY KEY, user_id REFERENCES users (id), content, state)")
    made.execute("INSERT INTO users VALUES ('u')")
    identities = [(str(uuid.UUID(int=number)), "x" * 200) for number in range(rows)]
    made.executemany("INSERT INTO memories VALUES (?, 'u', ?, 'active')", identities)
    return made


def qdrant(root: Path) -> None:
    segment = root / "collections" / "mem" / "0" / "segments" / "5f"
    for part in ("vector_storage", "payload_storage"):
        (segment / part).mkdir(parents=True)
    (segment / "segment.json").write_text('{"config": {"vector_data": {"": {"size": 4}}}}')
    (segment / "version.info").write_text("0.6.0")
    (root / "collections" / "mem" / "0" / "wal").mkdir()
    (root / "collections" / "mem" / "0" / "wal" / "open-1").write_text("")
    (root / "collections" / "mem" / "config.json").write_text("{}")
    (root / "raft_state.json").write_text("{}")


def neo4j(root: Path) -> None:
    for name in ("neo4j", "system"):
        (root / "databases" / name).mkdir(parents=True)
        (root / "databases" / name / "neostore").write_bytes(bytes(8192))
        (root / "transactions" / name).mkdir(parents=True)
        (root / "transactions" / name / "neostore.transaction.db.0").write_bytes(bytes(64))


def scribble(file: str, offset: int) -> Damage:
    def damage(root: Path) -> None:
        with open(root / file, "r+b") as stream:
            stream.seek(offset)
            stream.write(b"\xa5" * 4096)

    return damage


def remove(path: str) -> Damage:
    def damage(root: Path) -> None:
        target = root / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def write(path: str, content: bytes) -> Damage:
    return lambda root: (root / path).write_bytes(content)


SEGMENT = "collections/mem/0/segments/5f"
JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504)


@pytest.mark.parametrize(
    ("kind", "damage", "finding"),
    [
        ("sqlite", scribble("openmemory.db", 8192), "openmemory.db"),
        ("sqlite", lambda root: os.truncate(root / "openmemory.db", 30000), "openmemory.db"),
        ("sqlite", remove("openmemory.db"), "there is no SQLite database"),
        ("sqlite", write("gone.db-journal", JOURNAL), "gone.db is not there"),
        ("sqlite", write("gone.db-wal", b"\x37\x7f\x06\x82" + bytes(28)), "gone.db is not there"),
        ("qdrant", remove(SEGMENT), "shard mem/0 has no complete segment"),
        ("qdrant", remove(f"{SEGMENT}/segment.json"), "no readable segment.json"),
        ("qdrant", remove(f"{SEGMENT}/vector_storage"), "no vector_storage"),
        ("qdrant", remove(f"{SEGMENT}/payload_storage"), "no payload_storage"),
        ("qdrant", remove("collections/mem/0"), "collection mem has no shard"),
        ("qdrant", remove("collections/mem/0/wal/open-1"), "empty write-ahead log"),
        ("qdrant", write("collections/mem/config.json", b'{"par'), "unreadable config.json"),
        ("qdrant", remove("collections"), "no collections of Qdrant"),
        ("neo4j", lambda root: os.truncate(root / "databases/neo4j/neostore", 100), "cut off inside a page"),
        ("neo4j", lambda root: os.truncate(root / "databases/neo4j/neostore", 0), "neostore is empty"),
        ("neo4j", remove("databases/neo4j/neostore"), "database neo4j has no neostore"),
        ("neo4j", remove("databases/system"), "system"),
        ("neo4j", remove("transactions/neo4j"), "no transaction logs"),
        ("neo4j", lambda root: (root / "transactions/neo4j/neostore.transaction.db.0").rename(
            root / "transactions/neo4j/other"), "no transaction log in"),
    ],
)  # fmt: skip
def test_damage_is_found_and_what_is_whole_is_not_accused(
    tmp_path: Path, kind: str, damage: Damage, finding: str
) -> None:
    root = tmp_path / "copy"
    {"sqlite": lambda path: database(path).close(), "qdrant": qdrant, "neo4j": neo4j}[kind](root)
    whole = check_volume(kind, str(root), str(tmp_path / "scratch"))
    assert (whole.ok, whole.findings) == (True, [])
    damage(root)
    before = digest(root)
    result = check_volume(kind, str(root), str(tmp_path / "scratch"))
    assert not result.ok
    assert finding in " ".join(result.findings)
    assert result.census is None
    assert str(refusal({"volume": result, "other": whole})).startswith(f"The copy is damaged: volume ({kind}): ")
    assert digest(root) == before


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_waits_to_be_replayed_is_replayed_on_a_copy_only(tmp_path: Path, mode: str) -> None:
    live, copy, scratch = tmp_path / "live", tmp_path / "copy", tmp_path / "scratch"
    writer = database(live, mode=mode)
    if mode == "wal":
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("INSERT INTO users VALUES ('in the WAL')")
    else:
        writer.execute("PRAGMA cache_size = 1")  # so that pages of the open transaction spill into the file
        writer.execute("BEGIN")
        writer.execute("UPDATE memories SET content = randomblob(300)")
        writer.execute("DELETE FROM users")
    shutil.copytree(live, copy)
    writer.close()
    before = digest(copy)
    result = check_volume("sqlite", str(copy), str(scratch))
    assert result.findings == []
    assert result.census == {"tables": {"memories": 300, "users": 2 if mode == "wal" else 1}}
    assert digest(copy) == before
    assert list(scratch.iterdir()) == []


def waiting(root: Path, name: str = "openmemory.db") -> None:
    """A database whose last row is in its WAL only."""
    writer = database(root / "live", mode="wal")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("INSERT INTO users VALUES ('in the WAL')")
    (root / "copy").mkdir()
    for end in ("", "-wal"):
        shutil.copy(root / "live" / f"openmemory.db{end}", root / "copy" / f"{name}{end}")
    writer.close()


def test_a_disk_without_room_for_a_replay_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting(tmp_path)

    def fail(_twin: str) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite_check, "_replay", fail)
    with pytest.raises(StackError, match=r"no room in .*scratch to replay what waits beside openmemory\.db; make room"):
        check_volume("sqlite", str(tmp_path / "copy"), str(tmp_path / "scratch"))
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_still_waits_after_a_replay_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting(tmp_path)
    monkeypatch.setattr(sqlite_check.sqlite3, "connect", lambda _file: sqlite3.Connection(":memory:"))
    result = check_volume("sqlite", str(tmp_path / "copy"), str(tmp_path / "scratch"))
    assert result.findings == [
        "openmemory.db cannot be read as a database (what waits to be replayed beside it could not be replayed)."
    ]


def test_a_name_that_is_no_text_is_read(tmp_path: Path) -> None:
    waiting(tmp_path, os.fsdecode(b"\xff%.db"))
    result = check_volume("sqlite", str(tmp_path / "copy"), str(tmp_path / "scratch"))
    assert result.findings == []
    assert result.census == {"tables": {"memories": 300, "users": 2}}


def test_every_database_of_the_volume_is_checked_and_counted(tmp_path: Path) -> None:
    database(tmp_path / "copy", rows=2).close()
    shutil.copy(tmp_path / "copy" / "openmemory.db", tmp_path / "copy" / "second 100%.db")
    result = check_volume("sqlite", str(tmp_path / "copy"), str(tmp_path / "scratch"))
    assert result.census == {
        "tables": {
            "openmemory.db/memories": 2,
            "openmemory.db/users": 1,
            "second 100%.db/memories": 2,
            "second 100%.db/users": 1,
        }
    }
    scribble("second 100%.db", 4096)(tmp_path / "copy")
    assert not check_volume("sqlite", str(tmp_path / "copy"), str(tmp_path / "scratch")).ok


def test_rows_without_their_parents_are_the_applications_state_and_no_damage(tmp_path: Path) -> None:
    with database(tmp_path / "copy", rows=3) as made:
        made.execute("DELETE FROM users")
    result = check_volume("sqlite", str(tmp_path / "copy"), str(tmp_path / "scratch"))
    assert result.ok
    assert result.notes == ["openmemory.db: 3 rows of memories refer to rows that are not there."]


@pytest.mark.parametrize(
    ("level", "limit", "found"), [("full", 0, True), ("quick", 0, False), ("quick", 1 << 20, True)]
)
def test_an_index_that_disagrees_with_its_table_is_found_by_full_and_by_quick_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, limit: int, found: bool
) -> None:
    monkeypatch.setattr(sqlite_check, "INTEGRITY_LIMIT", limit)
    with database(tmp_path / "copy", rows=3) as made:
        made.execute("CREATE INDEX by_state ON memories (state)")
        made.execute("PRAGMA writable_schema = ON")
        other = "CREATE INDEX by_state ON memories (content)"
        made.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'by_state'", (other,))
    result = check_volume("sqlite", str(tmp_path / "copy"), str(tmp_path / "scratch"), level)
    assert result.ok is not found


def test_side_files_that_are_not_of_the_snapshot_go_and_those_that_are_stay(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    database(root).close()
    for name in ("openmemory.db-journal", "openmemory.db-wal", "openmemory.db-shm", "notes-journal"):
        (root / name).write_bytes(b"stale")
    assert clean("sqlite", str(root), {"openmemory.db", "openmemory.db-wal"}) == [
        "openmemory.db-journal",
        "openmemory.db-shm",
    ]
    assert sorted(os.listdir(root)) == ["notes-journal", "openmemory.db", "openmemory.db-wal"]
    assert clean("qdrant", str(root), ()) == []


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        (["6f0e8a3c-0000-4000-8000-00000000000a"], ["6f0e8a3c-0000-4000-8000-00000000000a"]),
        (["6f0e8a3c00004000800000000000000a"], ["6f0e8a3c-0000-4000-8000-00000000000a"]),  # as SQLAlchemy's Uuid has it
        (["no uuid"], None),
    ],
)
def test_ids_of_active_memories(tmp_path: Path, identities: list[str], expected: list[str] | None) -> None:
    with database(tmp_path / "copy", rows=0) as made:
        made.executemany("INSERT INTO memories VALUES (?, 'u', '', 'active')", [(one,) for one in identities])
        made.execute("INSERT INTO memories VALUES ('gone', 'u', '', 'deleted')")
    assert active_memories(str(tmp_path / "copy"), str(tmp_path / "scratch")) == expected


def test_several_volumes_and_those_of_plain_files(tmp_path: Path) -> None:
    qdrant(tmp_path / "q")
    (tmp_path / "logs").mkdir()
    staged = {"q": ("qdrant", str(tmp_path / "q")), "logs": ("files", str(tmp_path / "logs"))}
    results = check_staged(staged, str(tmp_path / "scratch"))
    assert {key: result.ok for key, result in results.items()} == {"q": True, "logs": True}
    assert results["logs"].notes == ["there is no file in it."]
    assert refusal(results) is None
    with pytest.raises(StackError, match="gone cannot be checked"):
        check_volume("files", str(tmp_path / "gone"), str(tmp_path / "scratch"))


def test_a_copy_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"gone could not be copied to .*No such file"):
        scratch_copies.copy(str(tmp_path / "gone"), str(tmp_path / "target"))
