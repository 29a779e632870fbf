# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memories read back through OpenMemory's own API, and compared with the rows of the database that it runs on."""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from ..errors import StackError
from ..stores import sqlite
from ..stores.container import Container
from ..stores.sqlite_check import opened
from . import ask

_PORT = 8765
_PAGE = 100  # upstream's limit of a page
_MOST_PAGES = 100
_POLL = 0.3  # seconds


def owners(path: str, scratch: str) -> dict[str, set[str]]:
    """{user: ids of active memories} of the OpenMemory database in a copy; {} where there is none of its schema.

    scratch is a directory for what must be opened elsewhere. Raises StackError.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for entry in sorted(os.scandir(path), key=lambda one: one.name):
        if not entry.is_file(follow_symlinks=False) or not sqlite.starts_with(entry.path, sqlite.MAGIC):
            continue
        try:
            with opened(entry.path, scratch) as database:
                memories = {row[1] for row in database.execute("PRAGMA table_info(memories)")}
                users = {row[1] for row in database.execute("PRAGMA table_info(users)")}
                if not {"id", "state", "user_id"} <= memories or not {"id", "user_id"} <= users:
                    continue
                rows = database.execute(
                    "SELECT users.user_id, memories.id FROM memories JOIN users ON memories.user_id = users.id "
                    "WHERE memories.state = 'active'"
                )
                for user, memory in rows:
                    found[str(user)].add(_normal(memory))
        except sqlite3.Error as error:
            raise StackError(f"{entry.name} cannot be read as a database ({error}).") from error
    return dict(found)


def service_of(inspected: Mapping[str, Any]) -> ask.Service | None:
    """OpenMemory's API in an inspected container, None if it does not run."""
    pid = ask.pid_of(inspected)
    return None if pid is None else ask.Service(f"OpenMemory in {Container.from_inspect(inspected).name}", pid, _PORT)


def wait_for(look: Callable[[], Mapping[str, Any]], timeout: float) -> ask.Service:
    """OpenMemory's API once it answers from its database; look inspects its container, timeout is in seconds.

    Raises StackError if its container ends, or it does not answer well in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        inspected = look()
        service = service_of(inspected)
        if service is None:
            raise StackError(f"OpenMemory ended with code {inspected['State']['ExitCode']}.")
        try:
            answer = service.ask("GET", "/api/v1/config/")
            problem = _failure(answer)
        except (ask.UnansweredError, ask.AnswerError) as error:
            problem = str(error)
        if problem is None:
            return service
        if time.monotonic() > deadline:
            raise StackError(f"OpenMemory does not work after {timeout:g} s: {problem}")
        time.sleep(_POLL)


def read_back(
    service: ask.Service, expected: Mapping[str, set[str]], most_pages: int = _MOST_PAGES, at_least: bool = False
) -> tuple[int, list[str]]:
    """How many memories the API gave for the users of expected ({user: ids}), and sentences on what differs.

    most_pages: of one user's that are read; the rest is compared by number. at_least: more than expected is no
    difference, as clients write already.
    """
    read, problems = 0, []
    for user, wanted in sorted(expected.items()):
        total, found = _memories_of(service, user, most_pages)
        read += len(found)
        missing = wanted - found if total <= _PAGE * most_pages else set[str]()
        if total < len(wanted) or missing or (total != len(wanted) and not at_least):
            shown = ", ".join(sorted(missing)[:3])
            problems.append(
                f"The API gives {total} memories of the user {user}, and the database has {len(wanted)}"
                f"{f' (missing: {shown})' if shown else ''}."
            )
    return read, problems


def _memories_of(service: ask.Service, user: str, most_pages: int) -> tuple[int, set[str]]:
    found: set[str] = set()
    total = 0
    for page in range(1, most_pages + 1):
        query = urlencode({"user_id": user, "page": page, "size": _PAGE})
        answer = service.ask("GET", f"/api/v1/memories/?{query}")
        problem = _failure(answer)
        if problem:
            raise StackError(f"OpenMemory does not give the memories of the user {user}: {problem}")
        with ask.shaped(service.name):
            total = int(answer["total"])
            found |= {_normal(item["id"]) for item in answer["items"]}
        if page * _PAGE >= total:
            break
    return total, found


def _failure(answer: Any) -> str | None:
    """OpenMemory reports failures of its stores with status 200."""
    if not isinstance(answer, dict):
        return f"it answers {str(answer)[:200]!r}"
    return str(answer["error"])[:300] if "error" in answer else None


def _normal(identity: Any) -> str:
    try:
        return str(uuid.UUID(str(identity)))
    except ValueError:
        return str(identity)
