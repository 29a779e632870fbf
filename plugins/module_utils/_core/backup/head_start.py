# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commit of a snapshot, begun while what goes into it is still looked for or copied.

restic takes most of a second for its key. Loading the Docker SDK and planning a capture take a quarter of one, and what
they find is nearly always what the last backup found; so a commit like the last one is begun before them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ..capture.staging import Staging
from ..errors import StackError
from ..operation.durable_json import read_json, write_json
from ..operation.places import Places
from ..operation.progress import Progress
from ..repository.ahead import CommitAhead
from ..repository.known_packs import KnownPacks
from ..repository.repository import Repository
from .request import BackupRequest


def like_the_last(
    request: BackupRequest, places: Places, repository: Repository, progress: Progress, until: ExitStack
) -> CommitAhead | None:
    """A commit of what the last backup committed, entered until then; None where there is none to go by.

    It is of use only if it is_for() what this backup commits in the end. The operation lock is held.
    """
    if os.path.lexists(places.journal):
        return None
    try:
        last: dict[str, Any] = read_json(places.committed) or {}
        staging, tags = Staging(last["root"]), list(last["tags"])
        if last["asked"] != _asked(request) or not is_short(request, repository, staging, last["way"], last["keys"]):
            return None
        if not repository.exists():  # asked of a local one only: a far one answers after a second
            return None
        if KnownPacks(repository.restic).lost():  # what has to be checked then is kept out by a commit
            return None
        staging.announce()
        if not os.path.isdir(staging.volumes) or os.path.lexists(staging.export):
            return None
        return until.enter_context(begin(repository, staging, tags, places, progress))
    except (KeyError, TypeError, OSError, StackError):  # none, or gone with its disk, say: the plan tells what is wrong
        return None


def remember(
    request: BackupRequest, places: Places, staging: Staging, tags: Sequence[str], way: str, keys: Iterable[str]
) -> None:
    """What is committed, until the next boot."""
    found = {"root": staging.root, "tags": list(tags), "way": way, "keys": list(keys), "asked": _asked(request)}
    with suppress(StackError):  # it only saves time
        write_json(places.committed, found, durable=False)


def _asked(request: BackupRequest) -> str:
    """What decides on tags, way and staging, so that runs of two kinds that take turns do not mislead each other."""
    volumes = None if request.volumes is None else [dict(volume) for volume in request.volumes]
    asked = request.verify, list(request.tags), volumes, request.capture, request.staging_dir, request.export
    return json.dumps(asked, sort_keys=True)


def begin(
    repository: Repository, staging: Staging, tags: Sequence[str], places: Places, progress: Progress
) -> CommitAhead:
    """A commit of what will be in staging, to be entered."""
    place = os.path.join(places.runtime, "commit")
    return CommitAhead(repository, staging.root, staging.targets(), tags, place, progress.follow())


def is_short(request: BackupRequest, repository: Repository, staging: Staging, way: str, keys: Iterable[str]) -> bool:
    """Whether what comes before the commit is: it waits only so long, and holds a lock in the repository meanwhile."""
    if request.verify == "full" or request.export or not repository.restic.local_path:
        return False
    return way != "two_pass" or all(os.path.exists(staging.index(key)) for key in keys)
