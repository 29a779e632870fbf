# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of the copy of a stack's volumes, each by its store."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from ..errors import StackError
from ..sizes import is_empty
from ..stores import files, neo4j, neo4j_check, qdrant, qdrant_check, sqlite, sqlite_check
from ..stores.checked import CheckResult

__all__ = ["FULL", "QUICK", "CheckResult", "active_memories", "check_staged", "check_volume", "clean", "refusal"]

active_memories = sqlite_check.active_memories
FULL, QUICK = sqlite_check.FULL, sqlite_check.QUICK
_CHECKS = {sqlite.KIND: sqlite_check.check, qdrant.KIND: qdrant_check.check, neo4j.KIND: neo4j_check.check}


def check_volume(kind: str | None, path: str, scratch: str, level: str = FULL) -> CheckResult:
    """Check one volume's copy in the directory path and change nothing in it.

    kind is the store's (sqlite, qdrant, neo4j, files; None is files). level is quick or full: see sqlite_check.check.
    scratch is a directory for what must be opened elsewhere; it need not exist. Raises StackError where path cannot be
    read.
    """
    try:
        if kind in _CHECKS:
            return _CHECKS[kind](path, scratch, level)
        result = CheckResult(files.KIND)
        if is_empty(path):
            result.notes.append("there is no file in it.")
        return result
    except OSError as error:
        raise StackError(
            f"{error.filename or path} cannot be checked ({error.strerror}); run it as root, or make room."
        ) from error


def check_staged(
    volumes: Mapping[str, tuple[str | None, str]], scratch: str, level: str = FULL
) -> dict[str, CheckResult]:
    """Check the copies of several volumes at once, {key: (kind, path)}; see check_volume."""
    with ThreadPoolExecutor(max(1, len(volumes))) as pool:
        checked = {key: pool.submit(check_volume, *about, scratch, level) for key, about in sorted(volumes.items())}
        return {key: found.result() for key, found in checked.items()}


def clean(kind: str | None, path: str, listed: Collection[str]) -> list[str]:
    """Remove from the root of a restored copy what must never survive into use; the names of what was removed.

    Only SQLite has such files: those beside a database that are not in listed, the snapshot's paths relative to the
    volume. Raises StackError.
    """
    if kind != sqlite.KIND:
        return []
    try:
        return sqlite_check.clean(path, listed)
    except OSError as error:
        raise StackError(f"{error.filename} cannot be removed ({error.strerror}).") from error


def refusal(results: Mapping[str, CheckResult]) -> str | None:
    """One sentence that names every damaged volume and its first finding, or None if all are whole."""
    bad = [(key, result) for key, result in sorted(results.items()) if not result.ok]
    if not bad:
        return None
    parts = []
    for key, result in bad:
        more = f" (and {len(result.findings) - 1} more)" if len(result.findings) > 1 else ""
        parts.append(f"{key} ({result.store}): {os.fsencode(result.findings[0]).decode('utf-8', 'replace')}{more}")
    return "The copy is damaged: " + " ".join(parts)
