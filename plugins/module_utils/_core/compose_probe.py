# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking a known server over HTTP whether it works, where its container has no health check of its own."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from .stores import neo4j, qdrant, sqlite
from .stores.container import Container
from .stores.registry import recognise

# Port inside the container and path. Qdrant's and Neo4j's need no password; OpenMemory's touches its database.
_QUESTIONS = {
    qdrant.KIND: (6333, "/readyz"),
    neo4j.KIND: (7474, "/"),
    sqlite.KIND: (8765, "/api/v1/config/"),
}
_SECONDS = 5.0


def probe(inspected: Mapping[str, Any], timeout: float = _SECONDS) -> str | None:
    """Why the known server in this container does not answer well; None if it does, or if it is not a known one."""
    known = recognise(Container.from_inspect(inspected))
    address = _address(inspected)
    if known is None or known[0] not in _QUESTIONS or address is None:
        return None
    port, path = _QUESTIONS[known[0]]
    url = f"http://{address}:{port}{path}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=timeout) as response:
            body = response.read(4096).decode("utf-8", "replace")
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors
        return f"{url} does not answer ({error})"
    # OpenMemory sends its failures with status 200
    return f"{url} answers {body.strip()[:200]}" if body.lstrip().startswith('{"error"') else None


def _address(inspected: Mapping[str, Any]) -> str | None:
    networks = inspected["NetworkSettings"].get("Networks") or {}
    if "host" in networks:
        return "127.0.0.1"
    return next((network["IPAddress"] for network in networks.values() if network.get("IPAddress")), None)
