# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model of the report: what is told of whatever hosts answer, worst first, and what counts as a change."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_findings import Limits
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_model import (
    fleet_model,
    growth,
    outline,
    sentence,
)

from .fleet_samples import (
    MIB,
    NOW,
    answer,
    container,
    copy_to,
    failed,
    fleet,
    iso,
    points,
    stack,
    stale,
    unreachable,
    volume,
)

NO_LIMITS = Limits(0, 0, 0, 0)


def model(*hosts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return fleet_model(hosts, more.pop("now", NOW), "Fleet", **more)


def codes(**more: Any) -> dict[str, str]:
    """{code: level} of what is found in a stack that is well, but for what is given."""
    found = model(answer("a", stack(**more)), limits=more.pop("limits", None))["hosts"][0]
    assert found["status"] != "failed", found["problem"]
    return {each["code"]: each["level"] for each in found["stacks"][0]["findings"]}


def test_a_stack_that_is_well_has_nothing_wrong() -> None:
    found = model(answer("memory-1", stack()))
    assert found["findings"] == []
    assert found["hosts"][0]["status"] == "ok"
    assert found["summary"]["by_status"] == {"unreachable": 0, "failed": 0, "critical": 0, "warning": 0, "ok": 1}


def test_the_worst_comes_first() -> None:
    warned = stack(last={"backup": {"created": iso(hours=5)}})
    hosts = [answer("lab10", stack()), answer("lab2", stack()), answer("w", warned), answer("s", stale())]
    found = model(*hosts, failed("f", "sudo: a password is required"), unreachable("u"))
    assert [host["name"] for host in found["hosts"]] == ["u", "f", "s", "w", "lab2", "lab10"]
    assert [host["status"] for host in found["hosts"][:4]] == ["unreachable", "failed", "critical", "warning"]
    assert [each["code"] for each in found["findings"]][:3] == ["unreachable", "failed", "backup_failed"]
    assert found["findings"][-1]["level"] == "warning"


def test_every_host_is_told_whatever_ansible_registered() -> None:
    results: list[Any] = [None, {}, {"msg": ""}, {"stacks": None}, {"stacks": "x"}, [], "gone", {"unreachable": True}]
    found = model(*({"host": f"h{number}", "result": result} for number, result in enumerate(results)))
    assert len(found["hosts"]) == len(results)
    assert all(host["problem"] for host in found["hosts"])
    assert {host["status"] for host in found["hosts"]} == {"failed", "unreachable"}


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"timedout": {"period": 5}, "msg": "x"}, "It gave no answer in time (report_timeout)."),
        ({"msg": "Task failed: Failed to connect to the host via ssh: ssh: refused"}, "ssh: refused"),
        ({"msg": "Task failed: Failed to connect to the host via ssh: "}, "Failed to connect to the host via ssh:"),
        (
            {"msg": "MODULE FAILURE: No start", "module_stderr": "a\nsudo: a password is required\n\n"},
            "sudo: a password is required",
        ),
        ({"msg": "Module result deserialization failed: x", "module_stderr": "E: no zipfile"}, "E: no zipfile"),
        ({"msg": "one\n  two\t\x1b[31mthree"}, "one two \ufffd[31mthree"),
        ({"msg": "x" * 9000}, "x" * 599 + "…"),
    ],
)
def test_why_there_is_no_answer_is_one_line(result: dict[str, Any], told: str) -> None:
    assert sentence(result) == told


NEVER: dict[str, Any] = {"count": 0, "newest": None, "oldest": None, "points": [], "unread": 0, "damaged": []}
DRILL_FAILED = {"created": iso(days=1), "message": "12 rows are missing"}
LEFT = {"operation": "backup", "phase": "freeze", "started": iso(hours=1), "running": False}


