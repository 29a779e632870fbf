# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command openmemory-stack: what it understands, what it prints, how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup as backup_core
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import snapshots as snapshots_core
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import main as command
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.options import build_parser
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.verbs import VERBS
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import BusyError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation import recover as recover_core
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof import drill as drill_core
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge import purge as purge_core
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.failures import LockedError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import back as back_core
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import restore as restore_core

RESTORED = {"changed": True, "actions": [], "warnings": ["set force: true"], "diff": {"before": {"volumes": {}}}}
RESULT = {
    "changed": True,
    "snapshot_id": "5f0c2a9be1d2",
    "freeze_s": 0.214,
    "way": "two_pass",
    "bytes_read": 1536,
    "bytes_stored": 512,
    "timings": {"copy": 1.5, "freeze": 0.25},
    "removed": ["aaaaaaaabbbb"],
    "actions": ["snapshot 5f0c2a9b of 1 volumes made"],
    "warnings": [],
    "volumes": {
        "qdrant_storage": {
            "name": "om_qdrant_storage",
            "store": "qdrant",
            "store_version": "1.18.0",
            "allocated_bytes": 2048,
            "census": {"collections": {"memories": [4, 5]}},
            "check": {"level": "quick", "ok": True, "findings": []},
        }
    },
}
SETTINGS = {
    "project": "om",
    "repository": "/repo",
    "password_file": "/secret",
    "environment": {"AWS_SECRET_ACCESS_KEY": "s3cret"},
    "keep": {"last": 3, "within": None},
    "options": {"verify": "full", "tags": ["nightly"], "volumes": None, "staging_dir": "/copies"},
}
Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command with the settings of one stack in a directory of the test."""
    config = tmp_path / "etc"
    config.mkdir()

    def go(*words: str, **changes: Any) -> int:
        path = config / "om.json"
        path.unlink(missing_ok=True)
        settings = changes.get("settings", SETTINGS)
        if settings is not None:
            path.touch(0o600)
            path.write_text(json.dumps({"state_dir": str(tmp_path / "state"), **settings}))
        return command.main([words[0], "--config-dir", str(config), *words[1:]])

    return go


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that reach the core, with check mode; a backup gives RESULT, a restore nothing that is kept."""
    found: list[Any] = []

    def take(result: dict[str, Any]) -> Callable[..., dict[str, Any]]:
        def core(request: Any, engine: Any, progress: Any, check_mode: bool, *_where: str) -> dict[str, Any]:
            request.check()
            found.append((request, check_mode))
            return result

        return core

    monkeypatch.setattr(backup_core, "run", take(RESULT))
    monkeypatch.setattr(restore_core, "run", take(RESTORED))
    return found


