# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store started on a copy of its data, in a throw-away container without network, until it answers or has failed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ..errors import StackError
from ..stores import neo4j, qdrant
from ..stores.container import Container
from . import ask
from .throwaway import Changes, Throwaway
from .volume_keys import StoreContainer

SERVERS = (qdrant.KIND, neo4j.KIND)
_POLL = 0.2  # seconds
_LINES = 5
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


def start(
    throwaway: Throwaway,
    store: StoreContainer,
    purpose: str,
    directory: str,
    space: str | None = None,
    binds: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Start a store on the copy in directory, without login and network, and return the throw-away's name.

    space is a directory for its logs, which wait_ready() reads when it fails; binds and environment come on top.
    """
    more = dict(binds or {})
    if space is not None and store.kind == neo4j.KIND:
        more[_log_path(store)] = _log_directory(space, store, directory)
    return throwaway.start(store.inspected, purpose, changes_for(store, directory, more, environment))


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


def wait_ready(
    throwaway: Throwaway, store: StoreContainer, name: str, deadline: float, space: str | None = None
) -> dict[str, Any]:
    """Wait until the store in the throw-away container name answers, and return that container inspected.

    deadline is a time.monotonic(), space that of start(). Raises StackError with the store's last log lines if it ends,
    does not answer in time, or says that its database is broken.
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
            break
        try:
            if _answers(store, inspected):
                return inspected
        except ask.UnansweredError:
            pass
        except _BrokenError as error:
            reason = str(error)
            break
        except ask.AnswerError as error:
            last = str(error).rstrip(".")
        if time.monotonic() > deadline:
            reason = f"{last} within {seconds:.0f} s"
            break
        time.sleep(_POLL)
    lines = _reasons(space, store) or throwaway.last_lines(name)
    raise StackError(f"The {store.kind} store does not recover from the copy of {store.key}: {reason}; {lines}")


def _log_path(store: StoreContainer) -> str:
    return Container.from_inspect(store.inspected).environment.get("NEO4J_server_directories_logs") or "/logs"


def _log_directory(space: str, store: StoreContainer, like: str) -> str:
    path = os.path.join(space, f"{store.key}.logs")
    os.mkdir(path, 0o700)
    about = os.stat(like)
    os.chown(path, about.st_uid, about.st_gid)
    return path


def _reasons(space: str | None, store: StoreContainer) -> str | None:
    """The errors at the end of Neo4j's debug.log, which its output lacks; None where there are none."""
    if space is None or store.kind != neo4j.KIND:
        return None
    try:
        with open(os.path.join(space, f"{store.key}.logs", "debug.log"), encoding="utf-8", errors="replace") as log:
            told = [line.strip() for line in log if line.startswith("Caused by:") or " ERROR " in line]
    except OSError:
        return None
    return "its last errors:\n" + "\n".join(f"  {line[:300]}" for line in told[-_LINES:]) if told else None


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
