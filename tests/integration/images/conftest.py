"""Containers of the reference images on this machine's engine, all named omimg and removed afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

IMAGES = Path(__file__).resolve().parents[2] / "images"
PREFIX = "omimg"
START_SECONDS = 240  # on two busy cores


class Containers:
    """A network with one container per store, reached from here by their addresses on it."""

    def __init__(self) -> None:
        listed = subprocess.run(
            [sys.executable, str(IMAGES / "build.py")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [line.split() for line in listed.stdout.splitlines() if not line.startswith("images:")]
        self.images = dict(lines)
        self.clean()
        docker("network", "create", PREFIX)

    def image(self, name: str) -> str:
        """The local tag of an image by the start of its public name."""
        return next(tag for reference, tag in self.images.items() if reference.startswith(name))

    def run(self, name: str, image: str, *options: str) -> str:
        """Start a container `name` on the network; returns its address."""
        docker(
            "run",
            "--detach",
            "--name",
            f"{PREFIX}-{name}",
            "--network",
            PREFIX,
            "--network-alias",
            name,
            *options,
            image,
        )
        return self.address(name)

    def address(self, name: str) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return docker("inspect", "--format", form, f"{PREFIX}-{name}").strip()

    def exit_code(self, name: str) -> int:
        return int(docker("wait", f"{PREFIX}-{name}"))

    def logs(self, name: str) -> str:
        done = subprocess.run(["docker", "logs", f"{PREFIX}-{name}"], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def replace(self, name: str, image: str, *options: str) -> str:
        docker("rm", "--force", f"{PREFIX}-{name}")
        return self.run(name, image, *options)

    @staticmethod
    def clean() -> None:
        for kind, remove in (
            ("ps --all", "rm --force --volumes"),
            ("volume ls", "volume rm"),
            ("network ls", "network rm"),
        ):
            found = docker(*kind.split(), "--quiet", "--filter", f"name={PREFIX}").split()
            if found:
                docker(*remove.split(), *found)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def ask(url: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, Any]:
    """Status and decoded body (JSON, or text) of one request, whatever its status."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"content-type": "application/json", **named}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            status, raw = answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        status, raw = failure.code, failure.read().decode()
    try:
        return status, json.loads(raw)
    except ValueError:
        return status, raw


def wait_for(url: str, status: int = 200) -> None:
    """Until `url` answers `status`; fails after START_SECONDS."""
    deadline, last = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < deadline:
        try:
            last = str(ask(url))
            if last.startswith(f"({status},"):
                return
        except OSError as failure:
            last = str(failure)
        time.sleep(0.2)
    state = docker("ps", "--all", "--filter", f"name={PREFIX}", "--format", "{{.Names}}: {{.Status}}")
    pytest.fail(f"{url} did not answer {status} within {START_SECONDS} s; last: {last}; containers:\n{state}")


@pytest.fixture
def containers() -> Iterator[Containers]:
    made = Containers()
    yield made
    made.clean()
