# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the format of SQLite databases has moved: what an older version of their application would not know."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from ..errors import StackError
from ..stores import sqlite
from ..stores.sqlite_check import opened

_DEPTH = 3  # directories below the volume's root in which databases are looked for
_MOST = 200
_VERSIONS = re.compile(r"version|migration", re.IGNORECASE)  # tables in which tools note the schema that they have made


def moved(before: str, now: str, scratch: str) -> bool:
    """Whether any database differs in its schema or in what tells its version, or cannot be read on either side.

    before and now are directories that nobody writes to; scratch is one for what must be opened elsewhere.
    """
    try:
        return _formats(before, scratch) != _formats(now, scratch)
    except (OSError, sqlite3.Error, StackError):
        return True


def _formats(root: str, scratch: str) -> dict[str, Any]:
    found = {}
    for path in _databases(root):
        with opened(path, scratch) as database:
            schema = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
            noted = {}
            for kind, name, _sql in schema:
                if kind == "table" and _VERSIONS.search(name):
                    quoted = name.replace('"', '""')
                    noted[name] = sorted(map(repr, database.execute(f'SELECT * FROM "{quoted}" LIMIT 1000')))
            (version,) = database.execute("PRAGMA user_version").fetchone()
        found[os.path.relpath(path, root)] = (schema, noted, version)
    return found


def _databases(root: str) -> Iterator[str]:
    count = 0
    for place, directories, names in os.walk(root):
        if os.path.relpath(place, root).count(os.sep) >= _DEPTH - 1 and place != root:
            directories.clear()
        directories[:] = sorted(name for name in directories if not name.startswith(".openmemory-"))
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path) and sqlite.starts_with(path, sqlite.MAGIC):
                count += 1
                if count > _MOST:
                    raise StackError(f"There are more than {_MOST} databases in {root}.")
                yield path
