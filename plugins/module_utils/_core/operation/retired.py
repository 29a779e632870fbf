# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mark of a stack that has been moved to another host, so that nobody starts its old data by mistake."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import StackError
from .durable_json import read_json, sync_directory, write_json
from .journal import Journal
from .places import Places

_MOVES = ("migrate", "handover", "arrival")


@dataclass
class Retirement:
    """target is the other host's name, address how it was reached; at is ISO, UTC.

    volumes are {key: {name, path, backing}} on the target; policies are the restart policies that the containers had.
    snapshot is its last one, where it was moved through a repository.
    """

    operation: str
    project: str
    target: str
    address: str
    at: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    volumes: dict[str, Any] = field(default_factory=dict)
    policies: dict[str, Any] = field(default_factory=dict)
    snapshot: str | None = None

    def write(self, places: Places) -> None:
        """Durably, 0600; one of the same migration stays as it is."""
        there = read_retirement(places)
        if there is None or there.operation != self.operation:
            write_json(places.retired, {"format": 1, **vars(self)})

    def remove(self, places: Places) -> None:
        """The stack is here again."""
        os.unlink(places.retired)
        sync_directory(os.path.dirname(places.retired))

    def as_result(self) -> dict[str, Any]:
        """For people and for modules."""
        told = {name: getattr(self, name) for name in ("project", "target", "address", "at", "operation", "snapshot")}
        return {"target": self.target, "retired": told, "volumes": self.volumes}


def read_retirement(places: Places) -> Retirement | None:
    """The mark of a stack, None where there is none. Raises StackError for one that is damaged."""
    found = read_json(places.retired)
    if found is None:
        return None
    try:
        return Retirement(**{name: value for name, value in found.items() if name != "format"})
    except (TypeError, AttributeError) as error:
        raise StackError(
            f"{places.retired}, which says that this stack has been moved, is damaged; see where it runs, and remove "
            "the file if that is here."
        ) from error


def refuse_moving(places: Places) -> None:
    """Raise StackError where a migration from here or to here is not over: nothing may start meanwhile."""
    journal = Journal.load(places)
    if journal is not None and journal.data["operation"] in _MOVES:
        raise StackError(
            f"A migration of the stack {places.project} is under way, or has died in the phase "
            f"{journal.data.get('phase')}; wait for it, or run openmemory-stack recover, which finishes or undoes it."
        )


def refuse_retired(places: Places) -> None:
    """Raise StackError where the stack has been moved away: what is here is old."""
    found = read_retirement(places)
    if found is not None:
        raise StackError(
            f"The stack {found.project} was moved from this host to {found.target} on {found.at}, and what is here is "
            "old; use it there. To have it run here after all, see that it does not run there, and run stack_migrate "
            "with state: returned."
        )
