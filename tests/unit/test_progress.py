# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugins of the long modules: what they start, what they print, how they end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.openmemory.stack.plugins.action import stack_update, volume_backup, volume_restore
from ansible_collections.openmemory.stack.plugins.plugin_utils import _progress
from ansible_collections.openmemory.stack.plugins.plugin_utils._progress_lines import Lines

MIB = 1024 * 1024
JOB = {"ansible_job_id": "j123.45", "results_file": "/root/.ansible_async/j123.45", "started": True}
RUNNING = '{"started": true, "finished": false}'


def copying(done: int, over: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    total = 4 * MIB
    return {"phase": "copy", "phases_done": over or [], "bytes": done, "total_bytes": total, "rate": MIB, "eta_s": 12}


class Host:
    """A connection, the module's result and what each look at the host finds: (progress, job file, alive)."""

    def __init__(self, *looks: tuple[dict[str, Any] | None, str, bool] | Exception):
        self.looks = list(looks)
        self.commands: list[str] = []
        self.modules: list[tuple[int, bool]] = []
        self.result: dict[str, Any] = {"changed": True, "snapshot_id": "5f0c", "finished": True}

    def command(self, command: str) -> dict[str, Any]:
        self.commands.append(command)
        if command.startswith("rm "):
            return {"rc": 0, "stdout": ""}
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        progress, state, alive = look
        mark = _progress._MARK
        text = json.dumps(progress) if progress else ""
        lines = [text, mark, state, mark, "alive" if alive else "", ""]
        return {"rc": 0, "stdout": "\r\n".join(lines)}  # as SSH with a terminal gives it


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the plugin for a host; returns its result and the lines that it printed."""

    def go(host: Host, check: bool = False, async_val: int = 0, plugin: Any = volume_backup, **task: Any) -> Any:
        lines: list[str] = []
        clock = iter(range(10_000))
        monkeypatch.setattr(_progress.display, "display", lines.append)
        monkeypatch.setattr(_progress.time, "sleep", lambda _seconds: None)
        monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(clock)))
        shell = SimpleNamespace(tmpdir=None)
        connection = SimpleNamespace(_shell=shell, has_native_async=False, become=None)
        values = {"delegate_to": None, "no_log": False, "environment": [], "args": {"compose_project": "om"}, **task}
        action = plugin.ActionModule.__new__(plugin.ActionModule)
        action._task = SimpleNamespace(check_mode=check, async_val=async_val, **values)
        action._connection = connection
        action._play_context = action._loader = action._templar = None
        status = SimpleNamespace(run=lambda task_vars: host.result, cleanup=lambda force: None)
        loader = SimpleNamespace(get=lambda name, **_given: {"ansible.legacy.async_status": status}[name])
        action._shared_loader_obj = SimpleNamespace(action_loader=loader)

        def execute(task_vars: Any, wrap_async: bool) -> dict[str, Any]:
            host.modules.append((action._task.async_val, wrap_async))
            return dict(JOB) if wrap_async else {"changed": True}

        monkeypatch.setattr(_progress.ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
        action._execute_module = execute
        action._remove_tmp_path = lambda _path: None
        action._low_level_execute_command = host.command
        result = action.run(task_vars={"inventory_hostname": "one"})
        assert action._task.async_val == async_val  # else Ansible would poll it, too
        return result, lines

    return go


def test_lines_for_a_long_run(act: Any) -> None:
    plan = [{"name": "plan", "seconds": 0.25}]
    host = Host(
        (None, RUNNING, True),
        (copying(MIB, plan), RUNNING, True),
        (copying(2 * MIB, plan), RUNNING, True),
        (None, "{}", False),
    )
    result, lines = act(host)
    assert lines == [
        "one: backup: plan took 0.25 s",
        "one: backup: copy 1 MiB of 4 MiB (25 %), 1 MiB/s, 12 s left",
        "one: backup: copy 2 MiB of 4 MiB (50 %), 1 MiB/s, 12 s left",
    ]
    assert result == {"changed": True, "snapshot_id": "5f0c"}
    assert host.modules == [(_progress.LIMIT_S, True)]
    assert host.commands[-1] == "rm -f /root/.ansible_async/j123.45"


def test_a_short_run_prints_nothing(act: Any) -> None:
    assert act(Host((copying(MIB), RUNNING, True), (None, "{}", False)))[1] == []


def test_the_delegate_is_named_and_no_log_is_kept(act: Any) -> None:
    looks = ((None, RUNNING, True), (copying(MIB), RUNNING, True), (None, "{}", False))
    lines = act(Host(*looks), plugin=volume_restore, delegate_to="two")[1]
    assert [line.split(": ")[:2] for line in lines] == [["one -> two", "restore"]]
    assert act(Host(*looks), no_log=True)[1] == []


@pytest.mark.parametrize(("check", "asked", "run"), [(True, 0, (0, False)), (False, 600, (600, True))])
def test_check_mode_and_a_users_own_async_run_as_any_module(act: Any, check: bool, asked: int, run: Any) -> None:
    host = Host()
    act(host, check=check, async_val=asked)
    assert (host.modules, host.commands) == ([run], [])


def test_a_killed_module_is_one_sentence(act: Any) -> None:
    result, lines = act(Host((None, RUNNING, True), (None, RUNNING, False), (None, RUNNING, False)))
    assert result["failed"]
    assert "was killed before it could say anything; run it again" in result["msg"]
    assert lines == []


def test_a_killed_module_is_one_sentence_where_ansibles_wrapper_outlives_it(act: Any) -> None:
    host = Host((None, "{}", False))
    trace = 'Traceback: File "async_wrapper.py", line 173: No start of json char found'
    host.result = {"failed": True, "finished": True, "data": "", "msg": trace, "cmd": "AnsiballZ_volume_backup.py"}
    result, _lines = act(host)
    assert "was killed before it could say anything; run it again" in result["msg"]
    assert "Traceback" not in json.dumps(result)


def test_an_update_is_watched_by_its_projects_name(act: Any) -> None:
    host = Host((copying(MIB), RUNNING, True), (None, "{}", False))
    act(host, plugin=stack_update, args={"project_name": "om_other"})
    assert "/run/openmemory-stack/om_other/progress.json" in host.commands[0]


def test_a_connection_that_comes_back(act: Any) -> None:
    gone = AnsibleConnectionFailure("no route")
    result, lines = act(Host((None, RUNNING, True), gone, gone, (copying(MIB), RUNNING, True), (None, "{}", False)))
    assert lines[0] == "one: backup: the connection is lost, trying again; it goes on there"
    assert len(lines) == 2
    assert result["snapshot_id"] == "5f0c"


def test_a_connection_that_stays_away_says_that_it_goes_on(act: Any) -> None:
    with pytest.raises(
        AnsibleConnectionFailure, match=r"one is lost \(no route\)\. The backup goes on there by itself"
    ):
        act(Host(*[AnsibleConnectionFailure("no route")] * 150))


def test_nothing_is_said_twice() -> None:
    lines = Lines("a", 0)
    assert len(lines.of(copying(MIB), 1)) == 1
    assert lines.of(copying(MIB), 2) == []


@pytest.mark.parametrize(("state", "newer", "seen"), [(RUNNING, True, (False, True)), ("{}", False, (True, False))])
def test_the_look_at_a_host_is_a_command_that_any_shell_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, newer: bool, seen: tuple[bool, bool]
) -> None:
    action = volume_backup.ActionModule.__new__(volume_backup.ActionModule)
    action._task = SimpleNamespace(args={"compose_project": "om"})
    result = tmp_path / "j123.45"
    result.write_text(state)
    job = {"ansible_job_id": "j123456789.45", "results_file": str(result)}
    text = action._command(job).replace("/run/openmemory-stack/om/progress.json", str(tmp_path / "progress.json"))
    assert str(tmp_path / "progress.json") in text
    if newer:
        (tmp_path / "progress.json").write_text(json.dumps(copying(1)))
    worker = ["sh", "-c", "sleep 5; :", job["ansible_job_id"]]
    with subprocess.Popen(worker if newer else ["true"]) as process:
        if not newer:
            process.wait()
        done = subprocess.run(["sh", "-c", text], check=True, capture_output=True, text=True).stdout
        process.kill()
    action._low_level_execute_command = lambda _command: {"rc": 0, "stdout": done}
    found = action._look(job)
    assert (found.finished, found.alive) == seen
    assert found.progress == (copying(1) if newer else None)
