# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Compose command line: run with closed stdin, never with --yes, and its refusals made readable."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import StackError
from .operation.process import dies_with_us
from .project_secrets import Mask

# Only these reach Compose from the environment: what is interpolated comes from .env alone, whoever runs it.
_PASSED_ON = (
    "PATH", "HOME", "DOCKER_CONFIG", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "TMPDIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
_PLUGIN_DIRECTORIES = (  # the docker command's own order, after cli-plugins in its configuration directory
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
# By this variable the docker command tells a plugin that it is one, and what it was called as.
_AS_PLUGIN = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
_LOG_LINE = re.compile(r'^time="[^"]*" level=(\w+) msg=(".*")$')
_PROGRESS = re.compile(r"^ ")
NOT_INSTALLED = (
    "Docker Compose v2 (`docker compose`) is not installed on this host; install the package docker-compose-plugin, or "
    "let the role docker_host do it."
)


@dataclass
class Outcome:
    """What a command said; timed_out where it was stopped because its time was up."""

    rc: int
    stdout: str
    stderr: str
    timed_out: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass
class Connection:
    """How the docker command reaches the engine; the same options as the Docker SDK is given."""

    docker_host: str
    api_version: str = "auto"
    tls: bool = False
    validate_certs: bool = False
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None

    def arguments(self) -> list[str]:
        words = ["--host", self.docker_host]
        if self.validate_certs:
            words.append("--tlsverify")
        elif self.tls:
            words.append("--tls")
        if self.tls or self.validate_certs:
            for flag, path in (
                ("--tlscacert", self.ca_path), ("--tlscert", self.client_cert), ("--tlskey", self.client_key)
            ):  # fmt: skip
                if path:
                    words += [flag, path]
        return words

    @property
    def is_plain_socket(self) -> bool:
        """Whether it is a Unix socket on this machine, without TLS."""
        return self.docker_host.startswith("unix://") and not (self.tls or self.validate_certs)


class ComposeCli:
    """`docker compose` for one project. files and env_file are paths; without them only labels lead to the project.

    On a local socket the plugin is run as the docker command would run it, with the same words: `config` takes 96 to
    145 ms through the docker command, which asks the plugin who it is first, and 47 to 61 without (measured).
    """

    def __init__(
        self,
        connection: Connection,
        project_name: str,
        project_src: str,
        files: Sequence[str] = (),
        env_file: str | None = None,
        mask: Mask | None = None,
        in_place: bool = False,
        ends_with_us: bool = False,
        run: Callable[..., Any] = subprocess.run,
        plugin: str | None = None,
    ):
        self.connection = connection
        self.project_name = project_name
        self.project_src = project_src
        self.files = list(files)
        self.env_file = env_file
        self.mask = mask or Mask(())
        self.in_place = in_place  # whether Compose shall find the files in project_src by itself
        self.ends_with_us = ends_with_us  # whether Compose is killed when we are
        self._run = run
        self._plugin = plugin  # a path; "" is none

    def config(self) -> tuple[dict[str, Any], list[str]]:
        """The project as Compose resolves it, and Compose's warnings. Raises StackError with Compose's own reason."""
        outcome = self.run("config", "--format", "json")
        if outcome.rc:
            raise StackError(f"Docker Compose refuses {self._names()}: {self.reason(outcome)}")
        try:
            found: dict[str, Any] = json.loads(outcome.stdout)
        except ValueError as error:
            raise StackError(f"`docker compose config` gave no JSON ({error}); update Docker Compose.") from error
        return found, outcome.warnings

    def version(self) -> tuple[int, int, int]:
        text = self.run("version", "--short").stdout.strip()
        found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text)
        if not found:
            raise StackError(f"`docker compose version` answers {text!r}; Docker Compose v2 is needed.")
        return int(found[1]), int(found[2]), int(found[3])

    def require(self, minimum: str) -> None:
        """Raise StackError if Compose is older than minimum, like "2.24"."""
        version = self.version()
        if version < tuple(int(part) for part in re.findall(r"\d+", minimum)):
            raise StackError(
                f"Docker Compose {'.'.join(map(str, version))} is too old for {self._names()}, which needs {minimum} "
                "or newer; update the package docker-compose-plugin."
            )

    def run(self, *arguments: str, timeout: float | None = None) -> Outcome:
        """Run one subcommand. Raises StackError only where Compose cannot be run at all."""
        argv = self.argv(*arguments)
        # where the labels alone shall decide, Compose must not find files by itself
        directory = self.project_src if self.in_place else "/"
        try:
            done = self._run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                cwd=directory,
                env=_environment(self, argv[0]),
                check=False,
                preexec_fn=dies_with_us(signal.SIGKILL) if self.ends_with_us else None,
            )
        except FileNotFoundError as error:
            raise StackError(NOT_INSTALLED) from error
        except subprocess.TimeoutExpired as error:
            return Outcome(124, _text(error.stdout), self.mask(_text(error.stderr)), timed_out=True)
        stderr = _text(done.stderr)
        if done.returncode and ("'compose' is not a docker command" in stderr or "unknown flag: --project" in stderr):
            raise StackError(NOT_INSTALLED)
        return Outcome(done.returncode, _text(done.stdout), self.mask(stderr), warnings=self._warnings(stderr))

    def argv(self, *arguments: str) -> list[str]:
        command = self._direct() or "docker"
        words = [command, *self.connection.arguments(), "compose", "--project-name", self.project_name]
        if self.files:
            words += ["--project-directory", self.project_src]
        if self.env_file:
            words += ["--env-file", self.env_file]
        for path in self.files:
            words += ["--file", path]
        return [*words, *arguments]

    def reason(self, outcome: Outcome) -> str:
        """The sentence in which Compose gave up, without progress lines, warnings and scratch paths."""
        lines = []
        for line in outcome.stderr.splitlines():
            logged = _LOG_LINE.match(line)
            if logged and logged[1] in ("warning", "info", "debug"):
                continue
            if line.strip() and not _PROGRESS.match(line):
                lines.append(_unquoted(logged[2]) if logged else line.strip())
        text = "; ".join(lines) or f"exit status {outcome.rc}"
        for path in self.files:
            text = text.replace(path, os.path.basename(path))
        return self.mask(text if text.endswith((".", "!", "?")) else text + ".")

    def _direct(self) -> str:
        """The plugin, where it can be run without the docker command; else empty."""
        if not self.connection.is_plain_socket:
            return ""
        if self._plugin is None:
            found = find_plugin()
            self._plugin = found if os.access(found, os.X_OK) and not _has_more_directories() else ""
        return self._plugin

    def _names(self) -> str:
        return " with ".join(os.path.basename(path) for path in self.files) or f"the project in {self.project_src}"

    def _warnings(self, stderr: str) -> list[str]:
        found = []
        for line in stderr.splitlines():
            logged = _LOG_LINE.match(line)
            if logged and logged[1] == "warning":
                found.append(self.mask(_unquoted(logged[2])))
        return found


