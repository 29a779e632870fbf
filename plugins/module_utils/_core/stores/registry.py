# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stores that are known. A new one is a new file beside this and its name in STORES."""

from __future__ import annotations

import time

from . import files, neo4j, qdrant, sqlite
from .container import Container
from .found import DAMAGED, Found

STORES = (sqlite, qdrant, neo4j)
_PATIENCE = 0.5  # seconds: a server at work may have been caught between two steps
KINDS = (*(store.KIND for store in STORES), files.KIND)


def look(path: str) -> Found | None:
    """The store in a directory, or None if it is empty. Quick, read-only; raises OSError where it cannot be read."""
    try:
        found = _look_once(path)
    except FileNotFoundError:
        pass
    else:
        if found is None or found.health != DAMAGED:
            return found
    time.sleep(_PATIENCE)
    return _look_once(path)


def _look_once(path: str) -> Found | None:
    for store in STORES:
        found: Found | None = store.look(path)
        if found:
            return found
    return files.look(path)


def default_owner(kind: str | None) -> tuple[int, int] | None:
    """The uid and gid that the store's service needs its directory to have, or None if any will do."""
    return next((store.OWNER for store in STORES if kind == store.KIND), None)


def recognise(container: Container) -> tuple[str, list[str], tuple[str, ...]] | None:
    """The kind, the data paths and the other known mount points of a store's container, or None for any other."""
    for store in STORES:
        paths = store.data_paths(container)
        if paths is not None:
            return store.KIND, paths, store.EXTRA_PATHS
    return None
