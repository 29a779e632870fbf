# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Neo4j's data directory: databases/ and transactions/ in pairs, and dbms/."""

from __future__ import annotations

import os
import re

from .container import Container
from .found import Found
from .plain_file import plain

KIND = "neo4j"
OWNER = (7474, 7474)  # uid and gid of the official image
EXTRA_PATHS = ("/logs", "/plugins", "/import", "/conf", "/ssl", "/licenses", "/metrics", "/backups")
_FORMAT = re.compile(rb"(record|block)\x01.([a-z_]{3,20})\x01")  # as the store's first page spells its format


def look(path: str) -> Found | None:
    """The databases in the directory, or None. The files do not hold the server's version, only their own format."""
    databases = os.path.join(path, "databases")
    transactions = os.path.join(path, "transactions")
    if not os.path.isdir(databases) or not (os.path.isdir(transactions) or os.path.isdir(os.path.join(path, "dbms"))):
        return None
    found = Found(KIND, details={"databases": _directories(databases), "formats": {}})
    logs = _directories(transactions)
    for name in found.details["databases"]:
        found.details["formats"][name] = _format(os.path.join(databases, name, "neostore"))
        if name not in logs:
            found.damaged(f"database {name} has no transaction logs in transactions/{name}: it would not start.")
        elif not os.listdir(os.path.join(transactions, name)):
            found.damaged(f"database {name} has an empty transactions/{name}: it would not start.")
    for name in logs:
        if name not in found.details["databases"]:
            found.damaged(f"transactions/{name} belongs to a database that is not in databases/.")
    if found.details["databases"] and "system" not in found.details["databases"]:
        found.damaged("the database system is missing: users and the list of databases are lost.")
    return found


def data_paths(container: Container) -> list[str] | None:
    """Where this container keeps its data, or None if it is not Neo4j's."""
    environment = container.environment
    if container.image_name != "neo4j" and not {"NEO4J_AUTH", "NEO4J_EDITION", "NEO4J_SHA256"} & set(environment):
        return None
    return [container.path(environment.get("NEO4J_server_directories_data") or "/data")]


def _directories(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _format(file: str) -> str | None:
    try:
        with open(file, "rb", opener=plain) as stream:
            match = _FORMAT.search(stream.read(512))
    except OSError:
        return None
    return b"-".join(match.groups()).decode() if match else None
