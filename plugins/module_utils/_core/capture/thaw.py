# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the engine about a frozen container without waiting for a health check; let one run by what the journal knows.

A health check that is started as its container freezes is frozen with it. Until its timeout, which is 30 seconds if
nobody sets one, the engine neither inspects, updates nor resumes the container (seen with Docker 20.10). The kernel
does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from ..engine import Engine
from ..errors import StackError
from ..operation.beside import beside
from .guard import find_freezer
from .guard_process import Docker, resume, set_freezer

PATIENCE_S = 0.3  # for an unpause, which takes 0.02 to 0.05 s where nothing is in its way
BOOKKEEPING_S = 10.0
_Found = TypeVar("_Found")


def thawing(ask: Callable[[], _Found], container: Mapping[str, Any]) -> Future[_Found]:
    """What the engine answers, beside. If that is not there after PATIENCE_S, the container ({freezer}) is thawed."""
    answer = beside(ask)
    wait([answer], PATIENCE_S)
    if not answer.done():
        set_freezer(dict(container), "thaw")
    return answer


def look(engine: Engine, container: Mapping[str, Any]) -> dict[str, Any]:
    """Inspect a container of the journal ({id, freezer}); raises StackError. If the engine waits, it is thawed."""
    return thawing(lambda: engine.inspect_container(container["id"]), container).result()


def let_run(engine: Engine, container: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Resume it; state is the inspected one. Raises StackError if the engine goes on to call it paused."""
    try:
        thawing(lambda: engine.unpause(container["id"]), container).result()
    except StackError:  # its freezer was opened without the engine
        freezer = container.get("freezer") or find_freezer(state["Pid"], container["id"])
        stuck = {"id": container["id"], "started_at": state["StartedAt"], "freezer": freezer}
        if not resume(Docker(engine.docker_host[len("unix://") :]), stuck, BOOKKEEPING_S):
            raise
