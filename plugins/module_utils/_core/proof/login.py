# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The login of a restored Neo4j: its data brings its own password, whatever the host's settings say."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..engine import Engine
from ..errors import StackError
from . import ask
from .throwaway import Ledger, Throwaway
from .trial import start, wait_ready
from .volume_keys import StoreContainer

USER = "neo4j"
_SAME = "cannot be the same"  # Neo4j refuses to set the password that it has


def login_problem(inspected: Mapping[str, Any]) -> str | None:
    """One sentence if the running, inspected Neo4j refuses the password of its container's settings, else None.

    Raises StackError if it does not run or does not answer.
    """
    graph = ask.neo4j(inspected)
    name = str(inspected["Name"]).lstrip("/")
    if graph is None:
        raise StackError(f"Neo4j in {name} does not run, so its login was not checked.")
    try:
        graph.run("SHOW DATABASES YIELD name", database="system")  # a user database may be down
    except ask.LoginError:
        return (
            f"Neo4j in {name} refuses the password of this host's settings: restored data keeps the password that it "
            "was backed up with. Set NEO4J_PASSWORD to that one, or restore with set_password: true."
        )
    return None


def set_password(
    engine: Engine,
    journal: Ledger | None,
    project: str,
    store: StoreContainer,
    directory: str,
    password: str,
    timeout: float = 300.0,
) -> None:
    """Give the user neo4j another password in the data directory of a Neo4j that does not run.

    A throw-away without network and login is started on directory itself, told the password over its loopback
    interface, and stopped cleanly. One that is set already is left. store is of volume_keys.stores_of; timeout is in
    seconds. Raises StackError.
    """
    with Throwaway(engine, journal, project) as throwaway:
        name = start(throwaway, store, "password", directory)
        graph = ask.neo4j(wait_ready(throwaway, store, name, time.monotonic() + timeout))
        if graph is None:
            raise StackError("Neo4j ended before its password was set.")
        statement = f"ALTER USER {USER} SET PASSWORD $password CHANGE NOT REQUIRED"
        try:
            graph.run(statement, {"password": password}, database="system")
        except ask.AnswerError as error:
            if _SAME not in str(error):
                raise
        throwaway.stop(name, 120)
