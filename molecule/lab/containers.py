"""Read the state of the lab's containers; the engine is the only place where that state is kept."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import docker
from .plan import LABEL


@dataclass(frozen=True)
class Container:
    """A container of the lab as the engine describes it; ``role`` is full, bare, twin or registry.

    ``address`` and ``port`` are where this machine publishes its SSH or, for the registry, where lab hosts pull.
    One that was created but never started is ``unfinished``: it may lack the files that come between the two.
    """

    name: str
    role: str
    release: str
    image: str
    running: bool
    unfinished: bool
    bridge_address: str
    address: str
    port: int
    temporary: bool

    @property
    def host(self) -> str:
        """The name that the inventory gives it."""
        return self.name.split("-", 1)[1]


def lab_containers() -> list[Container]:
    """All containers of the lab, running or not, in the order of their names (lab2 before lab10)."""
    ids = docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()
    found = [describe(item) for item in json.loads(docker("inspect", *ids))] if ids else []
    return sorted(found, key=lambda container: (len(container.name), container.name))


def describe(inspected: dict[str, Any]) -> Container:
    """What the lab needs to know out of an element of ``docker inspect``."""
    labels = inspected["Config"]["Labels"]
    published = next(iter(inspected["HostConfig"]["PortBindings"].values()))[0]
    return Container(
        name=inspected["Name"].lstrip("/"),
        role=labels[LABEL],
        release=labels.get(f"{LABEL}.release", ""),
        image=inspected["Config"]["Image"],
        running=inspected["State"]["Running"],
        unfinished=inspected["State"]["Status"] == "created",
        bridge_address=inspected["NetworkSettings"]["IPAddress"],
        address=published["HostIp"],
        port=int(published["HostPort"]),
        temporary=labels.get(f"{LABEL}.temporary") == "yes",
    )


def gateway() -> str:
    """The address of this machine on the engine's default bridge, where lab hosts reach it."""
    return gateway_of(json.loads(docker("network", "inspect", "bridge"))[0])


def gateway_of(network: dict[str, Any]) -> str:
    """A network's gateway; an engine that was not told one takes the first address of the subnet and names none."""
    settings = network["IPAM"]["Config"][0]
    first = next(ipaddress.ip_network(settings["Subnet"]).hosts())
    return str(settings.get("Gateway") or first)


def cgroup_version() -> int:
    """1 or 2: which control groups the engine uses."""
    return int(docker("info", "--format", "{{.CgroupVersion}}") or 1)


def available_capabilities() -> set[int]:
    """Numbers of the capabilities that a container on this machine may be given."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return {number for number in range(64) if mask >> number & 1}
    return set()
