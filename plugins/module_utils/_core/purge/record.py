# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a purge keeps what it has done, so that whoever comes next can undo it, or finish it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import StackError

KEY = "purge"  # in the journal
DONE = "purge.done"
SAVING = "saving"  # until here all can be taken back
REMOVING = "removing"  # from here on it can only be finished


@dataclass(frozen=True)
class Doomed:
    """A directory that goes. what tells people whose it is, volume is the Docker volume that it is the device of.

    trash is the name beside it that it is renamed to before anything in it goes; None where it is renamed to nothing:
    it is a mount point (stays), or a directory of ours that nobody starts a stack on.
    """

    path: str
    what: str
    volume: str | None = None
    trash: str | None = None
    stays: bool = False


@dataclass
class Record:
    """All that a purge removes, by names and ids that nothing made later has. stopped are {id, name}, in start order.

    files go with the directory that they are in, if that is empty then; empties only if they are empty.
    """

    stage: str = SAVING
    stopped: list[dict[str, str]] = field(default_factory=list)
    containers: list[dict[str, str]] = field(default_factory=list)
    networks: list[dict[str, str]] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    directories: list[Doomed] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    empties: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Record:
        """Raises StackError for a record that is damaged; it also holds what is done, which is not read here."""
        try:
            values = {name: found[name] for name in cls.__dataclass_fields__}
            values["directories"] = [Doomed(**each) for each in values["directories"]]
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise StackError(f"The journal's record of a purge is damaged ({error}); look at it.") from error
