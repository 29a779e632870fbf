# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a database's format has moved, and a project's files as they were."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import files, formats


def run(path: Path, *statements: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Two directories with the same databases."""
    for side in ("before", "now"):
        run(tmp_path / side / "openmemory.db", "CREATE TABLE memories (id)", "CREATE TABLE alembic_version (num)")
        run(tmp_path / side / "openmemory.db", "INSERT INTO alembic_version VALUES ('a1')")
        run(tmp_path / side / ".mem0" / "history.db", "CREATE TABLE history (id)")
        (tmp_path / side / "notes").write_text(side)
    return tmp_path / "before", tmp_path / "now"


def moved(sides: tuple[Path, Path]) -> bool:
    return formats.moved(str(sides[0]), str(sides[1]), str(sides[0].parent / "scratch"))


def test_rows_are_no_change_of_format(sides: tuple[Path, Path]) -> None:
    run(sides[1] / "openmemory.db", "INSERT INTO memories VALUES (1)")
    assert not moved(sides)


@pytest.mark.parametrize(
    ("database", "statement"),
    [
        ("openmemory.db", "ALTER TABLE memories ADD COLUMN hash"),
        ("openmemory.db", "CREATE INDEX one ON memories (id)"),
        ("openmemory.db", "UPDATE alembic_version SET num = 'b2'"),
        ("openmemory.db", "PRAGMA user_version = 3"),
        (".mem0/history.db", "CREATE TABLE more (id)"),
        ("new.db", "CREATE TABLE more (id)"),
    ],
)
def test_what_an_older_version_does_not_know(sides: tuple[Path, Path], database: str, statement: str) -> None:
    run(sides[1] / database, statement)
    assert moved(sides)


def test_what_cannot_be_read_counts_as_moved(sides: tuple[Path, Path]) -> None:
    with open(sides[1] / "openmemory.db", "r+b") as stream:
        stream.seek(100)
        stream.write(os.urandom(3000))
    assert moved(sides)


def test_files_go_back_to_what_they_were(tmp_path: Path) -> None:
    place, kept = tmp_path / "src", str(tmp_path / "kept")
    place.mkdir()
    (place / ".env").write_text("SECRET=old\n")
    (place / ".env").chmod(0o600)
    paths = [str(place / ".env"), str(place / "compose.yml")]
    saved = files.save(paths, kept)
    assert os.stat(kept).st_mode & 0o777 == 0o700
    assert files.put_back(saved, kept) == []
    (place / ".env").write_text("SECRET=new\n")
    (place / ".env").chmod(0o644)
    (place / "compose.yml").write_text("new")
    assert sorted(files.put_back(saved, kept)) == sorted(paths)
    assert ((place / ".env").read_text(), (place / ".env").stat().st_mode & 0o777) == ("SECRET=old\n", 0o600)
    assert sorted(os.listdir(place)) == [".env"]
    assert files.put_back(saved, kept) == []


def test_a_file_that_cannot_go_back_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"compose\.yml cannot be put back .*; its old form is in"):
        files.put_back({str(tmp_path / "gone" / "compose.yml"): "0"}, str(tmp_path))
