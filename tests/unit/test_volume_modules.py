# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two adapters: options in, one sentence or one result out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openmemory.stack.plugins.modules import volume, volume_info

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(engine: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a module's main() on the fake engine; returns what it printed."""

    def go(module: Any, check: bool = False, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(module, "connect", lambda _module: engine)
        with patch_module_args({**options, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return go


def test_volume_from_check_mode_to_removal(run: Run, engine: Any) -> None:
    asked = {"volumes": [{"name": "ab", "labels": {"a": "b"}}], "size": True}
    predicted = run(volume, check=True, **asked)
    assert engine.known == {}
    done = run(volume, **asked)
    for result in (predicted, done):
        result["volumes"][0]["filesystem"]["free_bytes"] = result["invocation"] = None
    assert done == predicted
    assert (done["changed"], done["actions"], done["volumes"][0]["size_bytes"]) == (True, ["create volume ab"], 0)
    assert not run(volume, **asked)["changed"]
    assert run(volume, check=True, state="absent", volumes=[{"name": "ab"}])["changed"]
    assert list(engine.known) == ["ab"]
    gone = run(volume, state="absent", volumes=[{"name": "ab"}])
    assert gone["volumes"] == [{"name": "ab", "removed": True, "directory_left": None}]
    assert engine.known == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"volumes": [{"name": "ab", "size": "1G"}]}, "volumes.size. Supported parameters"),
        ({"volumes": [{"path": "/x"}]}, "missing required arguments: name found in volumes"),
        ({"volumes": [{"name": "ab", "path": "x"}]}, "volume ab: path x is not absolute"),
        ({"volumes": [{"name": "ab", "path": "/x", "mode": 755}]}, "mode is the number 755"),
        ({"volumes": [{"name": "ab", "store": "redis"}]}, "store must be one of: sqlite, qdrant, neo4j, files"),
        ({"volumes": [{"name": "ab"}], "on_drift": "recreate"}, "on_drift must be one of: fail, ignore"),
        ({"volumes": [{"name": "ab"}], "min_free": "?"}, "min_free is '?'"),
    ],
)
def test_bad_input_fails_with_one_sentence(run: Run, engine: Any, options: dict[str, Any], words: str) -> None:
    result = run(volume, **options)
    assert result["failed"]
    assert words in result["msg"]
    assert "\n" not in result["msg"]
    assert engine.calls == []


def test_module_min_free_is_for_all(run: Run) -> None:
    assert "no room" in run(volume, volumes=[{"name": "ab"}], min_free="9000T")["msg"]


@pytest.mark.parametrize("module", [volume, volume_info])
def test_an_engine_that_does_not_answer(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"volumes": [{"name": "ab"}]} if module is volume else {}
    with (
        patch_module_args({**options, "docker_host": "unix:///nowhere/docker.sock", "timeout": 2}),
        pytest.raises(SystemExit),
    ):
        module.main()
    assert json.loads(capsys.readouterr().out)["msg"] == (
        "The Docker engine at unix:///nowhere/docker.sock cannot be reached (there is no such socket); "
        "start the engine or correct docker_host."
    )


def test_volume_info(run: Run, engine: Any) -> None:
    engine.add("ab", labels={"tier": "gold"})
    found = run(volume_info, names=["ab", "cd"], labels=["tier=gold"])
    assert (found["changed"], found["missing"]) == (False, ["cd"])
    assert [entry["name"] for entry in found["volumes"]] == ["ab"]
    assert "files" not in found["volumes"][0]
    assert run(volume_info, size=True)["volumes"][0]["files"] == 0