def test_backup_takes_all_from_the_settings(run: Run, asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backup") == 0
    ((request, check_mode),) = asked
    assert (request.project, request.repository, request.password_file) == ("om", "/repo", "/secret")
    assert (request.environment, request.keep) == (SETTINGS["environment"], Keep(last=3))
    assert (request.verify, list(request.tags), request.volumes, check_mode) == ("full", ["nightly"], None, False)
    printed = capsys.readouterr()
    assert "Snapshot 5f0c2a9b of the stack om, 1 volumes\n  writes blocked  0.21 s (two-pass)" in printed.out
    assert "qdrant_storage  qdrant 1.18.0  2 KiB  memories 4 to 5 points  quick: sound" in printed.out
    assert "Removed as no longer kept: aaaaaaaa" in printed.out
    assert "s3cret" not in printed.out + printed.err


def test_what_is_typed_wins(run: Run, asked: list[Any]) -> None:
    words = ["--tag", "a", "--tag", "b", "--verify", "none", "--volume", "x", "--keep-all", "--dry-run", "--export"]
    assert run("backup", *words, "--freeze-timeout", "5", "--repository", "/other", "--no-init") == 0
    ((request, check_mode),) = asked
    assert (request.repository, request.keep, request.init, check_mode) == ("/other", None, False, True)
    assert (list(request.tags), request.verify) == (["nightly", "a", "b"], "none")
    assert (request.volumes, request.export, request.freeze_timeout) == ([{"name": "x"}], True, 5.0)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {"snapshot": "latest", "force": False, "safety": True, "target": "in_place"}),
        (["2026-11-25 02:00", "--force"], {"snapshot": "2026-11-25 02:00", "force": True}),
        (["--new", "--prefix", "look_"], {"target": "new", "new_prefix": "look_"}),
        (["--map", "a=b1", "--map", "c=d1"], {"name_map": {"a": "b1", "c": "d1"}}),
        (["--volume", "a", "--path", "x/y"], {"volumes": ["a"], "path": "x/y"}),
        (["--no-safety", "--no-census", "--no-start"], {"safety": False, "check_census": False, "start": False}),
        (["--keep-days", "0.5", "--wait-timeout", "9"], {"keep_days": 0.5, "wait_timeout": 9.0}),
        (["--from-project", "old", "--probe", "--set-password"], {"from_project": "old", "set_password": True}),
        ([], {"staging_dir": "/copies"}),  # of the settings: where the backups find it
        (["--staging-dir", "/other"], {"staging_dir": "/other"}),
        (["--dry-run"], {"force": True}),  # else it would only tell that --force is missing
    ],
)
def test_restore(run: Run, asked: list[Any], words: list[str], expected: dict[str, Any], capsys: Any) -> None:
    assert (run("restore", *words), "Warning: give --force" in capsys.readouterr().out) == (3, True)
    request = asked[0][0]
    assert {name: getattr(request, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "snapshot"), [(["drill"], "latest"), (["drill", "5f0c", "--project", "om", "--state-dir", "/s"], "5f0c")]
)
def test_drill(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], snapshot: str) -> None:
    asked: list[Any] = []

    def core(request: Any, engine: Any, progress: Any) -> dict[str, Any]:
        asked.append(request)
        return {"snapshot_id": "5f0c2a9be1", "actions": ["started it"], "warnings": []}

    monkeypatch.setattr(drill_core, "run", core)
    assert run(*words) == 0
    assert (asked[0].project, asked[0].snapshot, asked[0].repository) == ("om", snapshot, "/repo")
    assert capsys.readouterr().out == "The snapshot 5f0c2a9b of the stack om can be restored.\n  started it\n"


def test_undo_and_recover(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    def back(project: str, state_dir: str, engine: Any, progress: Any, check_mode: bool) -> dict[str, Any]:
        assert (project, state_dir, check_mode) == ("om", str(tmp_path / "state"), True)
        return {"changed": True, "actions": ["swap"], "downtime_s": 3.2, "kept": [], "warnings": []}

    monkeypatch.setattr(back_core, "run", back)
    assert run("undo", "--dry-run") == 0
    assert capsys.readouterr().out == "swap\nThe stack om was down for 3.20 s.\n"
    monkeypatch.setattr(recover_core, "recover", lambda _engine, _places, check_mode: [])
    assert run("recover", "--dry-run") == 0
    assert capsys.readouterr().out == "Nothing was left of an operation that died.\n"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("words", "settings", "expected", "last"),
    [
        (["--confirm", "om"], SETTINGS, ("om", "make", "/repo", "/copies", False), "the data of the stack om back."),
        (["--dry-run"], SETTINGS, ("", "make", "/repo", "/copies", True), "leave --dry-run out and give --confirm om."),
        (["--confirm", "om", "--no-snapshot"], {"project": "om"}, ("om", "none", None, None, False), "om back."),
    ],
)
def test_purge(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any, words: list[str], settings: Any, expected: Any, last: str
) -> None:
    asked: list[Any] = []

    def core(request: Any, engine: Any, progress: Any, check_mode: bool, *_where: str) -> dict[str, Any]:
        request.check()
        asked.append((request.confirm, request.snapshot, request.repository, request.staging_dir, check_mode))
        return {"changed": True, "actions": ["remove volume a"], "snapshot_id": "5f0c2a9be1", "warnings": []}

    monkeypatch.setattr(purge_core, "run", core)
    assert run("purge", *words, settings=settings) == 0
    assert asked == [expected]
    assert capsys.readouterr().out.rstrip().endswith(last)


