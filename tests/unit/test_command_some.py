# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the command says of snapshots of some volumes, of times, of what it may not read, and of force."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import show, verbs
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.settings import Settings, UsageError, load
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.choosing import choose
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import restore as restore_core

SNAPSHOT = Snapshot("5f0c" * 16, "5f0c5f0c", datetime(2026, 11, 25, 2, 15, tzinfo=UTC), ("project=om",), "host", ())


def made(number: int, *tags: str) -> Snapshot:
    time_of = SNAPSHOT.time.replace(hour=number)
    short = f"{number:08x}"
    return replace(SNAPSHOT, id=short * 8, short_id=short, time=time_of, tags=("project=p", *tags))


@pytest.mark.parametrize(
    ("volumes", "number"),
    [
        (("qdrant_storage",), 5),
        (("p_qdrant_storage",), 5),
        (("qdrant_storage", "neo4j_data"), 3),
        (("neo4j_data",), 6),
        (("q_qdrant_storage",), 3),
    ],
)
def test_of_some_volumes_a_newer_snapshot_of_these_is_the_latest(volumes: tuple[str, ...], number: int) -> None:
    some = [made(5, "partial=openmemory_data+qdrant_storage"), made(6, "partial=neo4j_data")]
    for text in ("latest", "2027-01-01"):
        found = choose([made(3), *some], text, "p", "/r", volumes=volumes)
        assert int(found.short_id, 16) == number
    tagged = [replace(each, tags=(*each.tags, "nightly")) for each in (made(3), *some)]  # as the settings may ask for
    assert int(choose(tagged, "tag:nightly", "p", "/r", volumes=volumes).short_id, 16) == number
    assert choose(tagged, "tag:nightly", "p", "/r") == tagged[0]


def test_what_the_settings_name_is_the_latest_and_holds_no_more() -> None:
    there = [made(3), made(5, "volumes=openmemory_data+neo4j_data")]
    assert choose(there, "latest", "p", "/r") == there[1]
    assert choose(there, "latest", "p", "/r", volumes=["p_neo4j_data"]) == there[1]
    assert choose(there, "latest", "p", "/r", volumes=["qdrant_storage"]) == there[0]
    assert there[1].user_tags == ()


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_time_that_is_shown_is_the_one_to_ask_for(tokyo: None) -> None:
    assert SNAPSHOT.local_time == "2026-11-25 11:15:00"
    earlier = replace(SNAPSHOT, id="1" * 64, time=datetime(2026, 11, 25, 2, 14, 59, tzinfo=UTC))
    assert choose([earlier, SNAPSHOT], SNAPSHOT.local_time, "om", "/r") == SNAPSHOT


def test_the_list_says_what_a_snapshot_of_some_volumes_lacks() -> None:
    manifest = {"freeze_s": 0.2, "volumes": {"a": {"census": {"tables": {"x": 2}}}, "b": {"census": None}}}
    found = {
        "snapshots": [{**replace(SNAPSHOT, tags=("partial=a+b",)).as_result(), "manifest": manifest}],
        "repository": {"location": "/repo", "size_bytes": 2048},
    }
    assert show.snapshots("om", found, 1).splitlines()[1].split("none")[1].strip() == "only a, b: 2 rows in 1 tables  -"


def test_status_shows_a_backup_of_some_volumes_beside_the_last() -> None:
    last = {"created": "2020-01-02T03:04:05+00:00", "snapshot_id": "5f0c2a9be1", "freeze_s": 0.1, "verify": "quick"}
    some = {**last, "created": "2026-01-02T03:04:05+00:00", "snapshot_id": "77777777aa", "volumes": {"a": {}, "b": {}}}
    found: dict[str, Any] = {
        "project": "om",
        "repository": "/repo",
        "retired": None,
        "last": {"backup": last, "backup_of_some": some},
        "unfinished": None,
        "kept": [],
        "progress": None,
    }
    found["attention"] = show.attention(found, {"backup": 86400.0}, datetime.now(UTC))
    said = show.status(found)
    assert "snapshot 77777777: a, b" in said
    assert "The last backup is" in said  # the whole one is years old


def test_whoever_may_not_look_into_the_settings_is_told_so(tmp_path: Path) -> None:
    config = tmp_path / "etc"
    config.mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match=r"om.json cannot be read; run it as root\.$"):
            load(str(config), {"project": "om"})
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("live", ["its live data", "nothing", None])
def test_a_dry_run_asks_for_force_where_something_is_replaced(
    live: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = {"changed": True, "actions": [], "warnings": [], "diff": {"before": {"volumes": {"om_a": live}}}}
    monkeypatch.setattr(restore_core, "run", lambda *_given: result)
    monkeypatch.setattr(Settings, "engine", lambda _self: None)
    outcome = verbs.restore({"dry_run": True}, Settings("om", "/repo", "/password"), Progress())
    force = " and give --force" if live == "its live data" else ""
    assert outcome.text.endswith(f"Nothing was done; to do it, leave --dry-run out{force}.")
