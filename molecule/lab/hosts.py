"""Create, start and await the containers that play hosts."""

from __future__ import annotations

import io
import socket
import tarfile
import time
from collections.abc import Mapping, Sequence

from .commands import docker
from .errors import LabError
from .plan import LABEL, Host

READY_SECONDS = 180
POLL_SECONDS = 0.5

# Linux capabilities by number. Docker 20.10 does not know those after 37 (PERFMON, BPF, CHECKPOINT_RESTORE).
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
)  # fmt: skip
# Real file systems for what overlayfs cannot carry (a nested engine) and for data kept under a path.
VOLUMES = {"docker": "/var/lib/docker", "srv": "/srv"}


# What is frozen takes no signal, and the engine waits in vain for the end of a host with a paused container in it. The
# freezers are opened without the nested engine, which may be dead.
_THAW = """
cd /var/lib/docker/containers 2>/dev/null || exit 0
for one in *; do
  find /sys/fs/cgroup -path "*$one*" '(' -name freezer.state -o -name cgroup.freeze ')' 2>/dev/null
done | while read -r file; do
  case "$file" in *freezer.state) echo THAWED > "$file";; *) echo 0 > "$file";; esac
done
"""


def create_argv(host: Host, image: str, port: int, cgroup: int, capabilities: set[int]) -> list[str]:
    """The arguments of ``docker create`` for a host.

    Named capabilities stand in for ``--privileged``, which fails where one of them is out of reach. With cgroup v2 the
    host gets a tree of its own, made writable before systemd starts; with v1 it shares the machine's.
    """
    role = "bare" if host.bare else "twin" if host.twin else "full"
    arguments = [
        "create", "--name", host.container, "--hostname", host.name, "--stop-signal", "SIGRTMIN+3",
        "--label", f"{LABEL}={role}", "--label", f"{LABEL}.release={host.release}",
        "--label", f"{LABEL}.temporary={'yes' if host.temporary else 'no'}",
        "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
        "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec",
        "--publish", f"{host.address}:{port}:22",
    ]  # fmt: skip
    for number, name in enumerate(CAPABILITIES):
        if number in capabilities:
            arguments += ["--cap-add", name]
    for purpose, path in VOLUMES.items():
        arguments += ["--volume", f"{host.container}-{purpose}:{path}"]
    if cgroup == 1:
        # Debian 13's systemd refuses cgroup v1 unless told otherwise on its command line.
        init = ["/sbin/init", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.show_status=false"]
        return [*arguments, "--cgroupns=host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", image, *init]
    init = ["/bin/sh", "-c", "mount -o remount,rw /sys/fs/cgroup && exec /sbin/init systemd.show_status=false"]
    return [*arguments, "--cgroupns=private", image, *init]


def create(host: Host, create_arguments: Sequence[str], files: Mapping[str, str]) -> None:
    """Create a host's container and its volumes, and put files (path to content) into it before it first starts."""
    for purpose in VOLUMES:
        docker("volume", "create", "--label", f"{LABEL}=host", f"{host.container}-{purpose}")
    docker(*create_arguments)
    docker("cp", "-", f"{host.container}:/", stdin=archive(files))


def remove(container: str) -> None:
    """Remove a host and its volumes."""
    docker("exec", container, "sh", "-c", _THAW, check=False)  # fails where the host does not run
    docker("rm", "--force", "--volumes", container)
    for purpose in VOLUMES:
        docker("volume", "rm", "--force", f"{container}-{purpose}")


def archive(files: Mapping[str, str]) -> bytes:
    """A tar archive of text files owned by root; what lies under /root is for root's eyes only."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            private = path.startswith("/root/")
            if private:
                folder = tarfile.TarInfo(path.lstrip("/").rsplit("/", 1)[0])
                folder.type, folder.mode = tarfile.DIRTYPE, 0o700
                tar.addfile(folder)
            data = content.encode()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o600 if private else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def await_ready(container: str, address: str, port: int, with_docker: bool) -> None:
    """Wait until systemd has booted, SSH answers and, on a full host, the nested engine does.

    Raises:
        LabError: it did not happen in three minutes, or the container ended.
    """
    begun = time.monotonic()
    checks = ["systemd", "SSH"] + (["Docker"] if with_docker else [])
    while checks:
        if _passes(checks[0], container, address, port):
            checks.pop(0)
            continue
        if docker("inspect", "--format", "{{.State.Running}}", container, check=False) != "true":
            raise LabError(f"{container} ended while it booted; 'docker logs {container}' may say why.")
        if time.monotonic() - begun > READY_SECONDS:
            raise LabError(
                f"{checks[0]} on {container} was not up in {READY_SECONDS} s; see 'docker logs {container}'."
            )
        time.sleep(POLL_SECONDS)


def _passes(check: str, container: str, address: str, port: int) -> bool:
    if check == "systemd":
        # A unit that failed leaves "degraded", which is still a host that works.
        state = ("sh", "-c", "systemctl is-system-running --wait 2>&1 | grep -qxE 'running|degraded' && echo up")
        return docker("exec", container, *state, check=False) == "up"
    if check == "Docker":
        return bool(docker("exec", container, "docker", "info", "--format", "{{.ServerVersion}}", check=False))
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
