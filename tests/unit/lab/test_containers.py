"""Arguments for Docker and what is read back from it."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from lab import registry
from lab.containers import describe, gateway_of
from lab.hosts import CAPABILITIES, archive, create_argv
from lab.plan import Host

HOST = Host("lab2", "trixie", False, "127.0.1.2", temporary=True)
ALL = set(range(41))


def after(argv: list[str], option: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == option]


def test_a_host_publishes_ssh_on_its_own_address_only() -> None:
    assert after(create_argv(HOST, "image", 22, 1, ALL), "--publish") == ["127.0.1.2:22:22"]


def test_everything_carries_the_lab_s_name() -> None:
    argv = create_argv(HOST, "image", 22, 1, ALL)
    assert after(argv, "--name") == ["omlab-lab2"]
    assert after(argv, "--label") == ["omlab=full", "omlab.release=trixie", "omlab.temporary=yes"]
    named = [volume for volume in after(argv, "--volume") if not volume.startswith("/")]
    assert named == ["omlab-lab2-docker:/var/lib/docker", "omlab-lab2-srv:/srv"]


def test_only_capabilities_that_the_machine_has() -> None:
    without = ALL - {CAPABILITIES.index("SYS_RESOURCE")}
    assert "SYS_RESOURCE" in after(create_argv(HOST, "image", 22, 1, ALL), "--cap-add")
    assert "SYS_RESOURCE" not in after(create_argv(HOST, "image", 22, 1, without), "--cap-add")
    assert CAPABILITIES.index("SYS_ADMIN") == 21  # as in linux/capability.h
    assert CAPABILITIES.index("AUDIT_READ") == 37


def test_control_groups() -> None:
    first, second = (create_argv(HOST, "image", 22, version, ALL) for version in (1, 2))
    assert "--cgroupns=host" in first
    assert "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1" in first
    assert "--cgroupns=private" in second
    assert "/sys/fs/cgroup:/sys/fs/cgroup:rw" not in second


def test_root_s_files_are_private() -> None:
    data = archive({"/root/.ssh/authorized_keys": "key\n", "/etc/docker/daemon.json": "{}\n"})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        modes = {entry.name: entry.mode for entry in tar}
    assert modes == {"root/.ssh": 0o700, "root/.ssh/authorized_keys": 0o600, "etc/docker/daemon.json": 0o644}


def test_the_registry_is_not_published_to_the_world() -> None:
    argv = registry.create_argv("image", "172.17.0.1", 5000)
    assert after(argv, "--publish") == ["172.17.0.1:5000:5000", "127.0.1.250:5000:5000"]


def inspected(**state: Any) -> dict[str, Any]:
    return {
        "Name": "/omlab-bare1",
        "Config": {"Labels": {"omlab": "bare", "omlab.release": "trixie"}, "Image": "omlab/trixie-bare:1"},
        "HostConfig": {"PortBindings": {"22/tcp": [{"HostIp": "127.0.1.101", "HostPort": "2222"}]}},
        "State": {"Running": True, "Status": "running", **state},
        "NetworkSettings": {"IPAddress": "172.17.0.9"},
    }


def test_what_docker_says_about_a_host() -> None:
    found = describe(inspected())
    assert (found.host, found.role, found.address, found.port) == ("bare1", "bare", "127.0.1.101", 2222)
    assert not found.unfinished
    assert not found.temporary


def test_a_container_that_never_started_is_unfinished() -> None:
    assert describe(inspected(Running=False, Status="created")).unfinished


@pytest.mark.parametrize(
    ("settings", "address"),
    [({"Subnet": "172.17.0.0/16"}, "172.17.0.1"), ({"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.254"}, "10.9.0.254")],
)
def test_the_bridge_s_gateway(settings: dict[str, str], address: str) -> None:
    assert gateway_of({"IPAM": {"Config": [settings]}}) == address
