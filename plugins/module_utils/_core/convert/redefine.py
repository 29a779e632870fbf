# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One volume's change of definition with its data moved, and the way back, by what is on disk and in the engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..restore.swap import Swap
from ..sizes import is_empty
from ..volumes import is_bind


@dataclass(frozen=True)
class Definition:
    """What Docker is told of a volume."""

    driver: str
    driver_opts: Mapping[str, str]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, volume: Mapping[str, Any]) -> Definition:
        """Of a volume as the engine tells it."""
        return cls(volume["Driver"], dict(volume.get("Options") or {}), dict(volume.get("Labels") or {}))

    @property
    def is_path(self) -> bool:
        return is_bind(self.driver, self.driver_opts)


@dataclass(frozen=True)
class Redefinition:
    """before and after are the volume's definitions; out takes its old data aside, into brings the new data in.

    No container may refer to the volume, and none may run on the data, while any of this is done.
    """

    volume: str
    before: Definition
    after: Definition
    out: Swap
    into: Swap

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Redefinition:
        """From as_json; raises StackError for what is none."""
        try:
            definitions = Definition(**found["before"]), Definition(**found["after"])
            return cls(found["volume"], *definitions, Swap.from_json(found["out"]), Swap.from_json(found["into"]))
        except (KeyError, TypeError) as error:
            raise StackError(
                f"The record of a conversion is damaged ({error}); look at it before you go on."
            ) from error

    def forward(self, engine: Engine) -> None:
        """Give the volume its new definition and data. Raises StackError at the first step that fails."""
        self.out.forward()
        self._define(engine, self.after)
        self.into.forward()

    def back(self, engine: Engine) -> None:
        """Give it the old ones again, from whatever point was reached; the new data is beside again. Idempotent."""
        if os.path.isdir(os.path.dirname(self.into.root)):  # else somebody has removed the managed volume
            self.into.back()
        self._define(engine, self.before)
        self.out.back()

    def _define(self, engine: Engine, wanted: Definition) -> None:
        try:
            found = engine.inspect_volume(self.volume)
        except NotFoundError:
            pass
        else:
            if Definition.of(found) == wanted:
                return
            if not Definition.of(found).is_path:
                self._refuse_data(found["Mountpoint"])
            engine.remove_volume(self.volume)
        made = engine.create_volume(self.volume, wanted.driver, dict(wanted.driver_opts), dict(wanted.labels))
        if Definition.of(made) != wanted:  # the engine gives back one that is there as if it had made it
            raise StackError(f"The volume {self.volume} was made by somebody else meanwhile; remove what made it.")

    def _refuse_data(self, place: str) -> None:
        """Docker removes all that is in the directory of a managed volume: what is not ours by then must not go."""
        directory = os.path.dirname(place)
        names = set(os.listdir(directory)) - {os.path.basename(place), "opts.json"} if os.path.isdir(directory) else ()
        if names or (os.path.isdir(place) and not is_empty(place)):
            raise StackError(
                f"{directory} holds data that this conversion did not put there, and removing the volume {self.volume} "
                "would remove it; move it elsewhere, then run openmemory-stack recover."
            )


@dataclass
class Record:
    """What a conversion writes into the journal under "convert", so that undo() needs nothing else.

    stage: copying, swapping, started, accepted, taken back. recipes are the containers that refer to the volumes;
    beside are our directories, made ones that were not there before. until: see restore.swap.Record.
    """

    id: str
    state: str
    stage: str = "copying"
    recipes: list[dict[str, Any]] = field(default_factory=list)
    redefinitions: list[dict[str, Any]] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    until: float = 0.0
    lived: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Record:
        try:
            return cls(**found)
        except TypeError as error:
            raise StackError(
                f"The record of a conversion is damaged ({error}); look at it before you go on."
            ) from error

    def changes(self) -> Sequence[Redefinition]:
        return [Redefinition.from_json(one) for one in self.redefinitions]
