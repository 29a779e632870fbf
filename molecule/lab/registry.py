"""The local registry that lab hosts pull the reference images from."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .commands import docker
from .containers import Container, gateway
from .errors import LabError
from .plan import LABEL, PREFIX

NAME = f"{PREFIX}-registry"
STORAGE = f"{PREFIX}-registry"
PORT = 5000
# Engines accept plain HTTP from loopback without being told, so this machine pushes there.
PUSH_ADDRESS = "127.0.1.250"
ANSWER_SECONDS = 30
BUILDER = Path("tests/images/build.py")


def pull_address() -> str:
    """HOST:PORT under which lab hosts reach the registry."""
    return f"{gateway()}:{PORT}"


def ensure_registry(image: str, existing: list[Container]) -> None:
    """Start the registry, reachable from this machine and from its containers only.

    Raises:
        LabError: its port is taken, or it does not answer.
    """
    known = next((container for container in existing if container.name == NAME), None)
    if known is None:
        docker("volume", "create", "--label", f"{LABEL}=cache", STORAGE)
        docker(*create_argv(image, gateway()))
    if known is None or not known.running:
        docker("start", NAME)
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answers():
        if time.monotonic() > deadline:
            raise LabError(f"The registry did not answer within {ANSWER_SECONDS} s; see 'docker logs {NAME}'.")
        time.sleep(0.2)


def create_argv(image: str, address: str) -> list[str]:
    """The arguments of ``docker create`` for the registry, published on the bridge's gateway and on loopback."""
    return [
        "create", "--name", NAME, "--label", f"{LABEL}=registry",
        "--publish", f"{address}:{PORT}:{PORT}", "--publish", f"{PUSH_ADDRESS}:{PORT}:{PORT}",
        "--volume", f"{STORAGE}:/var/lib/docker-registry", "--env", f"REGISTRY_HTTP_ADDR=:{PORT}",
        "--env", "REGISTRY_AUTH=none", "--env", "REGISTRY_LOG_LEVEL=warn",
        image, "docker-registry", "serve", "/etc/docker/registry/config.yml",
    ]  # fmt: skip


def fill(root: Path, say: Callable[[str], None]) -> None:
    """Build the reference images and push what the registry lacks.

    Raises:
        LabError: the build failed; its own last line says why.
    """
    build = subprocess.Popen(
        [sys.executable, str(root / BUILDER), "--registry", f"{PUSH_ADDRESS}:{PORT}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    line = ""
    for line in build.stdout or ():
        if line.startswith("images: "):
            say(line.removeprefix("images: ").rstrip())
    if build.wait() != 0:
        raise LabError(f"The reference images could not be built: {line.removeprefix('images: ').strip()}")


def remove(*, cache: bool) -> None:
    """Remove the registry and, with ``cache``, what it stores."""
    docker("rm", "--force", NAME, check=False)
    if cache:
        docker("volume", "rm", "--force", STORAGE)


def _answers() -> bool:
    try:
        with socket.create_connection((PUSH_ADDRESS, PORT), timeout=2) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.0\r\nHost: registry\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False
