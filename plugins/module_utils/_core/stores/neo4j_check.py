# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of a copy of Neo4j's data directory: what its files must be for the server to recover them.

Whether they do recover, only a server that was started on the copy can say (proof/probe.py).
"""

from __future__ import annotations

import os

from . import neo4j
from .checked import CheckResult

_PAGE = 8192  # bytes: the page cache writes whole pages, so every store file is a multiple (seen with 5.26)
_MOST_FINDINGS = 10


def check(path: str, scratch: str, level: str = "full") -> CheckResult:
    """Check the structure of a copy: databases with their logs, whole pages, and store files that must be there."""
    result = CheckResult(neo4j.KIND)
    found = neo4j.look(path)
    if found is None:
        result.damaged("there are no databases of Neo4j in it.")
        return result
    for finding in found.findings:
        result.damaged(finding)
    if not found.details["databases"]:
        result.damaged("databases/ is empty.")
    for name in found.details["databases"]:
        _check_database(os.path.join(path, "databases", name), name, result)
        _check_logs(os.path.join(path, "transactions", name), name, result)
    return result


def _check_database(directory: str, name: str, result: CheckResult) -> None:
    files = {entry.name: entry for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)}
    if not any(file == "neostore" or file.startswith("block.") for file in files):
        _note(result, f"database {name} has no neostore: it would not start.")
    for file, entry in sorted(files.items()):
        size = entry.stat(follow_symlinks=False).st_size
        if file.startswith("neostore") and size % _PAGE:
            _note(result, f"database {name}: {file} is cut off inside a page ({size} bytes).")
        elif file == "neostore" and not size:
            _note(result, f"database {name}: neostore is empty.")


def _check_logs(directory: str, name: str, result: CheckResult) -> None:
    if not os.path.isdir(directory):
        return  # reported by neo4j.look
    files = os.listdir(directory)
    if files and not any(file.startswith("neostore.transaction.db.") for file in files):
        _note(result, f"database {name} has no transaction log in transactions/{name}: it would not recover.")


def _note(result: CheckResult, finding: str) -> None:
    if len(result.findings) < _MOST_FINDINGS:
        result.damaged(finding)
