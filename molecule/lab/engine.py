"""Make sure that a Docker engine answers on this machine; the lab's hosts are its containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .commands import docker, run
from .errors import LabError

START_SECONDS = 60
ROOM_BYTES = 12 * 1024**3
LOG = Path("/var/log/omlab-dockerd.log")


def ensure_engine(say: Callable[[str], None]) -> None:
    """Install and start what is missing so that the lab can build images and run hosts.

    Raises:
        LabError: no engine answers and none can be installed or started here.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where dockerd and iptables are; a plain shell may not look there
    missing = missing_packages()
    if missing:
        _install(missing, say)
    if not answers():
        _start(say)


def answers() -> bool:
    """Whether an engine answers on the configured socket."""
    return bool(shutil.which("docker")) and bool(docker("version", "--format", "{{.Server.Version}}", check=False))


def missing_packages() -> list[str]:
    """Debian packages that the lab still needs on this machine."""
    missing = []
    if not answers() and not shutil.which("dockerd"):
        missing += ["docker.io", "iptables"]
        if run(["apt-cache", "policy", "docker-cli"], check=False) if shutil.which("apt-cache") else "":
            missing.append("docker-cli")  # Debian 13 packages the command apart from the engine
    if not shutil.which("mmdebstrap"):
        missing.append("mmdebstrap")
    if not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        missing.append("openssh-client")
    return missing


def require_room() -> None:
    """Check that images, volumes and hosts will fit.

    Raises:
        LabError: less than 12 GB are free where Docker keeps its data.
    """
    root = Path(docker("info", "--format", "{{.DockerRootDir}}"))
    while not root.exists() and root != root.parent:  # an engine in a machine of its own has its data elsewhere
        root = root.parent
    try:
        free = shutil.disk_usage(root).free
    except PermissionError:
        free = shutil.disk_usage(root.parent).free
    if free < ROOM_BYTES:
        raise LabError(f"{root} has {free / 1e9:.1f} GB free and the lab needs {ROOM_BYTES / 1e9:.0f} GB; make room.")


def _install(packages: list[str], say: Callable[[str], None]) -> None:
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise LabError(f"The lab needs {names}, and this is no Debian machine to install them on; install them first.")
    if os.geteuid() != 0:
        raise LabError(f"The lab needs {names}, and only root can install them; run it as root or install them first.")
    say(f"installing {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for action in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", *action], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise LabError(f"apt-get could not install {names}; run 'apt-get install {names}' to see why.")


def _start(say: Callable[[str], None]) -> None:
    if os.geteuid() != 0:
        raise LabError("No Docker engine answers, and only root can start one; start Docker or run the lab as root.")
    if Path("/run/systemd/system").is_dir():
        say("starting docker.service")
        run(["systemctl", "start", "docker.service"])
    else:
        say(f"starting dockerd in the background (log: {LOG}); it keeps running after the lab is gone")
        with LOG.open("ab") as log:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if time.monotonic() > deadline:
            raise LabError(f"dockerd did not answer within {START_SECONDS} s; its log is {LOG} or in the journal.")
        time.sleep(0.5)
