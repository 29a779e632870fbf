# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let a container run that an operation froze which has died since, by what the journal knows of it.

A health check that is started as its container freezes is frozen with it. Until its timeout, which is 30 seconds if
nobody sets one, the engine neither inspects, updates nor resumes the container (seen with Docker 20.10). The kernel
does.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import wait
from typing import Any

from ..engine import Engine
from ..errors import StackError
from ..operation.beside import beside
from .guard import find_freezer
from .guard_process import Docker, is_frozen, resume, set_freezer

_PATIENCE_S = 0.3
_BOOKKEEPING_S = 10.0


def look(engine: Engine, container: Mapping[str, Any]) -> dict[str, Any]:
    """Inspect a container of the journal ({id, freezer}); raises StackError. If the engine waits, it is thawed."""
    found = beside(lambda: engine.inspect_container(container["id"]))
    wait([found], _PATIENCE_S)
    if not found.done() and is_frozen(dict(container)):
        set_freezer(dict(container), "thaw")
    return found.result()


def let_run(engine: Engine, container: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Resume it; state is the inspected one. Raises StackError if the engine goes on to call it paused."""
    known = beside(lambda: engine.unpause(container["id"]))
    wait([known], _PATIENCE_S)
    if not known.done():
        set_freezer(dict(container), "thaw")
    try:
        known.result()
    except StackError:  # its freezer was opened without the engine
        freezer = container.get("freezer") or find_freezer(state["Pid"], container["id"])
        stuck = {"id": container["id"], "started_at": state["StartedAt"], "freezer": freezer}
        if not resume(Docker(engine.docker_host[len("unix://") :]), stuck, _BOOKKEEPING_S):
            raise
