# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action fleet_report: two files, as a whole or not at all, and a change only where something has changed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible_collections.openmemory.stack.plugins.action import fleet_report, fleet_report_info
from ansible_collections.openmemory.stack.plugins.doc_fragments import fleet
from ansible_collections.openmemory.stack.plugins.modules import fleet_report as documented

from .fleet_samples import answer, container, stack, unreachable

ROLE = Path(__file__).resolve().parents[2] / "roles/report"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(
        fleet_report.ActionModule, "_find_needle", lambda _self, kind, name: str(ROLE / kind / name), raising=False
    )

    def go(*hosts: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"template": "report.html.j2", "stylesheet": "report.css", "directory": str(tmp_path / "out")}
        task = Task.load({"openmemory.stack.fleet_report": {}})
        task.args = {**given, "hosts": list(hosts), **options}
        task.check_mode = check
        connection = Mock(_shell=Mock(tmpdir=None))
        action = fleet_report.ActionModule(task, connection, Mock(check_mode=check), DataLoader(), Mock(), Mock())
        return action.run(task_vars={})

    return go


def test_it_writes_the_page_and_the_same_as_json(run: Run, tmp_path: Path) -> None:
    done = run(answer("memory-1", stack()), unreachable("memory-2"))
    assert done["changed"]
    assert done["msg"] == f"1 of 2 hosts needs attention: {tmp_path}/out/index.html"
    told = json.loads(Path(done["json"]).read_text())
    assert [host["name"] for host in told["hosts"]] == ["memory-2", "memory-1"]
    assert done["summary"] == told["summary"]
    assert "Connection refused" in Path(done["page"]).read_text()
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in (done["page"], done["json"])} == {0o640}
    assert sorted(os.listdir(tmp_path / "out")) == ["index.html", "report.json"]


def test_an_unchanged_fleet_is_no_change_and_gets_the_time_of_now(run: Run) -> None:
    first = run(answer("a", stack()))
    before = json.loads(Path(first["json"]).read_text())
    Path(first["json"]).write_text(json.dumps({**before, "generated": "2001-01-01T00:00:00Z"}))
    again = run(answer("a", stack()))
    assert not again["changed"]
    assert again["diff"]["before"] == again["diff"]["after"]
    assert json.loads(Path(again["json"]).read_text())["generated"] > "2001-01-02"


def test_a_changed_fleet_is_a_change_with_a_diff_of_words(run: Run) -> None:
    run(answer("a", stack()))
    done = run(answer("a", stack(containers=[container("qdrant", "exited")])))
    assert done["changed"]
    assert done["diff"]["before"] == "a: ok\na openmemory: ok, snapshot 5f0c2a9b\n"
    assert "a openmemory: The container openmemory-qdrant-1 is exited.\n" in done["diff"]["after"]


def test_check_mode_tells_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    assert run(answer("a", stack()), check=True)["changed"]
    assert not (tmp_path / "out").exists()
    run(answer("a", stack()))
    before = (tmp_path / "out/index.html").read_bytes()
    assert not run(answer("a", stack()), check=True)["changed"]
    assert run(unreachable("a"), check=True)["changed"]
    assert (tmp_path / "out/index.html").read_bytes() == before


@pytest.mark.parametrize("lost", ["index.html", "report.json"])
def test_a_missing_or_spoilt_file_is_made_anew(run: Run, tmp_path: Path, lost: str) -> None:
    run(answer("a", stack()))
    (tmp_path / "out" / lost).unlink()
    assert run(answer("a", stack()))["changed"]
    (tmp_path / "out/report.json").write_text("[")
    assert run(answer("a", stack()))["changed"]
    (tmp_path / "out/report.json").write_text('{"state": 7, "hosts": 5}')
    assert run(answer("a", stack()))["changed"]
    assert not run(answer("a", stack()))["changed"]


def test_a_failure_halfway_leaves_the_old_page(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(answer("a", stack()))
    before = (tmp_path / "out/index.html").read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AnsibleActionFail, match="cannot be written"):
        run(unreachable("a"))
    assert (tmp_path / "out/index.html").read_bytes() == before
    assert sorted(os.listdir(tmp_path / "out")) == ["index.html", "report.json"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hosts": None}, "hosts is no list"),
        ({"hosts": [{"result": {}}]}, "hosts is no list"),
        ({"mode": "rw"}, "mode is 'rw'; give one such as '0640'"),
        ({"mode": "07777"}, "mode is '07777'"),
        ({"directory": "/dev/null/x"}, "/dev/null/x/index.html cannot be written"),
        ({"max_age_hours": "soon"}, "max_age_hours"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnsibleActionFail, match=sentence):
        run(**options)


def test_the_documentation_has_the_options_and_their_defaults() -> None:
    shared = yaml.safe_load(fleet.ModuleDocFragment.DOCUMENTATION)["options"]
    own = yaml.safe_load(documented.DOCUMENTATION)["options"]
    told = {name: about.get("default") for name, about in {**shared, **own}.items() if not about.get("required")}
    limits = {name: getattr(fleet_report.Limits, name) for name in fleet_report.LIMITS}
    assert told == {**limits, "title": "OpenMemory", "mode": "0640"}
    assert set(shared) - {"hosts"} == set(fleet_report.options())


def test_the_info_twin_tells_the_same_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    hosts = [answer("a", stack()), unreachable("b")]
    task = Task.load({"openmemory.stack.fleet_report_info": {}})
    task.args = {"hosts": hosts, "max_age_hours": "1"}
    arguments = task, Mock(_shell=Mock(tmpdir=None)), Mock(check_mode=False), DataLoader(), Mock(), Mock()
    told = fleet_report_info.ActionModule(*arguments).run(task_vars={})
    assert not told["changed"]
    assert [each["code"] for each in told["report"]["findings"]] == ["unreachable", "stale"]
    assert os.listdir(tmp_path) == []
    assert json.loads(Path(run(*hosts, max_age_hours=1)["json"]).read_text())["hosts"] == told["report"]["hosts"]
