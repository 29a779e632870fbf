"""The local registry that lab hosts pull the reference images from."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import ports
from .commands import docker
from .containers import Container, gateway
from .errors import LabError
from .plan import LABEL, PREFIX

NAME = f"{PREFIX}-registry"
STORAGE = f"{PREFIX}-registry"
# Engines accept plain HTTP from loopback without being told, so this machine pushes there.
PUSH_ADDRESS = "127.0.1.250"
ANSWER_SECONDS = 30
BUILDER = Path("tests/images/build.py")


def ensure_registry(image: str, existing: dict[str, Container]) -> tuple[str, int]:
    """Start the registry, reachable from this machine and from its containers only.

    Returns:
        The address and the port under which lab hosts reach it.

    Raises:
        LabError: no port is free for it, or it does not answer.
    """
    known = existing.get(NAME)
    if known is None:
        address = gateway()
        port = ports.choose("the registry", [address, PUSH_ADDRESS], ports.REGISTRY)
        docker("volume", "create", "--label", f"{LABEL}=cache", STORAGE)
        docker(*create_argv(image, address, port))
    else:
        address, port = known.address, known.port
    if known is None or not known.running:
        docker("start", NAME)
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answers(port):
        if time.monotonic() > deadline:
            raise LabError(f"The registry did not answer within {ANSWER_SECONDS} s; see 'docker logs {NAME}'.")
        time.sleep(0.2)
    return address, port


def create_argv(image: str, address: str, port: int) -> list[str]:
    """The arguments of ``docker create`` for the registry, published on the bridge's gateway and on loopback."""
    return [
        "create", "--name", NAME, "--label", f"{LABEL}=registry",
        "--publish", f"{address}:{port}:5000", "--publish", f"{PUSH_ADDRESS}:{port}:5000",
        "--volume", f"{STORAGE}:/var/lib/docker-registry", "--env", "REGISTRY_HTTP_ADDR=:5000",
        "--env", "REGISTRY_AUTH=none", "--env", "REGISTRY_LOG_LEVEL=warn",
        image, "docker-registry", "serve", "/etc/docker/registry/config.yml",
    ]  # fmt: skip


def fill(root: Path, port: int, say: Callable[[str], None]) -> None:
    """Build the reference images and push what the registry lacks.

    Raises:
        LabError: the build failed; its own last line says why.
    """
    build = subprocess.Popen(
        [sys.executable, str(root / BUILDER), "--registry", f"{PUSH_ADDRESS}:{port}"],
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


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((PUSH_ADDRESS, port), timeout=2) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.0\r\nHost: registry\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False
