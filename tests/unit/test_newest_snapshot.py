# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshot is the newest, and which a time names: of this host's own, as a restore chooses them."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.snapshots import snapshots_info
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.choosing import choose
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import (
    Repository,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot, iso

HERE, NOW = socket.gethostname(), datetime.now(UTC)


def age_s(hours: int) -> Any:
    """NOW may be minutes ago where many tests run before these."""
    return pytest.approx(hours * 3600 + (datetime.now(UTC) - NOW).total_seconds(), abs=60)


def snapshot(hours: int, host: str, *tags: str) -> Snapshot:
    identity = f"{hours % 2**32:08x}{'0' * 56}"
    time = NOW - timedelta(hours=hours)
    return Snapshot(identity, identity[:8], time, ("openmemory-stack", "project=p", *tags), host, ())


class Shared(Repository):
    def __init__(self, *there: Snapshot):
        super().__init__(Restic("/nowhere", "/password"))
        self.there = sorted(there, key=lambda each: each.time)

    def snapshots(self, project: str | None = None, tags: Any = ()) -> list[Snapshot]:
        return list(self.there)


@pytest.mark.parametrize(
    ("there", "hours"),
    [
        ([snapshot(50, HERE), snapshot(1, "other")], 50),  # another host's timer does not hide that ours has stopped
        ([snapshot(50, HERE), snapshot(1, HERE, "safety")], 50),
        ([snapshot(50, HERE), snapshot(1, HERE, "partial=a")], 50),
        ([snapshot(50, HERE, "partial=a"), snapshot(1, "other")], 50),
        ([snapshot(1, HERE, "safety"), snapshot(9, "other")], 9),  # as on a host that the stack moves to
        ([snapshot(9, "other"), snapshot(3, "third")], 3),
    ],
)
def test_the_newest_is_the_one_that_latest_is(there: list[Snapshot], hours: int) -> None:
    found = snapshots_info(Shared(*there), None, "p", newest_only=True, manifests=False)
    assert found["newest_age_s"] == age_s(hours)
    assert [each["id"] for each in found["snapshots"]] == [choose(Shared(*there).there, "latest", "p", "/", HERE).id]


def test_of_the_host_that_is_asked_for() -> None:
    there = Shared(snapshot(50, HERE), snapshot(1, "other"))
    found = snapshots_info(there, None, "p", manifests=False, host="other")
    assert found["newest_age_s"] == age_s(1)
    assert snapshots_info(there, None, "p", manifests=False, host="third")["newest_age_s"] is None


def test_a_time_as_it_is_listed_names_its_own_snapshot() -> None:
    """Times are shown in whole seconds, and snapshots are made between them."""
    there = [replace(each, time=each.time.replace(microsecond=700)) for each in (snapshot(9, HERE), snapshot(5, HERE))]
    assert choose(there, iso(there[0].time), "p", "/", HERE) == there[0]
    assert choose(there, iso(there[1].time), "p", "/", HERE) == there[1]


def test_one_of_the_future_hides_no_other_and_is_not_chosen_silently() -> None:
    there = [snapshot(50, HERE, "before"), snapshot(1, HERE), snapshot(-48, HERE, "before")]
    assert snapshots_info(Shared(*there), None, "p", manifests=False)["newest_age_s"] == age_s(1)
    for text in ("latest", "tag:before"):
        with pytest.raises(StackError, match=r"says that it is of .*, and it is .*: set the clock of this host right"):
            choose(there, text, "p", "/", HERE)
    assert choose(there, there[1].id, "p", "/", HERE) == there[1]
    assert choose(there[2:], "latest", "p", "/", HERE) == there[2]  # this host's clock alone may be wrong
