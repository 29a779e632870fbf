# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module stack_info: all of a stack in one look, bounded, and what cannot be read does not hide the rest."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.settings import Settings
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import record_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.overview import history as history_module
from ansible_collections.openmemory.stack.plugins.module_utils._core.overview import overview as overview_module
from ansible_collections.openmemory.stack.plugins.module_utils._core.overview import schedule as schedule_module
from ansible_collections.openmemory.stack.plugins.module_utils._core.overview.history import history, spread
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.manifest import Manifest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot
from ansible_collections.openmemory.stack.plugins.modules import stack_info
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_model import fleet_model

from .conftest import FakeEngine

NOW = datetime(2026, 11, 25, 8, 0, tzinfo=UTC)
Run = Callable[..., dict[str, Any]]


class FakeRepository:
    """Snapshots a day apart, the newest five hours old."""

    def __init__(self, days: int = 3, damaged: tuple[int, ...] = ()):
        self.unreadable: list[str] = []
        self.read: list[str] = []
        self.damaged = damaged
        self.days = days
        self.restic = self
        self.shown = "/repo"

    def snapshots(self, project: str) -> list[Snapshot]:
        import socket

        times = (NOW - timedelta(days=self.days - 1 - number, hours=5) for number in range(self.days))
        tags = (f"project={project}", "way=single", "verified=quick")
        return [
            Snapshot(f"{number:064x}", f"{number:08x}", time, tags, socket.gethostname(), ())
            for number, time in enumerate(times)
        ]

    def manifest_text(self, identity: str) -> str:
        self.read.append(identity)
        number = int(identity, 16)
        if number in self.damaged:
            return "{"
        volume = {
            "name": "om_data",
            "store": "sqlite",
            "allocated_bytes": 100 + number,
            "check": {"ok": True, "level": "quick"},
        }
        volume["census"] = {"tables": {"memories": 3}}
        more = {"freeze_s": 0.1, "volumes": {"data": volume}, "timings": {"copy": 1.0, "commit": 2.0}}
        return Manifest("om", "1", "2026-11-25T03:00:00+00:00", "h", "0", "single", **more).to_json()

    def stats(self) -> dict[str, Any]:
        return {"size_bytes": 7, "snapshots": self.days}


def look(repository: Any, limit: int = 30, seconds: float = 20.0) -> dict[str, Any]:
    return history(repository, None, "om", limit, seconds, NOW)


def test_the_history_is_that_of_the_manifests() -> None:
    found = look(FakeRepository())
    assert (found["count"], found["unread"], found["damaged"]) == (3, 0, [])
    assert [point["volumes"] for point in found["points"]] == [{"om_data": 100}, {"om_data": 101}, {"om_data": 102}]
    assert found["points"][0]["time"] == found["oldest"] == "2026-11-23T03:00:00Z"
    assert found["points"][0]["seconds"] == 3.0
    newest = found["newest"]
    assert (newest["id"], newest["age_s"], newest["verified"]) == ("00000002", 5 * 3600, "quick")
    assert newest["volumes"] == {"om_data": {"store": "sqlite", "holds": "3 rows in 1 tables", "checked": "quick"}}


def test_it_is_bounded_in_number_with_both_ends() -> None:
    repository = FakeRepository(days=400)
    found = look(repository, limit=30)
    assert len(repository.read) == len(found["points"]) == 30
    assert {found["points"][0]["volumes"]["om_data"], found["points"][-1]["volumes"]["om_data"]} == {100, 499}
    assert found["count"] == 400


