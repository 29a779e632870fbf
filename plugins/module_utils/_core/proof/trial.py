# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store started on a copy of its data, in a throw-away container without network, until it answers or has failed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..errors import StackError
from ..stores import neo4j, qdrant
from . import ask
from .throwaway import Changes, Throwaway
from .volume_keys import StoreContainer

SERVERS = (qdrant.KIND, neo4j.KIND)
_POLL = 0.2  # seconds
_QDRANT_DROP = (
    "QDRANT__SERVICE__API_KEY",
    "QDRANT__SERVICE__READ_ONLY_API_KEY",
    "QDRANT__SERVICE__ALT_API_KEY",
    "QDRANT__SERVICE__JWT_RBAC",
)
_QDRANT_SET = {"QDRANT__SERVICE__ENABLE_TLS": "false"}
# Plugins are fetched at the start, and certificates lie in volumes that a throw-away does not have.
_NEO4J_DROP = ("NEO4J_PLUGINS", "NEO4JLABS_PLUGINS", "NEO4J_AUTH_PATH")
_NEO4J_DROP_PREFIXES = ("NEO4J_dbms_ssl_", "NEO4J_server_https_", "NEO4J_server_bolt_tls")
_NEO4J_SET = {"NEO4J_AUTH": "none", "NEO4J_server_config_strict__validation_enabled": "false"}
_BAD_STATES = ("offline", "quarantined", "dirty", "unknown")


def changes_for(
    store: StoreContainer,
    directory: str,
    binds: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Changes:
    """How a throw-away of a store differs from its container: the copy in directory as its data, and no login."""
    names = [line.partition("=")[0] for line in store.inspected["Config"].get("Env") or []]
    if store.kind == qdrant.KIND:
        drop, more = list(_QDRANT_DROP), dict(_QDRANT_SET)
    else:
        drop = [*_NEO4J_DROP, *(name for name in names if name.startswith(_NEO4J_DROP_PREFIXES))]
        more = dict(_NEO4J_SET)
    return Changes({store.destination: directory, **(binds or {})}, {**more, **(environment or {})}, drop)


def wait_ready(throwaway: Throwaway, store: StoreContainer, name: str, deadline: float) -> dict[str, Any]:
    """Wait until the store in the throw-away container name answers, and return that container inspected.

    deadline is a time.monotonic(). Raises StackError with the store's last log lines if it ends or does not answer.
    """
    begun = time.monotonic()
    last = "it did not answer"
    while True:
        inspected = throwaway.inspect(name)
        state = inspected["State"]
        seconds = time.monotonic() - begun
        if not state["Running"]:
            reason = f"it ended with code {state['ExitCode']} after {seconds:.0f} s"
            if state.get("OOMKilled"):
                reason += ", killed because it reached its memory limit"
            raise StackError(_failed(store, reason, throwaway.last_lines(name)))
        try:
            if _answers(store, inspected):
                return inspected
        except ask.UnansweredError:
            pass
        except _BrokenError as error:
            raise StackError(_failed(store, str(error), throwaway.last_lines(name))) from error
        except ask.AnswerError as error:
            last = str(error).rstrip(".")
        if time.monotonic() > deadline:
            raise StackError(_failed(store, f"{last} within {seconds:.0f} s", throwaway.last_lines(name)))
        time.sleep(_POLL)


class _BrokenError(Exception):
    """The server runs and says that its data does not."""


def _answers(store: StoreContainer, inspected: Mapping[str, Any]) -> bool:
    if store.kind == qdrant.KIND:
        service = ask.qdrant(inspected)
        if service is None:
            return False
        status, _text = service.exchange("GET", "/readyz", timeout=5)
        if status == 404:  # before Qdrant 1.3
            status, _text = service.exchange("GET", "/collections", timeout=5)
        return status == 200
    graph = ask.neo4j(inspected)
    if graph is None:
        return False
    database = ask.neo4j_database(inspected)
    try:
        graph.run("RETURN 1", database=database, timeout=5)
    except ask.AnswerError:
        shown = graph.run(
            "SHOW DATABASES YIELD name, currentStatus, statusMessage WHERE name = $name "
            "RETURN currentStatus, statusMessage",
            {"name": database},
            database="system",
            timeout=5,
        )
        for status, message in shown:
            if status in _BAD_STATES or message:
                raise _BrokenError(f"its database {database} is {status} ({' '.join(str(message).split())})") from None
        raise
    return True


def _failed(store: StoreContainer, reason: str, lines: str) -> str:
    return f"The {store.kind} store does not recover from the copy of {store.key}: {reason}; {lines}"
