# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All that is known about the volumes that are meant: what volume_info returns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .engine import Engine
from .errors import NotFoundError
from .inspection import describe
from .placement import find_misplaced
from .selection import select
from .state import State


def report_volumes(
    engine: Engine,
    names: Sequence[str] | None = None,
    compose_project: str | None = None,
    labels: Sequence[str] | None = None,
    size_timeout: float | None = None,
) -> dict[str, Any]:
    """{volumes, missing}: the volumes that fit every filter, and the names that Docker does not have.

    size_timeout is how many seconds measuring may take in all; None leaves sizes out. Two API calls, and one for each
    container that uses a volume of the answer.
    """
    state = State(engine)
    deadline = None if size_timeout is None else time.monotonic() + size_timeout
    volumes = []
    inspected: dict[str, dict[str, Any] | None] = {}
    for name in select(state.volumes, names, compose_project, labels, state.users):
        entry = describe(state.volumes[name], state, size_deadline=deadline)
        users = [container["id"] for container in entry["containers"]]
        for user in users:
            if user not in inspected:
                inspected[user] = _inspect(engine, user)
        found = [find_misplaced(name, about) for about in map(inspected.get, users) if about]
        entry["orphaned"] = not users
        entry["misplaced"] = [one for one in found if one]
        volumes.append(entry)
    return {"volumes": volumes, "missing": sorted(set(names or []) - set(state.volumes))}


def _inspect(engine: Engine, container: str) -> dict[str, Any] | None:
    try:
        return engine.inspect_container(container)
    except NotFoundError:  # gone since the list was made
        return None