def is_installed() -> bool:
    """Whether there is a docker command with a Compose plugin, without running it."""
    return shutil.which("docker") is not None and plugin_identity() != ""


def find_plugin() -> str:
    """Path of the Compose plugin that the docker command would run; empty if there is none."""
    for directory in (os.path.join(_configuration(), "cli-plugins"), *_PLUGIN_DIRECTORIES):
        path = os.path.join(directory, "docker-compose")
        if os.path.exists(path):
            return path
    return ""


def plugin_identity() -> str:
    """Something that changes when the Compose plugin is updated, without the time of asking it. Empty if not found."""
    try:
        found = os.stat(find_plugin())
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _configuration() -> str:
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def _has_more_directories() -> bool:
    """Whether the docker command is told of further plugin directories; releases differ in where these come."""
    try:
        with open(os.path.join(_configuration(), "config.json"), encoding="utf-8") as handle:
            return "cliPluginsExtraDirs" in handle.read()
    except (OSError, ValueError):
        return False


def _environment(cli: ComposeCli, command: str) -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    passed["LC_ALL"] = "C.UTF-8"
    if command != "docker":
        passed[_AS_PLUGIN] = "docker"
    if cli.connection.api_version != "auto":
        passed["DOCKER_API_VERSION"] = cli.connection.api_version
    return passed


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:  # Go quotes some characters in its own way
        return text.strip('"')


def _text(data: bytes | str | None) -> str:
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""
