# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check of a repository, with what it found recorded for status and for monitoring."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..errors import StackError
from ..operation.last import now, record_repository
from ..operation.places import Places
from .failures import DamagedError
from .repository import Repository


def check_and_record(repository: Repository, places: Places, read_data: bool | str = False) -> dict[str, Any]:
    """Check it (read_data as Repository.check()) and record health and size. Returns {changed, location, health,
    warnings}; raises StackError where it is damaged or cannot be checked.
    """
    where = repository.restic.shown
    try:
        problems = repository.check(read_data)
    except DamagedError as error:  # restic gives up at some damage instead of listing it
        with suppress(StackError):
            record_repository(places, where, {"checked": now(), "problems": [str(error)]})
        raise
    about: dict[str, Any] = {"checked": now(), "problems": problems}
    with suppress(StackError):  # a damaged one may have no size
        about.update(repository.stats())
    warnings = []
    try:
        record_repository(places, where, about)
    except StackError as error:
        warnings.append(f"The check was made, but its record on this host was not kept: {error}")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise StackError(
            f"The repository {where} is damaged; make a backup into another one now, and keep this "
            f"one for what can still be read:{listed}"
        )
    return {"changed": False, "location": where, "health": "good", "warnings": warnings}
