# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of the last runs of a stack's operations, for status, for monitoring and for reports.

last.json holds {operation: result of the last success, operation_failed: the last failure, "repositories": …}; a backup
of fewer volumes than usual (backup/regular.py) has a name of its own. Times are ISO 8601 in UTC. A success has
"finished" and "seconds", a failure "created", "seconds" and "message".
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import StackError
from .durable_json import read_json, write_json
from .places import Places

REPOSITORIES = "repositories"


@dataclass(frozen=True)
class Outcome:
    """How the last run of an operation ended: when (aware), and its message where it failed. seconds: None unknown."""

    ok: bool
    at: datetime
    seconds: float | None
    message: str = ""


def read_last(places: Places) -> dict[str, Any]:
    """{operation: result}; empty where nothing was recorded or the record cannot be read."""
    try:
        found: dict[str, Any] = read_json(places.last) or {}
    except StackError:  # it is only a record: a damaged one is made anew
        return {}
    return found


def record_last(places: Places, operation: str, result: dict[str, Any]) -> None:
    """Keep result (JSON values) as that of the last operation of its kind. Raises StackError if the disk refuses."""
    with _alone(places):
        write_json(places.last, {**read_last(places), operation: result})


def add_to_last(places: Places, operation: str, more: Mapping[str, Any]) -> None:
    """Add to what is kept of the last operation of its kind, or begin it. Raises StackError if the disk refuses."""
    with _alone(places):
        found = read_last(places)
        write_json(places.last, {**found, operation: {**found.get(operation, {}), **more}})


def record_repository(places: Places, location: str, about: Mapping[str, Any]) -> None:
    """Add to what is known of a repository, named as it may be shown. Raises StackError if the disk refuses.

    about: newest (ISO, the instant of the newest snapshot that this host put there), snapshot_id, size_bytes,
    snapshots (how many), checked (ISO), problems (a list, [] for sound). Each may be left out.
    """
    with _alone(places):
        found = read_last(places)
        every = found.get(REPOSITORIES, {})
        every = {**every, location: {**every.get(location, {}), **about}}
        write_json(places.last, {**found, REPOSITORIES: every})


def outcome(last: Mapping[str, Any], operation: str) -> Outcome | None:
    """How the last run of an operation ended, None where none is recorded."""
    done, failed = last.get(operation), last.get(f"{operation}_failed")
    ended = moment(str(done.get("finished") or done["created"])) if done else None
    if failed and (ended is None or moment(failed["created"]) > ended):
        return Outcome(False, moment(failed["created"]), failed.get("seconds"), str(failed["message"]))
    if done and ended is not None:
        return Outcome(True, ended, done.get("seconds"))
    return None


def now() -> str:
    """With milliseconds, so that two runs within a second are in their order."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def moment(text: str) -> datetime:
    """An aware time of an ISO text; one without a zone is UTC."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


@contextmanager
def _alone(places: Places) -> Iterator[None]:
    """Two that end at once must not lose each other's record."""
    try:
        descriptor = os.open(places.state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StackError(f"{places.state} cannot be opened ({error.strerror}); use become: true.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
