# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which versions a store has to run on its way to another one, and which ways there are not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..proof.gate import CHECKPOINT, NAMES, Version, older, parsed
from ..stores import neo4j, qdrant, sqlite

_TAG = re.compile(r"(v?)\d+(?:\.\d+)*(.*)")
_PREFIX = {qdrant.KIND: "v"}  # of tags of the official image, where the wanted tag does not show it
_GUIDE = {
    qdrant.KIND: "follow Qdrant's upgrade guide by hand",
    neo4j.KIND: "follow Neo4j's migration guide by hand (neo4j-admin database migrate)",
}


@dataclass(frozen=True)
class Way:
    """From one version to another. steps are those to run in between, in order; problem says why there is no way.

    A problem may come with steps: what has to be done by hand.
    """

    steps: Sequence[str] = ()
    problem: str | None = None


def way_between(kind: str | None, now: str | None, wanted: str | None) -> Way:
    """The way of a store between two versions as texts; one that is not known cannot be judged and is a plain way."""
    old, new = parsed(now), parsed(wanted)
    if kind not in NAMES or old is None or new is None:
        return Way()
    if older(new, old):
        return Way(problem=f"{NAMES[str(kind)]} {now} runs, and its data is not taken back to {wanted}")
    if kind == sqlite.KIND:
        return Way()
    return _qdrant(old, new) if kind == qdrant.KIND else _neo4j(old, new)


def _qdrant(old: Version, new: Version) -> Way:
    """Its storage is upgraded one minor version at a time."""
    if old[0] != new[0]:
        return Way(problem=f"that is another major version; {_GUIDE[qdrant.KIND]}")
    if len(old) < 2 or len(new) < 2:
        return Way()
    return Way([f"{old[0]}.{minor}" for minor in range(old[1] + 1, new[1])])


def _neo4j(old: Version, new: Version) -> Way:
    """Any 5.x to any later one; 5.26 is a checkpoint before all that came after 5.x; 4.4 is migrated, not upgraded."""
    checkpoint = ".".join(map(str, CHECKPOINT))
    if old[0] < 5:
        if new[0] == old[0]:
            return Way()
        before = [] if old[:2] == (4, 4) else ["4.4"]
        after = [checkpoint] if new[:2] != CHECKPOINT else []
        return Way([*before, *after], f"databases of {old[0]}.x are migrated to {checkpoint}; {_GUIDE[neo4j.KIND]}")
    if old[0] == 5 and new[0] > 5 and len(old) > 1 and old[:2] < CHECKPOINT:
        return Way([checkpoint])
    return Way()


def step_references(kind: str, wanted: str, step: str) -> list[str]:
    """The references that the image of a step may have: as the wanted one, with the version in its tag exchanged.

    The tag of the minor version comes first, as it means its last patch where a registry has it.
    """
    plain = wanted.partition("@")[0]
    place, slash, last = plain.rpartition("/")
    name, _colon, tag = last.partition(":")
    match = _TAG.fullmatch(tag)
    prefix, suffix = match.groups() if match else (_PREFIX.get(kind, ""), "")
    return [f"{place}{slash}{name}:{prefix}{version}{suffix}" for version in (step, f"{step}.0")]
