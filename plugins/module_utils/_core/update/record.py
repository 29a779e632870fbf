# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an update writes into the journal, so that whoever comes next can undo or finish it and needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import StackError
from ..restore.swap import Swap

KEY = "update"  # in the journal
PREPARING = "preparing"  # the old containers are there, running or stopped
REPLACING = "replacing"  # new ones may be there, and may have written
ACCEPTED = "accepted"
TAKEN_BACK = "taken back"


@dataclass
class Record:
    """One update under way.

    tags are {reference: id of the image that it meant before the pull}; names are {reference: id of the image that a
    container of before was made from by it} where it meant another one by then; recipes the containers of before; swaps
    lead from the live data back to the copies beside it; beside are our directories. touched is {volume's key: kind of
    its store} where a newer image wrote. files is {path: name of its copy in saved, None: there was no such file}.
    lost: the new side does not hold all that was there. back says whether the
    copies were swapped in, None as long as that is not decided. until is when a copy that is kept may go (seconds since
    1970), 0 for at once.
    """

    id: str
    state: str
    stage: str = PREPARING
    tags: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    recipes: list[dict[str, Any]] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    touched: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | None] = field(default_factory=dict)
    saved: str = ""
    lost: bool = False
    back: bool | None = None
    until: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "swaps": [swap.as_json() for swap in self.swaps]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Record:
        """From as_json; raises StackError for what is no record."""
        try:
            return cls(**{**found, "swaps": [Swap.from_json(swap) for swap in found["swaps"]]})
        except (KeyError, TypeError) as error:
            raise StackError(f"The record of an update is damaged ({error}); look at it before you go on.") from error
