# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules compose and compose_info on the real engine with the real Docker Compose."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import IMAGE, Lab

PROJECT = "omtest"
SECRET = "hunter22 $x"


class Stack:
    """One project of two services, and the modules on it."""

    def __init__(self, lab: Lab):
        self.lab = lab
        self.directory = lab.directory / "project"
        service = {"image": IMAGE, "command": ["/bin/sleep", "600"], "init": True, "stop_grace_period": "1s"}
        check = {"test": ["CMD", "/bin/sleep", "0"], "interval": "1s", "retries": 2}
        self.config: dict[str, Any] = {
            "services": {
                "a": {**service, "environment": {"PW": "${PW}"}, "healthcheck": check, "volumes": ["data:/data"]},
                "b": {**service, "depends_on": {"a": {"condition": "service_healthy"}}},
            },
            "volumes": {"data": {"driver": "local"}},
        }

    def options(self, **more: Any) -> dict[str, Any]:
        """Options of the module for the config as it is now."""
        base = {
            "project_name": PROJECT,
            "project_src": str(self.directory),
            "files": [{"name": "compose.yml", "content": json.dumps(self.config, indent=1)}],
            "secrets": {"PW": SECRET},
        }
        return {**base, **more}

    def run(self, *flags: str, **more: Any) -> dict[str, Any]:
        return self.lab.ansible("openmemory.stack.compose", *flags, **self.options(wait_timeout=60, **more))

    def both(self, **more: Any) -> list[str]:
        """Check mode, then the real thing: they must agree. Returns what happened to networks and containers."""
        foretold = self.run("--check", **more)
        happened = self.run(**more)
        assert "msg" not in happened, happened
        assert foretold["changed"] == happened["changed"]
        assert things(foretold) == things(happened)
        return things(happened)

    def ids(self) -> dict[str, str]:
        found = self.lab.client.containers(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"})
        return {container["Labels"]["com.docker.compose.service"]: container["Id"] for container in found}

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, cwd=self.directory)
        return done.stdout + done.stderr


def things(result: dict[str, Any]) -> list[str]:
    """The actions on networks, volumes and containers, whether they happened or would have."""
    found = [action.replace("would be ", "") for action in result["actions"]]
    return sorted(action for action in found if re.match("container|network|volume", action))


@pytest.fixture
def stack(lab: Lab) -> Iterator[Stack]:
    made = Stack(lab)
    yield made
    subprocess.run(
        ["docker", "compose", "-p", PROJECT, "down", "-v", "-t", "1"], check=True, capture_output=True, cwd="/"
    )


def test_a_life_told_by_check_mode_before_each_step(stack: Stack) -> None:
    assert stack.both() == [
        "container omtest-a-1 created", "container omtest-b-1 created", "network omtest_default created",
        "volume omtest_data created",
    ]  # fmt: skip
    first = stack.ids()
    assert stack.both() == []
    assert "Running" in stack.docker("compose", "up", "-d")  # typed by hand, it finds the same project
    assert stack.ids() == first
    stack.config["services"]["b"]["environment"] = {"MORE": "1"}
    assert stack.both() == ["container omtest-b-1 recreated"]
    stack.docker("stop", "-t", "1", "omtest-a-1")
    assert stack.both() == ["container omtest-a-1 started"]
    assert stack.both(state="stopped") == ["container omtest-a-1 stopped", "container omtest-b-1 stopped"]
    assert stack.both(state="stopped") == []
    assert stack.both() == ["container omtest-a-1 started", "container omtest-b-1 started"]
    assert stack.both(state="restarted") == ["container omtest-a-1 restarted", "container omtest-b-1 restarted"]
    del stack.config["services"]["b"]
    assert stack.both(remove_orphans=True) == ["container omtest-b-1 removed"]
    assert stack.both(state="absent") == ["container omtest-a-1 removed"]
    assert stack.lab.names() == ["omtest_data"]
    assert stack.both(state="absent") == []


def test_the_short_way_sees_whatever_up_would_change(stack: Stack) -> None:
    stack.run()
    stack.docker("rm", "-f", "omtest-b-1")
    assert stack.both() == ["container omtest-b-1 created"]
    stack.docker("network", "disconnect", "omtest_default", "omtest-b-1")
    assert stack.run()["changed"]
    stack.lab.client.tag(f"{PROJECT}/neo4j", IMAGE, force=True)
    other = stack.lab.client.commit("omtest-a-1", repository=IMAGE, changes=["ENV OTHER=1"])["Id"]
    result = stack.run()
    assert things(result) == ["container omtest-a-1 recreated", "container omtest-b-1 recreated"]
    assert result["services"]["a"]["image_id"] == other
    stack.config["networks"] = {"default": {"labels": {"new": "1"}}}
    stack.run()
    assert stack.run()["changed"] is False


