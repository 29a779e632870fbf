# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of a copy of SQLite databases: nothing in it is changed, not even a journal that waits to be replayed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from urllib.parse import quote

from ..errors import StackError
from . import sqlite
from .checked import CheckResult
from .plain_file import plain, plain_size
from .scratch import copy

SIDES = ("-journal", "-wal", "-shm")
FULL, QUICK = "full", "quick"
INTEGRITY_LIMIT = 32 << 20  # bytes: up to here level quick runs integrity_check as well, see check()
_WAL_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_TRAILER = 16  # bytes after the name of a super-journal: its length, its sum, the magic
_AHEAD = 1 << 30  # bytes of a database that are read beforehand; more would push each other out of small memories
_SAMPLES = 64
_MOST = 10  # findings of one database


def check(path: str, scratch: str, level: str = FULL) -> CheckResult:
    """Check every database in the root of a copy and count its rows.

    level full: integrity_check. level quick: the same up to INTEGRITY_LIMIT bytes, above it quick_check, which does
    not compare indexes with their tables (188 MiB, 500 000 rows, three indexes, on a busy machine: 4.4 s and 0.7 s).
    Always foreign_key_check, whose findings are notes: SQLite does not enforce foreign keys by default, so they are the
    application's state.
    A database with a pending journal or WAL is copied to the directory scratch and opened there.
    """
    result = CheckResult(sqlite.KIND)
    files = {entry.name: entry.path for entry in os.scandir(path) if entry.is_file(follow_symlinks=False)}
    databases = sorted(name for name in files if sqlite.starts_with(files[name], sqlite.MAGIC))
    for name in sorted(files):
        _judge_side(name, files, databases, result)
    if not databases:
        result.damaged("there is no SQLite database in it.")
        return result
    tables: dict[str, int] = {}
    for name in databases:
        prefix = "" if len(databases) == 1 else f"{name}/"
        try:
            with opened(files[name], scratch) as database:
                for table, rows in _examine(database, name, level, result).items():
                    tables[prefix + table] = rows
        except sqlite3.Error as error:
            result.damaged(f"{name} cannot be read as a database ({error}).")
    if result.ok:
        result.census = {"tables": tables}
    return result


def clean(path: str, listed: Collection[str] = ()) -> list[str]:
    """Remove the side files (-journal, -wal, -shm) in the root that are not listed; the names of those removed.

    listed holds the paths, relative to the volume, of what the snapshot has: a side file that is not part of it is of
    another life of the database, and SQLite would replay it.
    """
    removed = []
    for entry in sorted(os.scandir(path), key=lambda one: one.name):
        base = next((entry.name[: -len(end)] for end in SIDES if entry.name.endswith(end)), None)
        if base and entry.name not in listed and sqlite.starts_with(os.path.join(path, base), sqlite.MAGIC):
            os.unlink(entry.path)
            removed.append(entry.name)
    return removed


@contextmanager
def opened(file: str, scratch: str) -> Iterator[sqlite3.Connection]:
    """A connection to a database of a copy that leaves the copy as it is.

    Where a journal or a WAL waits, it reads a copy in the directory scratch, into which that has been replayed; so
    nothing waits beside the file that it reads. Raises sqlite3.Error, StackError.
    """
    with ExitStack() as ending:
        if is_pending(file):
            file = ending.enter_context(_replayed(file, scratch))
        database = ending.enter_context(closing(_immutable(file)))
        pool = ending.enter_context(ThreadPoolExecutor(1))
        pool.submit(_read_ahead, file)  # it is faster than the checks, which come behind it
        yield database


@contextmanager
def _replayed(file: str, scratch: str) -> Iterator[str]:
    """A copy of a database in the directory scratch, as SQLite recovers it."""
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    place = tempfile.mkdtemp(prefix="sqlite-", dir=scratch)
    try:
        twin = os.path.join(place, os.path.basename(file))
        for end in ("", "-journal", "-wal"):
            if plain_size(file + end) is not None:
                copy(file + end, twin + end)
        _disarm(twin + "-journal", os.path.dirname(file))
        try:
            _replay(twin)
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            name = os.path.basename(file)
            raise StackError(f"There is no room in {scratch} to replay what waits beside {name}; make room.") from error
        yield twin
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _replay(twin: str) -> None:
    with closing(sqlite3.connect(twin)) as database:
        database.execute("PRAGMA synchronous=OFF")  # it is thrown away soon
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()  # replays a journal first
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # raises where a WAL cannot be emptied
    if is_pending(twin):
        raise sqlite3.OperationalError("what waits to be replayed beside it could not be replayed")


def _read_ahead(file: str) -> None:
    """Read a file once from its beginning: a clone has nothing in the page cache, and SQLite reads page by page.

    Measured on XFS with 0.27 GB: the check takes 1.5 s without it. A plain copy was just written, and is there.
    """
    with suppress(OSError), open(file, "rb", buffering=0) as stream:
        if _is_cached(stream.fileno()):
            return
        left = _AHEAD
        while left > 0:
            read = len(stream.read(1 << 20))
            left = left - read if read else 0


