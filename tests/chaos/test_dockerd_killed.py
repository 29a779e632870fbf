# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""dockerd, the SSH connection and the unit of a backup die during a freeze, on each of the lab's hosts."""

from __future__ import annotations

import fcntl
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from sleepers import IMAGE, MAKE_IMAGE, PREFIX, PROMISED_S, REPOSITORY, Sleepers

LAB = REPOSITORY / "build/lab"
RUN = {"a": "running", "b": "running", "c": "running"}
BACK_S = 90.0  # until dockerd answers again; it first ends the containers that it finds
GONE_S = 15.0
CORE = "ansible_collections/openmemory/stack/plugins/module_utils"
SSH = [
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "GlobalKnownHostsFile=/dev/null",
    "-o",
    f"UserKnownHostsFile={LAB}/known_hosts",
]


def addresses() -> dict[str, str]:
    """The lab's hosts that have Docker; the phase of the gates that runs this brings them up."""
    if not (LAB / "inventory.yml").exists():
        return {}
    groups = yaml.safe_load((LAB / "inventory.yml").read_text())["all"]["children"]["lab"]["children"]
    return {name: host["ansible_host"] for name, host in groups["openmemory"]["hosts"].items()}


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """The other tests that break the lab's engines wait meanwhile."""
    with open("/var/tmp/omlab-engines.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module", params=["lab1", "lab2"])
def host(alone: None, request: pytest.FixtureRequest) -> Iterator[Sleepers]:
    address = addresses().get(request.param)
    assert address, f"{request.param} is not up; run: make lab"
    made = Sleepers(["ssh", "-i", str(LAB / "id_ed25519"), *SSH, f"root@{address}"])
    made.sh(f"mkdir -p {made.directory}/collections/{CORE}; {MAKE_IMAGE}")
    core, child = str(REPOSITORY / "plugins/module_utils/_core"), str(REPOSITORY / "tests/chaos/freeze_child.py")
    for source, target in ((core, f"collections/{CORE}/"), (child, "")):
        copy = ["rsync", "-a", "--exclude", "__pycache__", "-e", " ".join(made.prefix[:-1])]
        subprocess.run([*copy, source, f"{made.prefix[-1]}:{made.directory}/{target}"], check=True)
    yield made
    made.sh(f"rm -rf {made.directory}; docker rmi -f {IMAGE} >/dev/null")


@pytest.fixture
def sleepers(host: Sleepers) -> Iterator[Sleepers]:
    host.sh("systemctl reset-failed docker || true")
    host.clean()
    host.start("a", options="--restart always")
    host.start("b", options="--restart unless-stopped")
    host.start("c")
    yield host
    host.clean()


def thawed(sleepers: Sleepers, command: str, said: dict[str, Any]) -> None:
    """Run a command on the host; within the promised time the kernel must let all processes run, and they must live."""
    files = " ".join(freezer["file"] for freezer in said["freezers"])
    pids = " ".join(str(freezer["pid"]) for freezer in said["freezers"])
    assert "FROZEN" in sleepers.sh(f"cat {files}") or "1" in sleepers.sh(f"cat {files}")
    report = sleepers.sh(
        rf"begun=$(date +%s%N); {command}; while cat {files} | grep -q 'FROZEN\|FREEZING\|^1'; do sleep 0.05; done; "
        f"kill -0 {pids} && echo $(( ($(date +%s%N) - begun) / 1000000 ))"
    )
    assert int(report) / 1000 <= PROMISED_S


def back(sleepers: Sleepers) -> None:
    until = time.monotonic() + BACK_S
    while "yes" not in sleepers.sh("timeout 5 docker version >/dev/null 2>&1 && echo yes || echo no"):
        assert time.monotonic() < until
        time.sleep(0.5)


KILL = "kill -9 $(pidof dockerd)"


def test_dockerd_dies(sleepers: Sleepers) -> None:
    process, said = sleepers.freeze("body", "a", "b", "c", stay=10)  # dockerd must die meanwhile
    thawed(sleepers, KILL, said)
    told = json.loads(process.communicate(timeout=BACK_S)[0])
    assert told["error"].startswith("The Docker engine ended during the freeze")
    back(sleepers)
    assert sleepers.guards(GONE_S) == ""
    sleepers.recover()
    assert sleepers.wait(RUN, PROMISED_S) == RUN
    assert sleepers.recover() == []


def test_dockerd_dies_while_it_resumes(sleepers: Sleepers) -> None:
    """The next one ends what was still frozen, and starts nothing of it: it must not look like a good freeze."""
    sleepers.sh(f"docker rm -f {PREFIX}-a {PREFIX}-b")
    sleepers.start("d")
    process, _said = sleepers.freeze("resuming", "c", "d", stay=6)
    sleepers.sh(KILL)
    told = json.loads(process.communicate(timeout=BACK_S)[0])
    assert told["error"].startswith("The Docker engine ended while it resumed"), told
    back(sleepers)
    sleepers.recover()
    assert sleepers.wait({"c": "running", "d": "running"}, PROMISED_S) == {"c": "running", "d": "running"}
    assert sleepers.recover() == []


def test_dockerd_and_the_process_that_pauses_die(sleepers: Sleepers) -> None:
    process, said = sleepers.freeze("body", "a", "b", "c")
    thawed(sleepers, f"{KILL} {said['pid']}", said)
    process.wait(timeout=10)
    back(sleepers)
    assert sleepers.guards(GONE_S) == ""
    assert sleepers.recover()[-1] == "Ended the backup that died in the phase begin."
    assert sleepers.wait(RUN, PROMISED_S) == RUN


def test_dockerd_hangs_and_the_process_that_pauses_dies(sleepers: Sleepers) -> None:
    process, said = sleepers.freeze("body", "a", "b", "c")
    thawed(sleepers, f"kill -STOP $(pidof dockerd); kill -9 {said['pid']}", said)
    process.wait(timeout=10)
    sleepers.sh("kill -CONT $(pidof dockerd)")
    assert sleepers.wait(RUN, GONE_S) == RUN, "the engine's own record"
    assert sleepers.guards(GONE_S) == ""
    sleepers.sh(f"docker pause {PREFIX}-a && docker unpause {PREFIX}-a")


def test_the_connection_dies(sleepers: Sleepers) -> None:
    process, _said = sleepers.freeze("body", "a", "b", "c", ssh_options=["-tt"])
    assert sleepers.states() == dict.fromkeys(RUN, "paused")
    process.kill()
    assert sleepers.wait(RUN, PROMISED_S) == RUN
    assert sleepers.guards(GONE_S) == ""


@pytest.mark.parametrize("verb", ["stop", "kill --signal KILL"])
def test_the_unit_that_runs_it_ends(sleepers: Sleepers, verb: str) -> None:
    wrapper = f"systemd-run --quiet --pipe --collect --unit {PREFIX}-job"
    process, _said = sleepers.freeze("body", "a", "b", "c", wrapper=wrapper)
    assert sleepers.states() == dict.fromkeys(RUN, "paused")
    sleepers.sh(f"systemctl {verb} {PREFIX}-job")
    assert sleepers.wait(RUN, PROMISED_S) == RUN
    process.wait(timeout=10)
    assert sleepers.guards(GONE_S) == ""
