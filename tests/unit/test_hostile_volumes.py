# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a container can put into its volume must not reach the host, on which we are root."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.hidden import is_hidden
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.checks import check_volume
from ansible_collections.openmemory.stack.plugins.module_utils._core.stores import qdrant, sqlite

ROWS = 1000


@pytest.fixture
def hot(tmp_path: Path) -> Path:
    """A database whose journal waits to be rolled back: all values are raised by one, and must not be."""
    live, volume = tmp_path / "live", tmp_path / "volume"
    live.mkdir()
    database = sqlite3.connect(live / "a.db", isolation_level=None)
    database.execute("CREATE TABLE t (x)")
    database.execute("BEGIN")
    database.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(ROWS)])
    database.execute("COMMIT")
    database.execute("PRAGMA cache_size = 1")
    database.execute("BEGIN")
    database.execute("DELETE FROM t WHERE x >= 100")
    shutil.copytree(live, volume)
    database.close()
    return volume


def name_super_journal(volume: Path, name: bytes) -> None:
    total = sum(struct.unpack(f"{len(name)}b", name)) & 0xFFFFFFFF
    with open(volume / "a.db-journal", "ab") as journal:
        journal.write(struct.pack(">I", 0x40000001) + name + struct.pack(">II", len(name), total))
        journal.write(sqlite.JOURNAL_MAGIC)


def rows(volume: Path, scratch: Path) -> object:
    result = check_volume("sqlite", str(volume), str(scratch))
    return result.census["tables"]["t"] if result.census else result.findings


def test_a_journal_that_names_a_file_of_the_host_does_not_delete_it(hot: Path, tmp_path: Path) -> None:
    victim = tmp_path / "precious"
    victim.write_text("of the host")
    name_super_journal(hot, os.fsencode(victim))
    check_volume("sqlite", str(hot), str(tmp_path / "scratch"))
    assert victim.read_text() == "of the host"


@pytest.mark.parametrize("times", [1, 3])
def test_a_name_behind_a_name_is_no_way_around(hot: Path, tmp_path: Path, times: int) -> None:
    victim = tmp_path / "precious"
    victim.write_text("of the host")
    (hot / "precious").write_text("a super-journal of the container's own")
    for _time in range(times):
        name_super_journal(hot, os.fsencode(victim))
    assert rows(hot, tmp_path / "scratch") == ROWS  # it is beside, so the transaction is rolled back
    assert victim.read_text() == "of the host"


def test_an_ordinary_journal_is_still_rolled_back(hot: Path, tmp_path: Path) -> None:
    assert rows(hot, tmp_path / "scratch") == ROWS


@pytest.mark.parametrize("end", ["-journal", "-wal"])
def test_pipes_and_links_beside_a_database_are_not_opened(tmp_path: Path, end: str) -> None:
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        volume = tmp_path / f"volume-{make.__name__}"
        volume.mkdir()
        database = sqlite3.connect(volume / "a.db")
        database.execute("CREATE TABLE t (x)")
        database.commit()
        database.close()
        make(str(volume / f"a.db{end}"))
        assert rows(volume, tmp_path / "scratch") == 0
        assert sqlite.look(str(volume))


def test_deep_json_and_pipes_in_qdrants_storage_are_findings(tmp_path: Path) -> None:
    makers: list[Callable[[str], object]] = [os.mkfifo, lambda path: Path(path).write_text("[" * 200_000)]
    for number, make in enumerate(makers):
        segment = tmp_path / str(number) / "collections" / "mem" / "0" / "segments" / "5f"
        segment.mkdir(parents=True)
        (segment / "version.info").write_text("0.6.0")
        (tmp_path / str(number) / "raft_state.json").write_text("{}")
        make(str(segment / "segment.json"))
        found = qdrant.look(str(tmp_path / str(number)))
        assert found is not None
        assert any("no readable segment.json" in finding for finding in found.findings)
        check_volume("qdrant", str(tmp_path / str(number)), str(tmp_path / "scratch"))


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        (".openmemory-stack-20261125t021500-3fa9c1", True),
        (".openmemory-stack-", False),
        (".openmemory-stack-memories", False),
        (".openmemory-stack-20261125t021500-3fa9c1.db", False),
    ],
)
def test_no_other_name_is_left_out_of_a_backup(name: str, hidden: bool) -> None:
    assert is_hidden(name) == hidden
