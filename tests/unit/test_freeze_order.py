# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order containers start, and where the kernel's freezer of each is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.guard import freezers
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.order import start_order

ID = "0123abc"


def container(name: str, depends_on: str = "", network: str = "default", service: str | None = None) -> dict[str, Any]:
    labels = {
        "com.docker.compose.service": service or name.rpartition("-")[2],
        "com.docker.compose.depends_on": depends_on,
    }
    return {
        "Id": f"id-{name}",
        "Name": f"/{name}",
        "Config": {"Labels": labels},
        "HostConfig": {"NetworkMode": network},
    }


ORDERS = {
    "by name": ([container("c"), container("a"), container("b")], ["a", "b", "c"]),
    "after what it needs": (
        [
            container("a", "qdrant:service_healthy:false,neo4j:service_started:true"),
            container("qdrant"),
            container("neo4j"),
        ],
        ["neo4j", "qdrant", "a"],
    ),
    "a chain": ([container("a", "b:x:false"), container("b", "c:x:false"), container("c")], ["c", "b", "a"]),
    "every replica": (
        [container("p-1", "db:x:false", service="p"), container("z-2", service="db"), container("z-1", service="db")],
        ["z-1", "z-2", "p-1"],
    ),
    "a service that is not there": ([container("b"), container("a", "gone:x:false")], ["a", "b"]),
    "a circle is cut": ([container("b", "a:x:false"), container("a", "b:x:false")], ["a", "b"]),
    "itself": ([container("a", "a:x:false"), container("b")], ["a", "b"]),
    "another's network": ([container("a", network="container:id-z"), container("z")], ["z", "a"]),
    "no labels": ([{"Id": "2", "Name": "/b", "Config": {}}, {"Id": "1", "Name": "/a"}], ["a", "b"]),
}


@pytest.mark.parametrize(("given", "wanted"), ORDERS.values(), ids=ORDERS.keys())
def test_start_order(given: list[dict[str, Any]], wanted: list[str]) -> None:
    for containers in (given, given[::-1]):
        assert [found["Name"][1:] for found in start_order(containers)] == wanted


V1 = "34 29 0:33 / /sys/fs/cgroup/freezer rw,nosuid shared:9 - cgroup cgroup rw,freezer"
V1_INSIDE = "34 29 0:33 /docker/outer /cg/freezer rw - cgroup cgroup rw,freezer"
OTHER = "35 29 0:34 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
V2 = "26 25 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = "26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
UNIT = f"system.slice/docker-{ID}.scope"

FREEZERS = {
    "version 1, cgroupfs": (
        f"6:freezer:/docker/{ID}\n4:cpu:/x", [V1, OTHER], [f"/sys/fs/cgroup/freezer/docker/{ID}/freezer.state"]
    ),
    "version 1, systemd": (f"6:freezer:/{UNIT}", [V1], [f"/sys/fs/cgroup/freezer/{UNIT}/freezer.state"]),
    "version 1 below a container": (
        f"6:freezer:/docker/outer/docker/{ID}", [V1_INSIDE], [f"/cg/freezer/docker/{ID}/freezer.state"]
    ),
    "version 1 out of sight": (f"6:freezer:/docker/another/{ID}", [V1_INSIDE], []),
    "outside of the namespace": (f"0::/../../docker/{ID}", [V2], []),
    "version 2, cgroupfs": (f"0::/docker/{ID}", [V2], [f"/sys/fs/cgroup/docker/{ID}/cgroup.freeze"]),
    "version 2, systemd": (f"0::/{UNIT}", [V2], [f"/sys/fs/cgroup/{UNIT}/cgroup.freeze"]),
    "version 2, a systemd inside": (f"0::/{UNIT}/init.scope", [V2], [f"/sys/fs/cgroup/{UNIT}/cgroup.freeze"]),
    "both: version 1 first": (
        f"6:freezer:/docker/{ID}\n0::/docker/{ID}",
        [HYBRID, V1],
        [f"/sys/fs/cgroup/freezer/docker/{ID}/freezer.state", f"/sys/fs/cgroup/unified/docker/{ID}/cgroup.freeze"],
    ),
    "none": ("4:cpu:/x", [OTHER], []),
    "a mount without a source": (
        f"0::/docker/{ID}", ["40 25 0:50 / /mnt rw - tmpfs  rw", V2],
        [f"/sys/fs/cgroup/docker/{ID}/cgroup.freeze"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("groups", "mounts", "files"), FREEZERS.values(), ids=FREEZERS.keys())
def test_freezers(groups: str, mounts: list[str], files: list[str]) -> None:
    words = {"freezer.state": ("FROZEN", "THAWED"), "cgroup.freeze": ("1", "0")}
    found = freezers(groups, "\n".join(mounts), ID)
    assert [freezer["file"] for freezer in found] == files
    assert all((freezer["freeze"], freezer["thaw"]) == words[freezer["file"].rpartition("/")[2]] for freezer in found)