def test_volumes_at_risk_are_refused_before_anything_is_written(stack: Stack) -> None:
    place = stack.lab.directory / "place"
    place.mkdir()
    stack.lab.client.create_volume("omtest_data", driver_opts={"type": "none", "o": "bind", "device": str(place)})
    refused = stack.run()["msg"]
    assert refused.startswith("The volume omtest_data exists as driver local with device=")
    stack.config["volumes"]["data"] = {"external": True, "name": "omtest_nope"}
    assert "The external volume omtest_nope (volumes.data of the compose file) does not exist" in stack.run()["msg"]
    foretold = stack.run("--check", expected_volumes=["omtest_nope"])
    assert things(foretold) == [
        "container omtest-a-1 created", "container omtest-b-1 created", "network omtest_default created"
    ]  # fmt: skip
    assert not stack.directory.exists()
    assert stack.ids() == {}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: [", "Docker Compose refuses compose.yml: "),
        ("hello", "Docker Compose refuses compose.yml: top-level object must be a mapping."),
        ("services: {a: {image: x, nope: 1}}", "'nope' not allowed."),
        ("services: {a: {image: 'x y'}}", "services.a.image is 'x y', which is no name of an image; correct it."),
        ("services: {a: {image: x, env_file: nope.env}}", "nope.env not found"),
        ("services: {a: {image: '${NOPE:?not set}'}}", "required variable NOPE is missing a value: not set."),
    ],
)
def test_a_file_that_compose_refuses_changes_nothing(stack: Stack, content: str, sentence: str) -> None:
    options = stack.options(files=[{"name": "compose.yml", "content": content}])
    for module in ("compose_info", "compose"):
        result = stack.lab.ansible(f"openmemory.stack.{module}", **options)
        assert sentence in result["msg"]
        assert "/compose-" not in result["msg"]  # where it was checked is of no use to anybody
    assert not stack.directory.exists()


def test_an_unhealthy_service_is_explained_without_its_secret(stack: Stack) -> None:
    stack.config["services"]["a"]["healthcheck"]["test"] = ["CMD", "/bin/sleep", "${PW}"]
    stack.config["services"]["a"]["command"] = ["/bin/sleep", "600"]
    result = stack.run()
    assert result["msg"].startswith("The stack omtest did not start: dependency failed to start")
    assert "Service a: container omtest-a-1 is running and unhealthy; its last health check said: " in result["msg"]
    assert "invalid time interval" in result["msg"]
    assert "hunter22" not in json.dumps(result)
    stack.config["services"]["b"].update(command=["/bin/sleep", "x"], depends_on={})
    stack.config["services"]["a"]["healthcheck"]["test"] = ["CMD", "/bin/sleep", "0"]
    result = stack.run()
    assert "Service b: container omtest-b-1 is exited (exit code 1)." in result["msg"]
    assert "sleep: invalid time interval" in result["msg"]


def test_files_are_private_where_they_must_be_and_relative_paths_are_the_projects(stack: Stack) -> None:
    stack.config["services"]["a"]["volumes"].append("./conf:/conf")
    info = stack.lab.ansible("openmemory.stack.compose_info", **stack.options(gather_containers=False))
    assert {"type": "bind", "source": str(stack.directory / "conf"), "target": "/conf"} in info["services"]["a"][
        "mounts"
    ]
    assert info["volumes"]["data"]["name"] == "omtest_data"
    stack.run()
    assert mode(stack.directory / ".env") == 0o600
    assert mode(stack.directory / "compose.yml") == 0o644
    inside = stack.lab.client.inspect_container("omtest-a-1")["Config"]["Env"]
    assert f"PW={SECRET}" in inside
    deployed = stack.lab.ansible(
        "openmemory.stack.compose_info", project_name=PROJECT, project_src=str(stack.directory)
    )
    assert [(c["service"], c["state"]) for c in deployed["containers"]] == [("a", "running"), ("b", "running")]
    assert deployed["services"] == info["services"]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777