def test_it_is_bounded_in_time_and_the_newest_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(history_module.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(history_module, "_AT_ONCE", 1)
    found = look(FakeRepository(days=10), seconds=4)
    assert 0 < len(found["points"]) < 6
    assert found["points"][-1]["id"] == "00000009"
    assert found["unread"] == 10 - len(found["points"])


def test_a_damaged_manifest_is_told_and_hides_no_other() -> None:
    found = look(FakeRepository(damaged=(1,)))
    assert [point["id"] for point in found["points"]] == ["00000000", "00000002"]
    assert "cut off or damaged" in found["damaged"][0]


def test_an_empty_repository() -> None:
    found = look(FakeRepository(days=0))
    assert (found["count"], found["newest"], found["oldest"], found["points"]) == (0, None, None, [])


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_spread_keeps_order_and_ends(limit: int) -> None:
    for size in range(60):
        found = spread(range(size), limit)
        assert len(found) == min(size, limit)
        assert found == sorted(set(found))
        assert found[-1:] == list(range(size))[-1:]
        assert limit < 2 or found[:1] == list(range(size))[:1]


SHOWN = """Result=success
NextElapseUSecRealtime=Thu 2026-11-26 02:41:12 UTC
Id=openmemory-stack-backup@om.timer
LoadState=loaded
ActiveState=active

Result=exit-code
Id=openmemory-stack-backup@om.service
LoadState=loaded
ActiveState=failed

Id=openmemory-stack-drill@om.timer
LoadState=not-found
ActiveState=inactive
"""


def test_what_systemd_says() -> None:
    found = schedule_module.read(SHOWN, "om")
    assert found["backup"] == {"active": True, "next": "2026-11-26T02:41:12Z", "result": "exit-code"}
    assert found["drill"] == {"active": False, "next": None, "result": "success"}


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("systemctl", 10)])
def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def gone(*_arguments: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", gone)
    assert schedule_module.schedule("om") is None


@pytest.fixture
def run(tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setattr(stack_info, "connect", lambda _module: engine)
    monkeypatch.setattr(Settings, "engine", lambda _settings: engine)
    monkeypatch.setattr(overview_module, "schedule", lambda _project: None)
    monkeypatch.setattr(overview_module, "Restic", lambda *_arguments, **_options: None)
    monkeypatch.setattr(overview_module, "Repository", lambda _restic: FakeRepository())

    def go(**options: Any) -> dict[str, Any]:
        where = {"config_dir": str(tmp_path / "etc"), "state_dir": str(tmp_path / "state")}
        with patch_module_args({**where, **options}), pytest.raises(SystemExit):
            stack_info.main()
        printed = capsys.readouterr().out
        assert "s3cret" not in printed
        return dict(json.loads(printed))

    return go


def configure(tmp_path: Path, project: str = "om", **more: Any) -> None:
    (tmp_path / "etc").mkdir(exist_ok=True)
    settings = {"project": project, "repository": "/repo", "password_file": "/pw", "state_dir": str(tmp_path / "state")}
    path = tmp_path / "etc" / f"{project}.json"
    path.write_text(json.dumps({**settings, "environment": {"AWS_SECRET_ACCESS_KEY": "s3cret"}, **more}))
    path.chmod(0o600)


def test_a_stack_with_backups_is_told_in_one_run(run: Run, engine: FakeEngine, tmp_path: Path) -> None:
    configure(tmp_path)
    engine.add("om_data", labels={"com.docker.compose.project": "om"})
    engine.use({"om_data": "/data"}, name="om-app-1")
    engine.running[0] |= {
        "Status": "Up (healthy)",
        "Labels": {"com.docker.compose.project": "om", "com.docker.compose.service": "app"},
    }
    places = Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))
    record_last(places, "drill_failed", {"created": "2026-11-25T00:00:00+00:00", "message": "No.", "secret": "s3cret"})
    found = run()["stacks"]
    assert [each["project"] for each in found] == ["om"]
    stack = found[0]
    assert stack["problems"] == []
    assert stack["containers"][0] == {
        "name": "om-app-1",
        "service": "app",
        "image": "busybox",
        "state": "running",
        "health": "healthy",
    }
    assert stack["volumes"][0]["name"] == "om_data"
    assert stack["repository"] == {"location": "/repo", "stored_bytes": 7, "snapshots": 3}
    assert stack["snapshots"]["count"] == 3
    assert stack["last"] == {"drill_failed": {"created": "2026-11-25T00:00:00+00:00", "message": "No."}}


def test_far_repositories_are_told_as_the_last_run_left_them(run: Run, tmp_path: Path) -> None:
    far = {"repository": "sftp:nas:/om", "password_file": "/far", "environment": {"TOKEN": "s3cret"}}
    configure(tmp_path, copies=[{"name": "nas", **far}, {"name": "s3", **far}])
    places = Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))
    about = {"repository": "sftp:nas:/om", "ok": False, "error": "It is away.", "success": "2026-11-24T02:00:00+00:00"}
    record_last(places, "copies", {"created": "2026-11-25T02:00:00+00:00", "repositories": {"nas": about}})
    nas, cloud = run()["stacks"][0]["copies"]
    assert (nas["name"], nas["ok"], nas["error"], nas["location"]) == ("nas", False, "It is away.", "sftp:nas:/om")
    assert (nas["tried"], nas["success"]) == ("2026-11-25T02:00:00+00:00", "2026-11-24T02:00:00+00:00")
    assert (cloud["name"], cloud["ok"], cloud["success"]) == ("s3", None, None)


def test_what_the_module_says_is_what_the_report_understands(run: Run, engine: FakeEngine, tmp_path: Path) -> None:
    configure(tmp_path)
    engine.add("om_data", labels={"com.docker.compose.project": "om"})
    model = fleet_model([{"host": "a", "result": run(compose_projects=["other"])}], NOW)
    assert [stack["project"] for stack in model["hosts"][0]["stacks"]] == ["om", "other"]


def test_each_part_that_cannot_be_read_is_a_sentence(
    run: Run, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path)

    def broken(*_arguments: Any) -> None:
        raise StackError("Docker does not answer.")

    def closed(_restic: Any) -> None:
        raise StackError("The repository refuses the login.")

    monkeypatch.setattr(engine, "containers", broken)
    monkeypatch.setattr(overview_module, "Repository", closed)
    found = run()["stacks"][0]
    assert found["problems"] == [
        {"part": "docker", "message": "Docker does not answer."},
        {"part": "repository", "message": "The repository refuses the login."},
    ]
    assert (found["containers"], found["snapshots"]) == ([], None)


def test_settings_that_are_wrong_are_told(run: Run, tmp_path: Path) -> None:
    configure(tmp_path, colour="red")
    found = run()["stacks"][0]
    assert "is no setting" in found["problems"][0]["message"]
    assert not found["settings"]


def test_a_stack_without_settings_is_told_where_it_is_asked_for(run: Run) -> None:
    found = run(compose_projects=["om"])["stacks"][0]
    assert (found["settings"], found["repository"], found["snapshots"], found["problems"]) == (False, None, None, [])


def test_nothing_at_all(run: Run) -> None:
    assert run()["stacks"] == []


def test_a_place_that_cannot_be_seen_is_an_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    assert "become: true" in run()["msg"]


@pytest.mark.parametrize("options", [{"snapshots": 0}, {"size_timeout": -1}, {"manifest_timeout": -1}])
def test_bad_input_is_one_sentence(run: Run, options: dict[str, Any]) -> None:
    name, value = next(iter(options.items()))
    assert f"{name} is {value}" in run(**options)["msg"]


def test_the_settings_of_the_monitoring_are_no_stack(run: Run, tmp_path: Path) -> None:
    configure(tmp_path)
    (tmp_path / "etc/om.monitoring.json").write_text("{}")
    assert [each["project"] for each in run()["stacks"]] == ["om"]
