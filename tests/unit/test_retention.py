# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention removes what the policy does not keep, and never what protects the data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep, to_remove
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def made(days_ago: float, *tags: str, project: str = "p") -> Snapshot:
    name = f"{days_ago}"
    return Snapshot(name, name, NOW - timedelta(days=days_ago), (f"project={project}", *tags), "h", ())


def removed(keep: Keep, *snapshots: Snapshot, now: datetime = NOW) -> list[str]:
    return [each.id for each in to_remove(snapshots, keep, now)]


DAILY = [made(days) for days in range(1, 11)]
QUICK, FULL = "verified=quick", "verified=full"


@pytest.mark.parametrize(
    ("keep", "snapshots", "expected"),
    [
        (Keep(), DAILY, []),
        (Keep(last=8), DAILY, ["10", "9"]),
        (Keep(last=-1), DAILY, []),
        (Keep(daily=9), DAILY, ["10"]),
        (Keep(within="3d"), DAILY, ["10", "9", "8", "7", "6", "5", "4"]),
        (Keep(within="49h"), DAILY, ["10", "9", "8", "7", "6", "5", "4"]),
        (Keep(last=1, within="8d"), DAILY, ["10", "9"]),
        # Two of one day count as one day; the newest of them stays.
        (Keep(daily=2), [made(1), made(1.01), made(2), made(3)], ["3", "1.01"]),
        (Keep(hourly=2), [made(0.01), made(0.02), made(1), made(3)], ["3", "0.02"]),
        (Keep(weekly=2), [made(0), made(1), made(8), made(15)], ["15", "1"]),
        (Keep(monthly=2), [made(0), made(20), made(40), made(80)], ["80", "20"]),
        (Keep(yearly=2), [made(0), made(300), made(400), made(800)], ["800", "300"]),
        # The oldest one stands in for the years that are not there yet.
        (Keep(yearly=3), [made(0), made(300), made(310)], ["300"]),
        # The newest verified, and the newest fully verified one, stay whatever the policy says.
        (
            Keep(last=1),
            [made(1), made(2), made(3, QUICK), made(4, QUICK), made(5, FULL), made(6, FULL)],
            ["6", "4", "2"],
        ),
        (Keep(last=2), [made(1, FULL), made(2, QUICK), made(3, QUICK)], ["3"]),
        # A safety snapshot takes no other's place, and stays for its own time.
        (Keep(last=2), [made(1, "safety"), made(2), made(3), made(4), made(8, "safety")], ["8", "4"]),
        (Keep(last=1), [made(0, "safety"), made(30, FULL), made(40)], ["40"]),
    ],
)
def test_what_is_removed(keep: Keep, snapshots: list[Snapshot], expected: list[str]) -> None:
    assert removed(keep, *snapshots) == expected
    assert removed(keep, *reversed(snapshots)) == expected


@pytest.mark.parametrize("keep", [Keep(last=3), Keep(daily=3), Keep(hourly=3), Keep(within="3d"), Keep(weekly=4)])
def test_days_without_a_backup_remove_nothing(keep: Keep) -> None:
    """The host was off for months: what would be kept on the day of the last backup is kept today."""
    assert removed(keep, *DAILY, now=NOW + timedelta(days=200)) == removed(keep, *DAILY)


def test_another_stack_is_never_touched() -> None:
    with pytest.raises(StackError, match="snapshots are of p, q"):
        removed(Keep(last=1), made(1), made(2, project="q"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"last": -2}, "keep.last is -2"),
        ({"within": "7 days"}, "keep.within is '7 days'"),
        ({"daily": "3"}, "keep.daily is '3'"),
    ],
)
def test_a_policy_that_makes_no_sense(values: dict[str, object], said: str) -> None:
    with pytest.raises(StackError, match=said):
        Keep(**values)


def test_months_and_years_go_by_the_calendar() -> None:
    newest = Snapshot("n", "n", datetime(2024, 4, 30, tzinfo=UTC), (), "h", ())
    inside = Snapshot("i", "i", datetime(2023, 3, 30, 1, tzinfo=UTC), (), "h", ())
    outside = Snapshot("o", "o", datetime(2023, 3, 29, tzinfo=UTC), (), "h", ())
    assert removed(Keep(within="1y1m"), newest, inside, outside) == ["o"]


def test_backups_of_some_volumes_push_none_of_all_out() -> None:
    some = [made(hours / 24, QUICK, "partial=openmemory_data") for hours in (1, 2, 3, 4)]
    whole = [made(1, QUICK), made(2), made(3)]
    assert removed(Keep(last=2), *some, *whole) == ["3", some[3].id, some[2].id]


@pytest.mark.parametrize("keep", [Keep(last=3), Keep(daily=3), Keep(within="3d"), Keep(yearly=2)])
def test_a_clock_that_was_wrong_for_a_night_pushes_nothing_out(keep: Keep) -> None:
    """Snapshots of the future are kept and not counted, however good they say they are."""
    ahead = [made(-1200 - days, FULL) for days in range(10)]
    assert removed(keep, *DAILY, *ahead) == removed(keep, *DAILY)
    assert set(removed(keep, *DAILY, *ahead, now=NOW + timedelta(days=3000))) >= {each.id for each in ahead[4:5]}


@pytest.mark.parametrize("keep", [Keep(within="7d"), Keep(last=3, within="7d")])
@pytest.mark.parametrize("days", [10, 40, 800])
def test_the_first_backup_after_a_gap_or_with_a_clock_that_is_ahead_empties_nothing(keep: Keep, days: int) -> None:
    """It knows of no other time than its own; the next one then says that it is of the future."""
    now = NOW + timedelta(days=days)
    safety = made(3, QUICK, "safety")
    assert removed(keep, *DAILY, safety, made(-days, FULL), now=now) == ["10", "9", "8"]
    again = made(-days - 1, FULL)
    then = now + timedelta(days=1)
    assert removed(keep, *DAILY, safety, made(-days, FULL), again, now=then) == ["10", "9", "8", "7"]