def _is_cached(file: int) -> bool:
    """Whether samples of an open file are in the page cache; False where that cannot be told."""
    size = os.fstat(file).st_size
    for number in range(_SAMPLES):
        try:
            os.preadv(file, [bytearray(1)], number * size // _SAMPLES, os.RWF_NOWAIT)
        except OSError:  # BlockingIOError, or a file system that does not know this
            return False
    return True


def is_pending(file: str) -> bool:
    """Whether a journal or a WAL beside a database waits to be replayed."""
    return sqlite.starts_with(file + "-journal", sqlite.JOURNAL_MAGIC) or bool(plain_size(file + "-wal"))


def _disarm(journal: str, beside: str) -> None:
    """Make a journal name no other file: SQLite deletes the super-journal that one names, and we are root.

    Whoever writes the volume chooses that name. As SQLite does, a transaction over several databases counts as
    committed where its super-journal is gone; it is looked for in the directory beside only. Format:
    https://www.sqlite.org/fileformat2.html#the_rollback_journal
    """
    size = plain_size(journal)
    if size is None or size < _TRAILER:
        return
    with open(journal, "r+b", opener=plain) as stream:
        stream.seek(size - _TRAILER)
        length, _sum, magic = struct.unpack(">II8s", stream.read(_TRAILER))
        if magic != sqlite.JOURNAL_MAGIC:
            return
        stream.seek(max(0, size - _TRAILER - length))
        name = stream.read(min(length, size)).rstrip(b"\0")
        stream.seek(0, os.SEEK_END)
        stream.write(bytes(_TRAILER))  # the name is only one at the very end
    base = os.path.basename(name)
    if length and (not base or b"\0" in base or plain_size(os.path.join(beside, os.fsdecode(base))) is None):
        os.unlink(journal)


def active_memories(path: str, scratch: str) -> list[str] | None:
    """The ids of the memories that OpenMemory's database in a copy has as active, as UUIDs are written with hyphens.

    None where no database there has its table memories with the columns id and state. Raises StackError.
    """
    import uuid

    for entry in sorted(os.scandir(path), key=lambda one: one.name):
        if not entry.is_file(follow_symlinks=False) or not sqlite.starts_with(entry.path, sqlite.MAGIC):
            continue
        try:
            with opened(entry.path, scratch) as database:
                columns = {row[1] for row in database.execute("PRAGMA table_info(memories)")}
                if not {"id", "state"} <= columns:
                    continue
                found = [str(row[0]) for row in database.execute("SELECT id FROM memories WHERE state = 'active'")]
        except sqlite3.Error as error:
            raise StackError(f"{entry.name} cannot be read as a database ({error}).") from error
        try:
            return [str(uuid.UUID(one)) for one in found]
        except ValueError:  # another schema's ids
            return None
    return None


def _judge_side(name: str, files: dict[str, str], databases: list[str], result: CheckResult) -> None:
    for end, magics in (("-journal", (sqlite.JOURNAL_MAGIC,)), ("-wal", _WAL_MAGIC)):
        if not name.endswith(end) or name[: -len(end)] in databases:
            continue
        if any(sqlite.starts_with(files[name], magic) for magic in magics):
            base = name[: -len(end)]
            if base not in files:
                result.damaged(f"{name} waits to be replayed, and {base} is not there.")
            elif os.path.getsize(files[base]):  # an empty one is before its first transaction
                result.damaged(f"{name} waits to be replayed, and {base} is no database.")


def _examine(database: sqlite3.Connection, name: str, level: str, result: CheckResult) -> dict[str, int]:
    file = database.execute("PRAGMA database_list").fetchone()[2]
    pragma = "integrity_check" if level == FULL or os.path.getsize(file) <= INTEGRITY_LIMIT else "quick_check"
    with ThreadPoolExecutor(1) as pool:  # each reads the whole database
        asked = pool.submit(_orphans_of, file)
        answers = [str(row[0]) for row in database.execute(f"PRAGMA {pragma}({_MOST})")]
    if answers != ["ok"]:
        for answer in answers:
            result.damaged(f"{name}: {pragma} says: {' '.join(answer.split())}.")
        return {}
    for table, count in sorted(asked.result().items()):
        result.notes.append(f"{name}: {count} rows of {table} refer to rows that are not there.")
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    tables = {}
    for (table,) in database.execute(query).fetchall():
        quoted = table.replace('"', '""')
        try:
            (tables[table],) = database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()
        except sqlite3.OperationalError as error:  # a virtual table whose extension is not here
            result.notes.append(f"{name}: the rows of {table} cannot be counted ({error}).")
    return tables


def _orphans_of(file: str) -> dict[str, int]:
    """{table: rows that refer to rows that are not there}."""
    found: dict[str, int] = {}
    with closing(_immutable(file)) as database:
        for table, _row, _parent, _key in database.execute("PRAGMA foreign_key_check"):
            found[table] = found.get(table, 0) + 1
    return found


def _immutable(file: str) -> sqlite3.Connection:
    """Read as it is: SQLite makes no file beside it, and waits for no lock."""
    database = sqlite3.connect(f"file:{quote(os.fsencode(file))}?mode=ro&immutable=1", uri=True)
    database.text_factory = _text
    return database


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
