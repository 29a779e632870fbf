# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host that was broken into can make go from a repository that it only adds to: nothing that is good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.prune.arrivals import Arrivals
from ansible_collections.openmemory.stack.plugins.module_utils._core.prune.choice import false_times, to_prune
from ansible_collections.openmemory.stack.plugins.module_utils._core.prune.prune import PruneRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep, to_remove
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
KEEP = Keep(within="30d")


def made(name: str, days_ago: float, *tags: str, host: str = "h") -> Snapshot:
    return Snapshot(name, name, NOW - timedelta(days=days_ago), ("project=p", *tags), host, ())


def going(
    snapshots: list[Snapshot], arrived_days_ago: dict[str, float], keep: Keep = KEEP, later: float = 0
) -> list[str]:
    """The names of those that go, so many days after NOW; a time of arrival that is not given is the stated one."""
    arrived = {each.id: NOW - timedelta(days=arrived_days_ago.get(each.id, 0)) for each in snapshots}
    arrived |= {each.id: each.time for each in snapshots if each.id not in arrived_days_ago}
    return [each.id for each in to_prune(snapshots, arrived, keep, NOW + timedelta(days=later))]


GOOD = [made(f"good{days}", days) for days in range(1, 61)]
OLD = [f"good{days}" for days in range(60, 31, -1)]  # those within 30 days of the newest stay, and the newest before


def test_what_is_older_goes_and_the_last_before_stays() -> None:
    assert going(GOOD, {}) == OLD
    assert going(list(reversed(GOOD)), {}) == OLD


def test_days_without_a_backup_remove_nothing() -> None:
    assert going(GOOD, {}, later=400) == going(GOOD, {})


@pytest.mark.parametrize("days_ago", [-36500, -400, -1, 0, 15, 45, 400, 20000])
@pytest.mark.parametrize("number", [1, 500])
def test_false_times_make_nothing_go(days_ago: float, number: int) -> None:
    """They arrived today, whatever they say, in any number, and claim to be the best of all."""
    false = [made(f"false{each}", days_ago - each / 1000, "verified=full") for each in range(number)]
    arrivals = {each.id: 0.0 for each in false}
    for keep in (KEEP, Keep(within="30d", last=3, daily=7, monthly=12, yearly=3)):
        honest = going([*GOOD, made("honest", 0)], {}, Keep(within="30d"))  # what goes where all is well
        assert set(going([*GOOD, *false], arrivals, keep)) <= set(honest)


def test_counting_would_have_removed_all() -> None:
    """So the test above is worth something."""
    false = [made(f"false{each}", each / 1000, "verified=full") for each in range(5)]
    assert {each.id for each in GOOD} <= {each.id for each in to_remove([*GOOD, *false], Keep(last=5), NOW)}


def test_the_last_good_one_stays_for_the_whole_time_after_what_follows_it() -> None:
    """The host was silent for a year, and then somebody adds worthless snapshots every day."""
    good = [made("good", 400), made("better", 390, "verified=quick")]
    false = [made(f"false{day}", -day, "verified=full") for day in range(30)]
    assert going([*good, *false[:1]], {}) == ["good"]
    assert going([*good, *false], {}, later=29) == ["good"]
    assert going([*good, *false, made("false30", -30)], {}, later=30) == ["good", "better"]


def test_each_host_and_stack_goes_by_itself() -> None:
    """A host cannot make another's go."""
    mine = [made("mine1", 100), made("mine2", 90)]
    others = [made("other1", 100, host="o"), made("other2", 1, host="o")]
    assert going([*mine, *others], {}) == []
    assert going([*mine, *others, made("other0", 0, host="o")], {}) == []


def test_other_rules_only_add() -> None:
    assert set(going(GOOD, {}, Keep(within="30d", daily=40))) == set(OLD) - {f"good{days}" for days in range(1, 41)}


def test_within_is_needed() -> None:
    with pytest.raises(StackError, match="keep has no within"):
        to_prune([], {}, Keep(last=3), NOW)


def test_what_says_it_was_made_after_it_came_is_told() -> None:
    snapshots = [made("good", 1), made("false", -3)]
    assert [each.id for each in false_times(snapshots, {each.id: NOW for each in snapshots})] == ["false"]


def test_arrivals(tmp_path: Path) -> None:
    record = Arrivals.of(str(tmp_path), "repo")
    record.meet([made("old", 50), made("future", -50)], NOW)
    assert record.seen == {"old": NOW - timedelta(days=50), "future": NOW}  # the first time they are believed
    record.write(NOW)
    later = NOW + timedelta(days=1)
    record = Arrivals.of(str(tmp_path), "repo")
    record.meet([made("old", 50), made("late", 40)], later)
    assert record.seen == {"old": NOW - timedelta(days=50), "late": later}  # and not again
    assert oct((tmp_path / "prune" / "repo.json").stat().st_mode)[-3:] == "600"


def test_a_clock_that_went_back_removes_nothing(tmp_path: Path) -> None:
    record = Arrivals.of(str(tmp_path), "repo")
    record.write(NOW)
    with pytest.raises(StackError, match="The clock of this machine says"):
        Arrivals.of(str(tmp_path), "repo").meet([], NOW - timedelta(days=1))


def test_a_record_that_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "prune").mkdir()
    (tmp_path / "prune" / "repo.json").write_text('{"last": "yesterday"}')
    with pytest.raises(StackError, match="is damaged"):
        Arrivals.of(str(tmp_path), "repo")


REQUESTS: list[tuple[Callable[[], PruneRequest], str]] = [
    (lambda: PruneRequest("rest:http://me:pw@host/x", "/p", KEEP), "has a password in its URL"),
    (lambda: PruneRequest("/r", "p", KEEP), "password_file is p, which is not an absolute path"),
    (lambda: PruneRequest("/r", "/p", KEEP, check_repository="all"), "check_repository is 'all'"),
    (lambda: PruneRequest("/r", "/p", Keep(last=1)), "keep has no within"),
]


@pytest.mark.parametrize(("request_", "said"), REQUESTS)
def test_bad_input_is_one_sentence(request_: Callable[[], PruneRequest], said: str) -> None:
    with pytest.raises(StackError, match=said):
        request_().check()