def test_a_purge_speaks_of_what_is_typed(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run("purge", settings={"project": "om"}) == 2
    assert "repository of the stack om is not known" in capsys.readouterr().err

    def refuse(*_given: Any) -> None:
        raise StackError("All would go; set confirm: om to have it done, or set snapshot: none to purge without one.")

    monkeypatch.setattr(purge_core, "run", refuse)
    assert run("purge") == 1
    said = "All would go; give --confirm om to have it done, or give --no-snapshot to purge without one."
    assert said in capsys.readouterr().err


def test_init_makes_what_is_missing_and_never_a_second_password(run: Run, tmp_path: Path, capsys: Any) -> None:
    repository, secret = tmp_path / "repo", tmp_path / "secret"
    settings = {"project": "om", "repository": str(repository), "password_file": str(secret)}
    repository.mkdir()
    (repository / "config").touch()
    assert run("init", settings=settings) == 1
    assert "a new one cannot open it" in capsys.readouterr().err
    assert not secret.exists()


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            StackError("The volume is full; set force: true."),
            1,
            "openmemory-stack: The volume is full; give --force.\n",
        ),
        (BusyError("Another operation is under way."), 4, "openmemory-stack: Another operation is under way.\n"),
        (LockedError("The repository is locked."), 4, "openmemory-stack: The repository is locked.\n"),
        (ZeroDivisionError("x"), 1, "openmemory-stack: An error that was not foreseen: ZeroDivisionError: x"),
    ],
)
def test_every_failure_is_one_sentence_and_a_code(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    said: str,
) -> None:
    def fail(*_given: Any) -> None:
        raise error

    monkeypatch.setattr(backup_core, "run", fail)
    assert run("backup", "--json") == code
    printed = capsys.readouterr()
    assert printed.err.startswith(said)
    assert "Traceback" not in printed.err
    assert json.loads(printed.out)["exit_code"] == code


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        (None, ["backup"], "There are no settings in"),
        ({**SETTINGS, "verify": "full"}, ["backup"], "holds 'verify', which is no setting"),
        ({**SETTINGS, "options": {"nope": 1}}, ["backup"], "options in the settings has 'nope'"),
        ({**SETTINGS, "keep": {"nope": 1}}, ["backup"], "keep in the settings has 'nope'"),
        ({**SETTINGS, "project": "other"}, ["backup"], "is of the stack other, not of om"),
        ({**SETTINGS, "environment": []}, ["backup"], "environment in"),
        ({"project": "om"}, ["backup"], "repository of the stack om is not known; give --repository"),
        (SETTINGS, ["restore", "--map", "x"], "--map is 'x'; give NAME=VOLUME"),
        (SETTINGS, ["check", "--read-data", "some"], "--read-data is 'some'"),
    ],
)
def test_wrong_settings_are_usage(
    run: Run, capsys: pytest.CaptureFixture[str], settings: dict[str, Any] | None, words: list[str], said: str
) -> None:
    assert run(*words, settings=settings) == 2
    assert said in capsys.readouterr().err


def test_several_stacks_must_be_named(run: Run, asked: list[Any], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "etc" / "two.json").write_text("{}")
    assert run("backup") == 2
    assert "--project om or --project two" in capsys.readouterr().err
    assert run("backup", "--project", "om") == 0


def test_credentials_that_others_can_read_are_refused(run: Run, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "etc" / "om.json"
    path.touch()
    path.chmod(0o644)
    path.write_text(json.dumps(SETTINGS))
    assert command.main(["status", "--config-dir", str(path.parent)]) == 2
    assert f"chmod 600 {path}" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_core_clean_up_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    cleaned: list[str] = []

    def work(*_given: Any) -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), number)  # an impatient operator
            cleaned.append("yes")

    monkeypatch.setattr(backup_core, "run", work)
    before = signal.getsignal(number)
    assert run("backup") == code
    assert cleaned == ["yes"]
    assert signal.getsignal(number) is before
    assert "Stopping; what is frozen or stopped goes on first." in capfd.readouterr().err


