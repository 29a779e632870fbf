# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshots a policy removes: restic's rules, but never what protects the data.

restic's own dry run cannot do this: safety snapshots would take the places of regular ones in it, and it knows nothing
of verified ones. A test compares this with `restic forget --dry-run`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

from ..errors import StackError
from .snapshot import VERIFIED, Snapshot, of_the_future

_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)d)?(?:(\d+)h)?")
SAFETY_DAYS = 7


@dataclass(frozen=True)
class Keep:
    """How many of the newest, and of the newest of each hour, day, week, month and year, to keep; -1: all.

    within: all that are at most this much older than the newest one ("7d", "2m", "1y6m", "36h"). All unset keeps
    everything.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "within" and (not isinstance(value, int) or value < -1):
                raise StackError(f"keep.{each.name} is {value!r}: give a number of snapshots, or -1 for all of them.")
        if self.within and not (_DURATION.fullmatch(self.within) and self.within):
            raise StackError(f"keep.within is {self.within!r}: give a time such as 36h, 7d, 2m or 1y6m.")

    @property
    def is_empty(self) -> bool:
        return all(not getattr(self, each.name) for each in fields(self))


_Bucket = Callable[[datetime, int], object]
_BUCKETS: tuple[tuple[str, _Bucket], ...] = (
    ("last", lambda time, number: number),
    ("hourly", lambda time, number: (time.year, time.month, time.day, time.hour)),
    ("daily", lambda time, number: (time.year, time.month, time.day)),
    ("weekly", lambda time, number: tuple(time.isocalendar())[:2]),
    ("monthly", lambda time, number: (time.year, time.month)),
    ("yearly", lambda time, number: time.year),
)


def to_remove(
    snapshots: Sequence[Snapshot], keep: Keep, now: datetime, safety_days: int = SAFETY_DAYS
) -> list[Snapshot]:
    """The snapshots of one project that the policy does not keep, oldest first.

    It counts snapshots of all volumes, and those of each choice of some by themselves. Of each, never the newest, never
    the newest verified (quick or full) nor the newest fully verified one; never a safety snapshot younger than
    safety_days, and nothing at all where keep is empty. Counting goes by snapshots, not by the calendar, and within is
    measured from the newest one, without gaps that are longer: days without a backup remove nothing. One that says it
    is of the future is kept and not counted, or a clock that was wrong for a night would push all others out.
    StackError where snapshots are of several projects.
    """
    projects = sorted({each.project for each in snapshots})
    if len(projects) > 1:
        raise StackError(f"Retention is for one stack at a time, and these snapshots are of {', '.join(projects)}.")
    if keep.is_empty:
        return []
    ahead = {each.id for each in of_the_future(snapshots, now)}
    newest_first = sorted(
        (each for each in snapshots if each.id not in ahead), key=lambda each: each.time, reverse=True
    )
    regular = [each for each in newest_first if not each.is_safety]
    kept = set()
    for partial in {each.partial for each in regular}:  # some volumes never stand in for a backup of all
        group = [each for each in regular if each.partial == partial]
        kept |= {each.id for each in _kept_by_policy(group, keep)} | _protected(group)
    young = _last_known(newest_first, now, timedelta(days=safety_days)) - timedelta(days=safety_days)
    kept |= {each.id for each in newest_first if each.is_safety and each.time > young}
    return [each for each in reversed(newest_first) if each.id not in kept]


def _protected(newest_first: Sequence[Snapshot]) -> set[str]:
    rules: tuple[Callable[[Snapshot], bool], ...] = (
        lambda each: True,
        lambda each: each.verified in VERIFIED,
        lambda each: each.verified == "full",
    )
    found = (next((each for each in newest_first if rule(each)), None) for rule in rules)
    return {each.id for each in found if each}


def _kept_by_policy(newest_first: Sequence[Snapshot], keep: Keep) -> list[Snapshot]:
    kept = []
    left = {name: getattr(keep, name) for name, bucket in _BUCKETS}
    last: dict[str, object] = {}
    young = _young(newest_first, keep.within) if keep.within and newest_first else set()
    for number, each in enumerate(newest_first):
        wanted = each.id in young
        for name, bucket in _BUCKETS:
            if not left[name]:
                continue
            value = bucket(each.time, number)
            # The oldest one stands in for the period that is not full yet, as in newer restic.
            if name not in last or value != last[name] or number == len(newest_first) - 1:
                wanted = True
                last[name] = value
                left[name] -= left[name] > 0
        if wanted:
            kept.append(each)
    return kept


def _young(newest_first: Sequence[Snapshot], within: str) -> set[str]:
    """The ids of those within that time of the newest, where a longer gap between two does not count.

    Else the backups after a long one, or that of a night with a clock that is ahead, would empty the history.
    """
    left = span = newest_first[0].time - earlier(newest_first[0].time, within)
    found = {newest_first[0].id}
    for newer, each in zip(newest_first, newest_first[1:]):
        gap = newer.time - each.time
        left -= gap if gap < span else timedelta(0)
        if left <= timedelta(0):
            break
        found.add(each.id)
    return found


def _last_known(newest_first: Sequence[Snapshot], now: datetime, span: timedelta) -> datetime:
    """The moment to count a span of days from: now, or the snapshot before the newest where none came for that long."""
    if len(newest_first) > 1 and newest_first[1].time <= now - span:
        return newest_first[1].time
    return now


def earlier(time: datetime, duration: str) -> datetime:
    """The moment that is a duration such as 1y6m before another; StackError where it is none."""
    match = _DURATION.fullmatch(duration)
    if match is None:  # Keep has checked it
        raise StackError(f"keep.within is {duration!r}: give a time such as 36h, 7d, 2m or 1y6m.")
    years, months, days, hours = (int(part or 0) for part in match.groups())
    month = time.year * 12 + time.month - 1 - years * 12 - months
    first = time.replace(year=max(1, month // 12), month=month % 12 + 1, day=1)
    return first + timedelta(
        days=time.day - 1 - days, hours=-hours
    )  # the 31st of February is in March, as restic has it
