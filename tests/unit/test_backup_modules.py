# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The adapters of backup and restore: options in, a request of the core, one sentence or one result out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.request import PurgeRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.request import RestoreRequest
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import repository_argument_spec
from ansible_collections.openmemory.stack.plugins.modules import (
    stack_purge,
    stack_purge_info,
    volume_backup,
    volume_backup_info,
    volume_restore,
    volume_restore_info,
)

from .purge_host import Host

WHERE = {"compose_project": "om", "repository": "/repo", "password_file": "/secret"}
CREDENTIALS = {"environment": {"AWS_SECRET_ACCESS_KEY": "s3cret", "NUMBER": 1}}
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module's main() in place of the core's answer, a result or an error; what it printed and was asked."""

    def go(module: Any, answer: Any = None, check: bool = False, **options: Any) -> dict[str, Any]:
        asked: list[Any] = []
        warned: list[str] = []
        monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text, **_more: warned.append(text))

        def core(request: Any, engine: Any, progress: Any, check_mode: bool) -> dict[str, Any]:
            asked.extend((request, engine, progress, check_mode))
            if isinstance(answer, Exception):
                raise answer
            return dict(answer or {"changed": True, "actions": []})

        part = next(getattr(module, name) for name in ("backup", "restore", "purge") if hasattr(module, name))
        monkeypatch.setattr(part, "run", core)
        monkeypatch.setattr(module, "connect", lambda _module, late=False: "engine")
        with patch_module_args({**WHERE, **options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        printed = capsys.readouterr().out
        assert "s3cret" not in printed
        return {**json.loads(printed), "asked": asked, "warned": warned}

    return go


@pytest.mark.parametrize(
    ("module", "request_type"),
    [(volume_backup, BackupRequest), (volume_restore, RestoreRequest), (stack_purge, PurgeRequest)],
)
def test_options_and_their_defaults_are_those_of_the_request(module: Any, request_type: Any) -> None:
    spec = {**module.argument_spec(), **repository_argument_spec()}
    of_core = {each.name: each for each in fields(request_type) if each.name != "project"}
    assert set(of_core) - set(spec) == set()
    assert set(module.argument_spec()) - set(of_core) == set()
    for name, field in of_core.items():
        if field.default is not MISSING and name not in ("tags", "keep", "directories", "copies"):
            assert spec[name].get("default") == field.default, name


def test_backup(run: Run) -> None:
    keep = {"last": 2, "within": "7d"}
    volumes = [{"name": "ab"}, {"name": "cd", "quiesce": "none"}]
    found = run(volume_backup, check=True, keep=keep, volumes=volumes, tags=["t"], freeze_timeout=5, **CREDENTIALS)
    request, engine, progress, check_mode = found["asked"]
    assert (request.project, request.repository, request.password_file) == ("om", "/repo", "/secret")
    assert request.environment == {"AWS_SECRET_ACCESS_KEY": "s3cret", "NUMBER": "1"}
    assert (request.keep, request.tags, request.freeze_timeout) == (Keep(last=2, within="7d"), ["t"], 5.0)
    assert [(each["name"], each["quiesce"]) for each in request.volumes] == [("ab", None), ("cd", "none")]
    assert (engine, check_mode, progress._path) == ("engine", True, "/run/openmemory-stack/om/progress.json")
    assert run(volume_backup)["asked"][0].keep is None


def test_restore(run: Run) -> None:
    found = run(volume_restore, snapshot="tag:x", volumes=["a"], name_map={"a": 1}, force=True, keep_days=0)
    request = found["asked"][0]
    assert (request.snapshot, request.volumes, request.name_map) == ("tag:x", ["a"], {"a": "1"})
    assert (request.force, request.keep_days, request.from_project) == (True, 0.0, None)


def test_purge(run: Run) -> None:
    found = run(stack_purge, check=True, confirm="om", directories=["/srv/om"], **CREDENTIALS)
    request, engine, _progress, check_mode = found["asked"]
    assert (request.project, request.confirm, request.snapshot) == ("om", "om", "make")
    assert (request.repository, request.password_file, list(request.directories)) == ("/repo", "/secret", ["/srv/om"])
    assert (engine, check_mode) == ("engine", True)
    without = run(stack_purge, snapshot="none", repository=None, password_file=None)["asked"][0]
    assert (without.repository, without.password_file, without.snapshot) == (None, None, "none")
    refused = run(stack_purge, repository="rest:https://me:pw@host/x")
    assert refused["failed"]
    assert "pw" not in json.dumps(refused)


def test_what_a_purge_would_find(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    host = Host.with_stack(tmp_path)
    monkeypatch.setattr(stack_purge_info, "connect", lambda _module: host)
    for inside in (False, True):
        options = {"compose_project": "om", "state_dir": str(tmp_path / "state")}
        options |= {"repository": str(host.directory / "r")} if inside else {}
        with patch_module_args(options), pytest.raises(SystemExit):
            stack_purge_info.main()
        found = json.loads(capsys.readouterr().out)
        assert bool(found.get("failed")) == inside
        if inside:
            assert "would be removed, lie in each other" in found["msg"]
        else:
            assert (found["changed"], found["present"], found["unfinished"]) == (False, True, None)
            assert found["stack"]["volumes"] == ["om_data", "om_place"]
    assert (host.changes, (tmp_path / "state").exists()) == ([], False)


@pytest.mark.parametrize("module", [volume_backup, volume_restore, stack_purge])
def test_result_and_refusal(run: Run, module: Any) -> None:
    found = run(module, {"changed": True, "actions": ["a", "b"], "warnings": ["look"]})
    assert (found["diff"], found["actions"]) == ({"before": "", "after": "a\nb\n"}, ["a", "b"])
    assert (found["warned"], "warnings" in found) == (["look"], False)
    assert run(module, {"changed": True, "diff": {"before": "x"}})["diff"] == {"before": "x"}
    refused = run(module, StackError("No room."))
    assert (refused["failed"], refused["msg"]) == (True, "No room.")


@pytest.mark.parametrize(
    ("module", "options", "words"),
    [
        (volume_backup, {"capture": "rsync"}, "capture must be one of: auto, reflink, single, two_pass"),
        (volume_backup, {"keep": {"minutely": 1}}, "keep.minutely"),
        (volume_backup, {"keep": {"last": -7}}, "keep.last is -7"),
        (volume_backup, {"volumes": [{"quiesce": "stop"}]}, "missing required arguments: name found in volumes"),
        (volume_restore, {"target": "beside"}, "target must be one of: in_place, new"),
        (volume_restore, {"keep_days": "long"}, "keep_days"),
    ],
)
def test_bad_input_never_reaches_the_core(run: Run, module: Any, options: dict[str, Any], words: str) -> None:
    found = run(module, **options)
    assert found["failed"]
    assert words in found["msg"]
    assert found["asked"] == []


def info(module: Any, capsys: pytest.CaptureFixture[str], check: bool = False, **options: Any) -> dict[str, Any]:
    with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
        module.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("check", [True, False])
def test_backup_info(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    asked: list[Any] = []

    def core(repository: Any, places: Any, **filters: Any) -> dict[str, Any]:
        asked.extend((repository, places, filters))
        return {"snapshots": [], "repository": {}, "newest_age_s": None}

    monkeypatch.setattr(volume_backup_info, "snapshots_info", core)
    options = {**WHERE, "state_dir": str(tmp_path / "state"), "since": "2026-11-25T02:00Z", "read_data": "10%"}
    found = info(volume_backup_info, capsys, check, **options, tags=["t"])
    assert (found["snapshots"], found["changed"]) == ([], False)
    repository, places, filters = asked
    assert repository.restic.shown == "/repo"
    assert (places is None) is check  # nothing is made in check mode
    assert (tmp_path / "state").exists() is not check
    assert filters["since"].isoformat() == "2026-11-25T02:00:00+00:00"
    assert {name: filters[name] for name in ("project", "tags", "health", "until", "newest_only")} == {
        "project": "om", "tags": ["t"], "health": "10%", "until": None, "newest_only": False
    }  # fmt: skip
    refused = info(volume_backup_info, capsys, True, **{**options, "since": "yesterday"})
    assert refused["msg"] == "since is 'yesterday'; give a time such as 2026-11-25 or 2026-11-25 02:00."


def test_restore_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"compose_project": "om", "state_dir": str(tmp_path)}
    empty = info(volume_restore_info, capsys, **options)
    assert (empty["kept"], empty["unfinished"]) == ([], None)
    places = Places.of("om", str(tmp_path), runtime_dir=str(tmp_path / "run"))
    journal = Journal.begin(places, "restore", "1")
    journal.phase("swap")
    found = info(volume_restore_info, capsys, **options)["unfinished"]
    assert (found["operation"], found["phase"], found["running"]) == ("restore", "swap", True)
    journal.note("pid_start", 1)  # another process has that number now
    assert info(volume_restore_info, capsys, **options)["unfinished"]["running"] is False


@pytest.mark.parametrize("tag", ["safety", "openmemory-stack"])
def test_a_tag_that_means_something_to_us_is_refused(tag: str) -> None:
    """Retention would remove a backup with it after a week, and "latest" would never find it."""
    with pytest.raises(StackError, match=f"The tag '{tag}' is one of ours"):
        BackupRequest("om", "/repository", "/password", tags=[tag]).check()
