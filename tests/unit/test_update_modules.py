# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules of updates: bad input as one sentence, options as the core's request, and what people are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import show
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.request import UpdateRequest
from ansible_collections.openmemory.stack.plugins.modules import stack_update, stack_update_info

FILES = [{"name": "compose.yml", "content": "services: {}"}]
NEEDED = {"project_name": "om", "project_src": "/opt/om", "files": FILES}


def run(module: Any, capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args({**NEEDED, **options}), pytest.raises(SystemExit):
        module.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "repository is not given, and a snapshot is made first; give it, or set snapshot: none."),
        ({"repository": "/r"}, "password_file is not given"),
        ({"snapshot": "none", "files": []}, "files is empty, and an update needs the compose file"),
        ({"snapshot": "none", "project_name": "Om"}, "project_name is 'Om'"),
        ({"snapshot": "none", "keep_days": -1}, "keep_days is -1; give days between 0 and 3650."),
        ({"snapshot": "none", "wait_timeout": 0}, "wait_timeout is 0; give seconds between 0 and 86400."),
        ({"snapshot": "none", "state_dir": "var"}, "state_dir is"),
        ({"snapshot": "none", "steps": "perhaps"}, "steps must be one of: auto, refuse"),
        ({"repository": "rest:http://user:hidden-word@host/", "password_file": "/p"}, "has a password in its URL"),
        ({"snapshot": "none", "docker_host": "tcp://127.0.0.1:1"}, "is not a socket of this host"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(stack_update, capsys, **options)
    assert found["failed"]
    assert said in found["msg"]
    assert "hidden-word" not in json.dumps(found)


def test_options_become_the_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[UpdateRequest, bool]] = []

    def fake(request: UpdateRequest, _engine: Any, _progress: Any, check_mode: bool) -> dict[str, Any]:
        asked.append((request, check_mode))
        return {"changed": True, "warnings": [], "actions": []}

    monkeypatch.setattr(stack_update.update, "run", fake)
    options = {"repository": "/r", "password_file": "/p", "environment": {"A": True}, "secrets": {"K": 1}}
    assert run(stack_update, capsys, **options, stop_timeout=3, pull="never", state_dir=str(tmp_path))["changed"]
    ((request, check_mode),) = asked
    assert (request.project, request.compose.pull, request.compose.stop_timeout) == ("om", "never", 3)
    assert (request.environment, dict(request.compose.secrets), check_mode) == ({"A": "true"}, {"K": "1"}, False)
    assert (request.deployment.pull, request.deployment.ends_with_us) == ("never", True)
    backup = request.backup()
    assert (backup.tags, backup.verify, backup.init) == (("before-update",), "quick", False)


def test_info_tells_and_changes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = {"present": True, "newer": False, "services": {}, "unfinished": None, "warnings": ["x is not known"]}
    monkeypatch.setattr(stack_update_info, "look", lambda *_: dict(told))
    found = run(stack_update_info, capsys)
    assert (found["changed"], found["newer"], found["present"]) == (False, False, True)


IMAGE = {"reference": "q:1", "id": "sha256:1", "digest": None, "version": "1"}
RESULT = {
    "updated": ["q"],
    "services": {"q": {"before": IMAGE, "after": {**IMAGE, "digest": "sha256:d2"}}},
    "actions": ["stop om-q-1"],
    "downtime_s": 2.0,
    "timings": {"stop": 1.0, "start": 1.0},
    "kept": [{"path": "/srv/old", "until": "2026-11-27T02:15:00+00:00"}],
    "warnings": ["look"],
}


def test_what_people_are_shown() -> None:
    text = show.update("om", RESULT)
    assert text.splitlines()[:4] == [
        "Updated in the stack om: q",
        "  stop om-q-1",
        "q: sha256:1",
        "   became sha256:d2",
    ]
    assert "Down for 2.00 s" in text
    assert text.endswith("Warning: look")
    assert show.update("om", {**RESULT, "downtime_s": None}).startswith("To be updated in the stack om: q\n")
    nothing = {**RESULT, "updated": [], "actions": [], "warnings": []}
    assert show.update("om", nothing) == "Nothing newer for the stack om."