@pytest.mark.parametrize(
    ("more", "code", "level"),
    [
        ({"snapshots": NEVER}, "never_backed_up", "critical"),
        ({"settings": False, "repository": None, "snapshots": None}, "never_backed_up", "critical"),
        ({"last": {**stack()["last"], "drill_failed": DRILL_FAILED}}, "drill_failed", "critical"),
        ({"last": {"backup": stack()["last"]["backup"]}}, "never_drilled", "warning"),
        ({"last": {**stack()["last"], "drill": {"created": iso(days=40)}}}, "drill_stale", "warning"),
        (
            {"last": {**stack()["last"], "backup_failed": {"created": iso(hours=1), "message": "No."}}},
            "backup_failed",
            "critical",
        ),
        ({"last": {**stack()["last"], "check_failed": DRILL_FAILED}}, "check_failed", "critical"),
        ({"copies": [copy_to("far", ok=False, error="It refuses the login.")]}, "copy_failed", "critical"),
        ({"copies": [copy_to("far"), copy_to("new", ok=None, success=None)]}, "never_copied", "critical"),
        ({"copies": [copy_to("far", success=iso(days=3))]}, "copy_stale", "critical"),
        ({"unfinished": LEFT}, "unfinished", "critical"),
        ({"unfinished": {**LEFT, "running": True}}, "under_way", "note"),
        (
            {"problems": [{"part": "repository", "message": "It cannot be opened."}]},
            "repository_unreadable",
            "critical",
        ),
        ({"containers": [container("qdrant", "exited")]}, "not_running", "critical"),
        ({"containers": [container("qdrant", health="unhealthy")]}, "unhealthy", "critical"),
        ({"containers": []}, "absent", "critical"),
        ({"containers": [], "volumes": []}, "absent", "critical"),
        (
            {"volumes": [volume("v", misplaced=[{"container": "q", "destination": "/a", "expected": "/b"}])]},
            "misplaced",
            "critical",
        ),
        ({"volumes": [volume("v", problem="It cannot be read.")]}, "volume_unreadable", "warning"),
        (
            {"volumes": [volume("v", store={"kind": "sqlite", "health": "damaged", "findings": ["Cut off."]})]},
            "store_damaged",
            "critical",
        ),
        (
            {"volumes": [volume("v", filesystem={"mount_point": "/", "free_bytes": 5, "total_bytes": 100})]},
            "low_space",
            "warning",
        ),
        (
            {"volumes": [volume("v", filesystem={"mount_point": "/", "free_bytes": 1, "total_bytes": 100})]},
            "low_space",
            "critical",
        ),
        ({"schedule": {"backup": {"active": False, "next": None, "result": "success"}}}, "no_timer", "warning"),
        ({"schedule": {"backup": {"active": True, "next": None, "result": "exit-code"}}}, "run_failed", "critical"),
        (
            {"snapshots": {**stack()["snapshots"], "damaged": ["Snapshot 1 is damaged."]}},
            "snapshot_damaged",
            "critical",
        ),
    ],
)
def test_what_is_wrong_is_found(more: dict[str, Any], code: str, level: str) -> None:
    assert codes(**more).get(code) == level


def test_ages_count_by_the_clock_of_the_host() -> None:
    late = answer("a", stack(), now=(NOW + timedelta(days=2)).isoformat())
    assert [each["code"] for each in model(late)["findings"]] == ["stale"]
    assert model(late, limits=NO_LIMITS)["findings"] == []
    early = answer("a", stack(), now=(NOW - timedelta(days=2)).isoformat())
    assert [each["code"] for each in model(early)["findings"]] == ["clock"]


def test_a_failure_that_was_followed_by_a_success_is_over() -> None:
    old = {"created": iso(days=9), "message": "No."}
    assert codes(last={**stack()["last"], "backup_failed": old, "drill_failed": old}) == {}
    slow = {"created": iso(hours=2), "finished": iso(minutes=1)}  # what it is of was a while before it ended
    between = {"created": iso(hours=1), "message": "No."}
    assert codes(last={**stack()["last"], "backup": slow, "backup_failed": between}) == {}


def test_where_a_stack_was_moved_away_nothing_is_demanded() -> None:
    more = {"moved": {"target": "new.example.com", "at": iso(days=1)}, "containers": [], "snapshots": NEVER}
    assert codes(**more) == {"moved": "note"}


def test_containers_that_an_operation_has_stopped_are_no_fault() -> None:
    more = {"containers": [container("qdrant", "paused")], "unfinished": {**LEFT, "running": True}}
    assert codes(**more) == {"under_way": "note", "not_running": "note"}


def test_growth_is_the_slope_and_needs_a_day_and_three_snapshots() -> None:
    day = 86400
    assert growth([(0, 100), (day, 200), (2 * day, 300)])["per_day"] == 100
    assert growth([(2 * day, 300), (0, 100), (day, 200)])["points"] == [[0, 100], [day, 200], [2 * day, 300]]
    assert growth([(0, 100), (day, 200)])["per_day"] is None
    assert growth([(0, 100), (1, 200), (2, 300)])["per_day"] is None
    assert growth([])["points"] == []


