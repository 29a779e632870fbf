# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When each snapshot of a repository was first seen from here: the only times that a broken-in host cannot choose."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..errors import StackError
from ..operation.durable_json import read_json, write_json
from ..repository.snapshot import AHEAD, Snapshot


@dataclass
class Arrivals:
    """One repository's record, in a file of this machine. last: when it was written; None for a new one."""

    path: str
    seen: dict[str, datetime] = field(default_factory=dict)
    last: datetime | None = None

    @classmethod
    def of(cls, state_dir: str, identity: str) -> Arrivals:
        """Of the repository with that id; StackError where the record is damaged."""
        path = os.path.join(state_dir, "prune", f"{identity}.json")
        found: Mapping[str, Any] = read_json(path) or {}
        try:
            seen = {each: datetime.fromisoformat(time) for each, time in dict(found.get("seen") or {}).items()}
            last = datetime.fromisoformat(found["last"]) if found.get("last") else None
        except (TypeError, ValueError) as error:
            raise StackError(
                f"{path} is damaged ({error}); look at it, and remove it to start anew: the times that the snapshots "
                "say are then believed once."
            ) from error
        return cls(path, seen, last)

    def meet(self, snapshots: Sequence[Snapshot], now: datetime) -> None:
        """Note those that are new here, and forget those that are gone.

        The first time of all nobody knows better than the snapshots themselves, but none is of the future.
        """
        if self.last is not None and now < self.last - AHEAD:
            raise StackError(
                f"The clock of this machine says {now:%Y-%m-%d %H:%M} UTC, and the last run was at "
                f"{self.last:%Y-%m-%d %H:%M} UTC; nothing was removed. Set the clock."
            )
        first = self.last is None
        self.seen = {each.id: self.seen.get(each.id, min(each.time, now) if first else now) for each in snapshots}

    def write(self, now: datetime) -> None:
        """Keep the record. StackError where the disk refuses."""
        self.last = now
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(f"{error.filename} cannot be made ({error.strerror}).") from error
        seen = {each: time.isoformat() for each, time in self.seen.items()}
        write_json(self.path, {"last": now.isoformat(), "seen": seen})
