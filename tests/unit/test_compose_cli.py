# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How Docker Compose is called, and how its refusals read."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_cli import (
    NOT_INSTALLED,
    ComposeCli,
    Connection,
    find_plugin,
    plugin_identity,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.process import start_ticks
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_secrets import Mask

SOCKET = Connection("unix:///var/run/docker.sock")
PLUGIN = "/plugins/docker-compose"
WORDS = ["--host", "unix:///var/run/docker.sock", "compose", "--project-name", "om"]
START = [PLUGIN, *WORDS]
AS_PLUGIN = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"


class Run:
    """Stands in for subprocess.run and keeps how it was called."""

    def __init__(self, rc: int = 0, stdout: str = "", stderr: str = "", error: Exception | None = None):
        self.answer = (rc, stdout.encode(), stderr.encode())
        self.error = error
        self.argv: list[str] = []
        self.options: dict[str, Any] = {}

    def __call__(self, argv: list[str], **options: Any) -> Any:
        self.argv, self.options = argv, options
        if self.error:
            raise self.error
        return subprocess.CompletedProcess(argv, *self.answer)


def cli(run: Run, **options: Any) -> ComposeCli:
    return ComposeCli(SOCKET, "om", "/opt/om", run=run, plugin=PLUGIN, **options)


def test_the_exact_command() -> None:
    run = Run(stdout="{}")
    cli(run, files=["/tmp/x/a.yml", "/tmp/x/b.yml"], env_file="/tmp/x/.env").config()
    assert run.argv == [
        *START, "--project-directory", "/opt/om", "--env-file", "/tmp/x/.env", "--file", "/tmp/x/a.yml",
        "--file", "/tmp/x/b.yml", "config", "--format", "json",
    ]  # fmt: skip
    assert run.options["stdin"] is subprocess.DEVNULL


def test_the_environment_of_the_caller_does_not_reach_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "another")
    monkeypatch.setenv("COMPOSE_FILE", "another")
    monkeypatch.setenv("DOCKER_CONFIG", "/kept")
    run = Run()
    cli(run).run("stop")
    assert run.argv == [*START, "stop"]
    assert run.options["env"]["DOCKER_CONFIG"] == "/kept"
    assert {"GOOGLE_API_KEY", "COMPOSE_FILE"}.isdisjoint(run.options["env"])


@pytest.mark.parametrize(
    ("connection", "plugin", "start"),
    [
        (SOCKET, PLUGIN, START),
        (SOCKET, "", ["docker", *WORDS]),
        (Connection(SOCKET.docker_host, tls=True), PLUGIN, ["docker", *WORDS[:2], "--tls", *WORDS[2:]]),
        (Connection("tcp://h:2375"), PLUGIN, ["docker", "--host", "tcp://h:2375", *WORDS[2:]]),
        (Connection("ssh://h"), PLUGIN, ["docker", "--host", "ssh://h", *WORDS[2:]]),
    ],
)
def test_only_a_local_socket_and_a_known_plugin_do_without_the_docker_command(
    connection: Connection, plugin: str, start: list[str]
) -> None:
    run = Run()
    ComposeCli(connection, "om", "/opt/om", run=run, plugin=plugin).run("ps")
    assert run.argv == [*start, "ps"]
    # without it the plugin takes itself for the old docker-compose, which knows no word `compose`
    assert run.options["env"].get(AS_PLUGIN) == ("docker" if start[0] == PLUGIN else None)


@pytest.mark.parametrize(
    ("mode", "config", "direct"),
    [(0o755, None, True), (0o755, "{}", True), (0o644, "{}", False), (0o755, '{"cliPluginsExtraDirs": ["/x"]}', False)],
)
def test_the_plugin_of_the_users_configuration_comes_first(
    mode: int, config: str | None, direct: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cli-plugins" / "docker-compose"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    if config:
        (tmp_path / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find_plugin() == str(path)
    assert plugin_identity() == f"{path.stat().st_size}-{path.stat().st_mtime_ns}"
    run = Run()
    ComposeCli(SOCKET, "om", "/opt/om", run=run).run("ps")
    assert run.argv == [str(path) if direct else "docker", *WORDS, "ps"]


def test_the_connection_options_reach_the_docker_command() -> None:
    connection = Connection("tcp://h:2376", "1.41", True, True, "/ca.pem", "/cert.pem", "/key.pem")
    assert connection.arguments() == [
        "--host", "tcp://h:2376", "--tlsverify", "--tlscacert", "/ca.pem", "--tlscert", "/cert.pem", "--tlskey",
        "/key.pem",
    ]  # fmt: skip
    assert Connection("tcp://h:2376", tls=True).arguments() == ["--host", "tcp://h:2376", "--tls"]


def test_a_refusal_is_composes_own_reason_without_scratch_paths_progress_and_secrets() -> None:
    stderr = (
        'time="2026-01-01T00:00:00Z" level=warning msg="The \\"X\\" variable is not set."\n'
        " Container om-a-1  Creating\n"
        "validating /tmp/x/a.yml: services.a additional properties 'hunter22' not allowed\n"
    )
    command = cli(Run(15, stderr=stderr), files=["/tmp/x/a.yml"], mask=Mask(["hunter22"]))
    with pytest.raises(StackError) as refused:
        command.config()
    assert str(refused.value) == (
        "Docker Compose refuses a.yml: validating a.yml: services.a additional properties '********' not allowed."
    )
    assert command.run("config").warnings == ['The "X" variable is not set.']


@pytest.mark.parametrize(
    "run",
    [
        Run(error=FileNotFoundError("docker")),
        Run(1, stderr="docker: 'compose' is not a docker command.\nSee 'docker --help'"),
        Run(125, stderr="unknown flag: --project-name"),
    ],
)
def test_no_compose_is_one_sentence(run: Run) -> None:
    with pytest.raises(StackError) as refused:
        cli(run).config()
    assert str(refused.value) == NOT_INSTALLED


def test_a_command_that_takes_too_long_is_no_exception() -> None:
    outcome = cli(Run(error=subprocess.TimeoutExpired("docker", 1, b"", b" Container a  Waiting"))).run("up", timeout=1)
    assert (outcome.timed_out, outcome.rc) == (True, 124)


def test_it_ends_with_us_where_that_is_asked_for(tmp_path: Path) -> None:
    """Compose would go on beside whoever repairs what a killed run has left."""
    plugin, told = tmp_path / "docker-compose", tmp_path / "pid"
    plugin.write_text(f"#!/bin/sh\necho $$ > {told}.new\nmv {told}.new {told}\nexec sleep 60\n")
    plugin.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            ComposeCli(SOCKET, "om", str(tmp_path), plugin=str(plugin), ends_with_us=True).run("up")
        finally:
            os._exit(1)
    end = time.monotonic() + 10
    while not told.exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pid = int(told.read_text())
    while start_ticks(pid) is not None and time.monotonic() < end:
        time.sleep(0.01)
    alive = start_ticks(pid) is not None
    if alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive


@pytest.mark.parametrize(("have", "enough"), [("2.24.4", True), ("2.24.3", False), ("v2.40.3", True), ("5.0.0", True)])
def test_the_minimum_version(have: str, enough: bool) -> None:
    command = cli(Run(stdout=have + "\n"), files=["/x/a.yml"])
    if enough:
        command.require("2.24.4")
    else:
        with pytest.raises(StackError, match=r"Docker Compose 2\.24\.3 is too old for a\.yml, which needs 2\.24\.4"):
            command.require("2.24.4")
