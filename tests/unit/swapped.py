# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes in the middle of a restore, for tests of its way back."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.swap import Move, Record, Swap

ID = "20261125t021500-3fa9c1"
NAME = f".openmemory-restore-{ID}"


def swap_in(place: Path, name: str = NAME, fetched: bool = True) -> Swap:
    """A volume whose data is about to be swapped."""
    live, beside = place / "_data", place / name
    live.mkdir(parents=True)
    (live / "db").write_text("old")
    beside.mkdir()
    if fetched:
        (beside / "new").mkdir()
        (beside / "new/db").write_text("new")
    move = Move(str(live), str(beside / "new"), str(beside / "old"), True, True)
    return Swap(place.name, place.name, str(live), str(beside), [move])


def record_of(places: Places, *swaps: Swap, stage: str = "fetching", until: float = 2000.0) -> Record:
    return Record(ID, "5f0c", places.state, stage, list(swaps), beside=[swap.beside for swap in swaps], until=until)
