# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots go from a repository that hosts only add to: by when they arrived, not by what they say of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from ..errors import StackError
from ..repository.retention import Keep, earlier, to_remove
from ..repository.snapshot import AHEAD, VERIFIED, Snapshot


def to_prune(
    snapshots: Sequence[Snapshot], arrived: Mapping[str, datetime], keep: Keep, now: datetime
) -> list[Snapshot]:
    """Those that go, of any number of projects and hosts, oldest first.

    For each project, host and choice of volumes: all that arrived within keep.within of the newest arrival stay, and of
    those before the newest and the newest verified one, so that whatever comes, the last good one stays for that long
    after it. What the other rules of keep hold stays as well; they can only add, as a host could fill their places.
    StackError without keep.within.
    """
    if not keep.within:
        raise StackError(
            "keep has no within; give a time such as 90d: counting snapshots is no protection where a host can add as "
            "many as it likes."
        )
    going: list[Snapshot] = []
    for key in {_group(each) for each in snapshots}:
        group = [each for each in snapshots if _group(each) == key]
        newest_first = sorted(group, key=lambda each: (arrived[each.id], each.time), reverse=True)
        window = earlier(min(now, arrived[newest_first[0].id]), keep.within)
        before = [each for each in newest_first if arrived[each.id] <= window]
        kept = {each.id for each in newest_first if arrived[each.id] > window}
        kept |= {each.id for each in before[:1]}
        kept |= {each.id for each in [each for each in before if each.verified in VERIFIED][:1]}
        kept |= _kept_by_others(group, arrived, keep, now)
        going += [each for each in before if each.id not in kept]
    return sorted(going, key=lambda each: arrived[each.id])


def false_times(snapshots: Sequence[Snapshot], arrived: Mapping[str, datetime]) -> list[Snapshot]:
    """Those that say they were made after they had arrived."""
    return [each for each in snapshots if each.time > arrived[each.id] + AHEAD]


def _group(snapshot: Snapshot) -> tuple[str, str, str, bool]:
    return snapshot.project, snapshot.hostname, snapshot.partial, snapshot.is_safety


def _kept_by_others(group: Sequence[Snapshot], arrived: Mapping[str, datetime], keep: Keep, now: datetime) -> set[str]:
    others = replace(keep, within="")
    if others.is_empty:
        return set()
    honest = [replace(each, time=min(each.time, arrived[each.id])) for each in group]
    gone = {each.id for each in to_remove(honest, others, now, safety_days=0)}
    return {each.id for each in group} - gone