def test_waiting_for_another_operation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = iter([BusyError("busy"), LockedError("locked"), None])

    def work(*_given: Any) -> dict[str, Any]:
        error = next(tries)
        if error:
            raise error
        return RESULT

    monkeypatch.setattr(backup_core, "run", work)
    monkeypatch.setattr(command.time, "sleep", lambda _seconds: None)
    assert run("backup", "--wait", "1") == 0


SNAPSHOT = {"id": "5f0c", "short_id": "5f0c", "time": "2020-01-02T03:04:05Z", "verified": "quick", "partial": ""}
MANIFEST = {"freeze_s": 0.2, "volumes": {"a": {"census": {"tables": {"x": 2, "y": 3}}}, "b": {"census": None}}}


def test_list(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        "snapshots": [
            {**SNAPSHOT, "safety": False, "tags": ["t"], "manifest": MANIFEST},
            {**SNAPSHOT, "safety": True, "tags": [], "manifest": None, "manifest_problem": "It is damaged."},
            {**SNAPSHOT, "safety": False, "tags": [], "manifest": MANIFEST},
        ],
        "repository": {"location": "/repo", "size_bytes": 2048, "snapshots": 3, "health": "unchecked"},
        "newest_age_s": 1.0,
    }
    monkeypatch.setattr(snapshots_core, "snapshots_info", lambda *_given: found)
    assert run("list", "--limit", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ID", "TIME", "AGE", "FREEZE", "VERIFIED", "HOLDS", "TAGS"]
    assert lines[1].endswith("0.20 s  quick     5 rows in 2 tables  t")
    assert lines[2].endswith("?       quick     ?                   safety")
    assert lines[4:] == ["3 snapshots of om, 1 older not shown; the repository takes 2 KiB at /repo.", "It is damaged."]
    assert run("list", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["snapshots"]) == 3


def test_status_says_what_wants_attention(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status") == 3
    assert "No backup was made from this host yet." in capsys.readouterr().out
    (state := tmp_path / "state" / "om").mkdir(parents=True)
    last = {"created": "2020-01-02T03:04:05+00:00", "snapshot_id": "5f0c2a9be1", "freeze_s": 0.1, "verify": "quick"}
    (state / "last.json").write_text(json.dumps({"backup": last}))
    assert run("status") == 0
    assert "All is well." in capsys.readouterr().out
    assert run("status", "--max-age", "26") == 3
    capsys.readouterr()
    failed = {"created": "2020-01-03T03:04:05+00:00", "message": "No room."}
    (state / "last.json").write_text(json.dumps({"backup": last, "backup_failed": failed}))
    assert run("status", "--json") == 3
    assert json.loads(capsys.readouterr().out)["attention"][0].endswith("failed: No room.")


def test_help_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    parser = build_parser("1")
    for verb in VERBS:
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([verb, "--help"])
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert "exit codes:" in text
        assert [line for line in text.splitlines() if len(line) > 100] == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line_and_never_fails() -> None:
    terminal = Terminal()
    teller = command.Teller(terminal)
    progress = {"phase": "copy", "phases_done": [], "bytes": 1024, "total_bytes": 2048, "rate": 512, "eta_s": 2.0}
    teller(progress)
    assert terminal.getvalue() == "\r\033[Kcopy 1 KiB of 2 KiB (50 %), 512 bytes/s, 2 s left"
    terminal.close()
    teller(progress)


def test_progress_in_a_file_is_a_line_for_each_phase() -> None:
    file = io.StringIO()
    teller = command.Teller(file)
    teller({"phase": "copy", "phases_done": [], "bytes": 0, "total_bytes": None, "rate": None, "eta_s": None})
    teller({"phase": None, "phases_done": [{"name": "copy", "seconds": 75.2}], "bytes": 0})
    assert file.getvalue() == "copy took 1 min 15 s\n"