def test_a_disk_that_fills_up_is_told_in_time() -> None:
    place = {"type": "xfs", "mount_point": "/srv", "free_bytes": 20 * MIB, "total_bytes": 100 * MIB}
    found = stack(volumes=[volume("openmemory_qdrant_storage", filesystem=place)])
    told = model(answer("a", found))["hosts"][0]["stacks"][0]
    assert [each["code"] for each in told["findings"]] == ["full_soon"]
    assert 2 < told["filesystems"][0]["full_in_days"] < 5
    assert model(answer("a", found), limits=Limits(full_in_days=0))["findings"] == []


def test_two_answers_of_an_unchanged_fleet_have_one_state() -> None:
    first = model(answer("a", stack()), answer("b", stale()), unreachable("c"))
    later = copy.deepcopy([answer("a", stack()), answer("b", stale()), unreachable("c")])
    for host in later[:2]:
        host["result"]["now"] = (NOW + timedelta(minutes=30)).isoformat()
        for each in host["result"]["stacks"]:
            each["schedule"]["backup"]["next"] = iso(hours=-19)
            for held in each["volumes"]:
                held["allocated_bytes"] += 4096
                held["filesystem"] = {**held["filesystem"], "free_bytes": held["filesystem"]["free_bytes"] - 4096}
    again = model(*reversed(later), now=NOW + timedelta(minutes=30))
    assert again["generated"] != first["generated"]
    assert again["state"] == first["state"]
    assert outline(again) == outline(first)


@pytest.mark.parametrize(
    "more",
    [
        {"containers": [container("qdrant", "exited")]},
        {"snapshots": {**stack()["snapshots"], "count": 23}},
        {"last": {**stack()["last"], "drill": {"created": iso(days=2)}}},
        {"volumes": []},
        {"repository": None},
    ],
)
def test_any_real_difference_is_another_state(more: dict[str, Any]) -> None:
    assert model(answer("a", stack(**more)))["state"] != model(answer("a", stack()))["state"]


def test_another_look_is_another_state() -> None:
    assert model(answer("a", stack()), look="1")["state"] != model(answer("a", stack()), look="2")["state"]


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    return [path] * bool(path) + [each for key, part in inner for each in paths(part, (*path, key))]


HOSTILE: list[Any] = [
    None,
    "x",
    "",
    [],
    {},
    [[]],
    [None],
    {"a": []},
    -1,
    10**40,
    float("nan"),
    float("inf"),
    True,
    "9" * 5000,
]


@pytest.mark.parametrize("path", paths(stack(days=2)), ids=str)
def test_whatever_a_host_says_the_others_are_told(path: tuple[Any, ...]) -> None:
    """Each part of an answer in turn is something else: that host is told somehow, and nothing is raised."""
    for value in HOSTILE:
        bad = copy.deepcopy(stack(days=2))
        place: Any = bad
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        found = model(answer("bad", bad), answer("good", stack()))
        assert {host["name"] for host in found["hosts"]} == {"bad", "good"}
        json.dumps(found, allow_nan=False)


def test_bounded_and_plain() -> None:
    many = stack(volumes=[volume(f"v{number}" + "n" * 5000) for number in range(3000)])
    deep: dict[str, Any] = {}
    deep["deep"] = deep
    found = model({**answer("a", many), "extra": deep})
    assert len(json.dumps(found)) < 2_000_000
    found = model({"host": "a", "result": {"stacks": [stack(extra=deep)], "host": "a", "now": NOW.isoformat()}})
    assert "extra" not in found["hosts"][0]["stacks"][0]


def test_no_fleet_at_all() -> None:
    found = model()
    assert (found["hosts"], found["findings"], found["summary"]["hosts"]) == ([], [], 0)


def test_a_thousand_hosts() -> None:
    found = model(*fleet(1000))
    assert found["summary"]["by_status"] == {"unreachable": 20, "failed": 20, "critical": 50, "warning": 0, "ok": 910}
    assert [host["status"] for host in found["hosts"][:41]] == ["unreachable"] * 20 + ["failed"] * 20 + ["critical"]


def test_the_history_goes_on_in_order_of_time_whatever_order_it_came_in() -> None:
    mixed = stack()
    mixed["snapshots"]["points"] = list(reversed(points(5)))
    told = model(answer("a", mixed))["hosts"][0]["stacks"][0]
    times = [each["time"] for each in told["freezes"]]
    assert times == sorted(times)
