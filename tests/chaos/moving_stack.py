# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small stack on one of the lab's hosts that is to move to the other, and tells each moment at which it runs.

Its containers write a line every 10 ms, with the time, into their volume and into a directory of the host that does not
move: all hosts of the lab share one clock, so the lines tell whether two copies ever ran at once.
"""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = REPOSITORY / "build/lab"
PROJECT = "omflit"
STATE = "/var/lib/omflit"
BEATS = "/var/lib/omflit-beats"
CODE = "/var/lib/omflit-code"  # not where the scenarios of the roles put it, and remove it
COMMAND = f"{CODE}/command"
IMAGE = "omflit/beat"
VOLUMES = {"first": "data", "second": "more"}
PROMISED_S = 5.0
START_S = 1.5  # what a container takes to be healthy, so that there is time for things to happen meanwhile
_BEAT = """
import os, sys, time
host, volume = sys.argv[1:]
name = f"{volume}/log"
lines = open(name).read().splitlines() if os.path.exists(name) else []
number = int(lines[-1].split()[2]) if lines else 0
with open(name, "a", buffering=1) as log, open(f"/beats/{host}{volume.replace('/', '-')}", "a", buffering=1) as beats:
    begun = time.time()
    while True:
        number += 1
        line = f"{time.time():.4f} {host} {number}\\n"
        log.write(line)
        beats.write(line)
        if time.time() - begun > START:
            open("/tmp/ready", "w").close()
        time.sleep(0.01)
"""
_RUN = """
docker volume create --label {label}.project={project} --label {label}.volume={volume} {project}_{volume}
docker {verb} --name {project}-{service} --hostname {service} --restart unless-stopped --network none \\
  --stop-signal KILL --label {label}.project={project} --label {label}.service={service} \\
  --label {label}.depends_on={depends} --health-cmd 'test -e /tmp/ready' --health-interval 0.6s \\
  --health-retries 60 -v {project}_{volume}:/{volume} -v {beats}:/beats \\
  --entrypoint python3 {image} -c {script} {host} /{volume}
"""


class Host:
    """One host of the lab."""

    def __init__(self, name: str):
        groups = yaml.safe_load((LAB / "inventory.yml").read_text())["all"]["children"]["lab"]
        about = groups["children"]["openmemory"]["hosts"][name]
        self.name = name
        self.address = about["lab_address"]
        self.registry = groups["vars"]["stack_image_registry"]
        options = ["IdentitiesOnly=yes", "GlobalKnownHostsFile=/dev/null", f"UserKnownHostsFile={LAB}/known_hosts"]
        shared = ["ControlMaster=auto", f"ControlPath=/tmp/omflit-{name}", "ControlPersist=60"]
        given = [part for option in [*options, *shared] for part in ("-o", option)]
        self.ssh = ["ssh", "-i", str(LAB / "id_ed25519"), *given, f"root@{about['ansible_host']}"]

    def sh(self, script: str, check: bool = True) -> str:
        done = subprocess.run([*self.ssh, f"set -e; {script}"], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()


class Flit:
    """The stack, and what is known of its two sides."""

    def __init__(self) -> None:
        self.hosts = {name: Host(name) for name in ("lab1", "lab2")}
        self.source, self.target = self.hosts["lab1"], self.hosts["lab2"]
        self.library = ""

    def install(self) -> None:
        """The core and the command on both hosts, as the role does it."""
        sys.path.insert(0, str(REPOSITORY / "plugins/lookup"))
        packer = importlib.import_module("core_archive")
        files = packer.sources()
        version = packer.version_of(files)
        place = self.library = f"{CODE}/openmemory-stack/{version}"
        command = f"#!/usr/bin/python3 -I\nimport sys\nsys.path.insert(0, '{place}')\n"
        command += "from openmemory_stack.command.main import main\nsys.exit(main())\n"
        for host in self.hosts.values():
            packed = packer.pack(files, version)
            subprocess.run([*host.ssh, f"mkdir -p {CODE}; tar -xz -C {CODE}"], input=packed, check=True)
            write = f"cat > {COMMAND}; chmod 755 {COMMAND}"
            subprocess.run([*host.ssh, write], input=command.encode(), check=True)
            original = f"{host.registry}/mem0/openmemory-mcp:1.0"
            host.sh(
                f"docker pull -q {original}; docker tag {original} {IMAGE}"
            )  # under a name that is no known store's
        child = (REPOSITORY / "tests/chaos/migrate_child.py").read_bytes()
        subprocess.run([*self.source.ssh, f"cat > {place}/migrate_child.py"], input=child, check=True)

    def clean(self) -> None:
        for host in self.hosts.values():
            steps = [
                "iptables -F INPUT; iptables -F OUTPUT",
                f"for one in $(docker ps -aq --filter name=^{PROJECT}-); do docker rm -f $one; done",
                f"for one in $(docker volume ls -q --filter name=^{PROJECT}_); do docker volume rm $one; done",
                # again where a watcher of the test before says its last words meanwhile
                f"until rm -rf {STATE} {BEATS} /run/openmemory-stack/{PROJECT}; do sleep 0.3; done; mkdir -p {BEATS}",
                f"sed -i '/openmemory-stack-migration-{PROJECT}$/d' /root/.ssh/authorized_keys",
            ]
            host.sh("; ".join(steps))

    def deploy(self) -> None:
        self.make(self.source, "run -d")
        self.make(self.target, "create")
        time.sleep(0.5)

    def make(self, host: Host, verb: str) -> None:
        script = shlex.quote(_BEAT.replace("START", str(START_S)))
        depends = ""
        for service, volume in VOLUMES.items():
            names = {
                "label": "com.docker.compose",
                "project": PROJECT,
                "service": service,
                "volume": volume,
                "depends": depends,
                "image": IMAGE,
            }
            host.sh(
                _RUN.format(verb=verb, beats=BEATS, script=script, host=host.name, **names)
                .strip()
                .replace("\n", ";", 1)
            )
            depends = f"{service}:service_started:false"

    def make_qdrant(self, host: Host, verb: str, place: str) -> None:
        """Qdrant alone, with its volume mounted at a place that may be the wrong one."""
        version = json.loads((REPOSITORY / "tests/images/versions.json").read_text())["qdrant"]
        labels = f"--label com.docker.compose.project={PROJECT} --label com.docker.compose"
        host.sh(
            f"docker volume create {labels}.volume=qdrant_storage {PROJECT}_qdrant_storage; docker {verb} --name "
            f"{PROJECT}-qdrant {labels}.service=qdrant -v {PROJECT}_qdrant_storage:{place} "
            f"{host.registry}/qdrant/qdrant:{version}"
        )

    def add_points(self, count: int) -> None:
        """Points in the collection flit of the source's Qdrant."""
        points = [{"id": number, "vector": [0.1, 0.2], "payload": {}} for number in range(count)]
        address = self.source.sh(f"docker inspect -f '{{{{.NetworkSettings.IPAddress}}}}' {PROJECT}-qdrant")
        url = f"http://{address}:6333/collections/flit"
        script = f"""
import json, time, urllib.request
def put(url, body):
    about = {{"Content-Type": "application/json"}}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), about, method="PUT")).read()
for _try in range(60):
    try:
        put("{url}", {{"vectors": {{"size": 2, "distance": "Cosine"}}}})
        break
    except OSError:
        time.sleep(0.5)
put("{url}/points?wait=true", {{"points": {json.dumps(points)}}})
"""
        self.source.sh(f"python3 -c {shlex.quote(script)}")

    def prepare(self) -> dict[str, Any]:
        """Key and door; the request."""
        told = list(self.child({"project": PROJECT, "state_dir": STATE}))
        prepared = told[-1]["result"]
        user = f"import sys; sys.path.insert(0, '{self.library}')\n"
        user += "from openmemory_stack.migrate import door\n"
        user += f"expected = door.Expected({prepared['operation']!r}, {PROJECT!r}, wait_timeout=20.0)\n"
        user += f"door.Gate(expected, {prepared['public_key']!r}, {STATE!r}, command={COMMAND!r}).open(1.0)\n"
        user += "import json; print(json.dumps(door.host_keys()))"
        keys = json.loads(self.target.sh(f"python3 -c {shlex.quote(user)}"))
        return {
            "project": PROJECT,
            "operation": prepared["operation"],
            "target": "lab2",
            "address": self.target.address,
            "host_keys": keys,
            "state_dir": STATE,
            "freeze_timeout": 30,
            "wait_timeout": 20,
        }

    def child(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What the source's part tells, as it does."""
        argument = json.dumps({"library": self.library, **asked})
        command = f"exec python3 {self.library}/migrate_child.py {shlex.quote(argument)}"
        pipe = subprocess.PIPE
        with subprocess.Popen([*self.source.ssh, command], text=True, stdin=pipe, stdout=pipe, stderr=pipe) as running:
            assert running.stdin
            assert running.stdout
            assert running.stderr
            for line in running.stdout:
                told = json.loads(line)
                yield told
                if told.get("step") == asked.get("wait", ""):
                    running.stdin.write("\n")
                    running.stdin.flush()
            errors = running.stderr.read()
            assert "Traceback" not in errors, errors

    def move(self, at: str = "", **how: Any) -> Iterator[dict[str, Any]]:
        return self.child({"request": self.prepare(), "at": at, **how})

    def await_end(self) -> None:
        """Until nothing is left to put right on the source."""
        end = time.monotonic() + 20
        while self.source.sh(f"ls {STATE}/{PROJECT}/journal.json 2> /dev/null || true"):
            assert time.monotonic() < end, "the watcher did not put it right"
            time.sleep(0.3)

    def recover(self) -> str:
        """What recover says on the source, once nobody else recovers there."""
        end = time.monotonic() + 60
        while True:
            said = self.source.sh(f"{COMMAND} recover -p {PROJECT} --state-dir {STATE} 2>&1", check=False)
            if "Another operation is under way" not in said or time.monotonic() > end:
                return said
            time.sleep(0.5)

    def beats(self) -> list[tuple[float, str, str]]:
        """(time, host, volume) of each line that any copy has written, by time."""
        found = []
        for host in self.hosts.values():
            for volume in VOLUMES.values():
                for line in host.sh(f"cat {BEATS}/*-{volume} 2>/dev/null || true").splitlines():
                    at, name, _number = line.split()
                    found.append((float(at), name, volume))
        return sorted(found)

    def log(self, host: Host, volume: str) -> list[str]:
        return host.sh(f"cat /var/lib/docker/volumes/{PROJECT}_{volume}/_data/log 2>/dev/null || true").splitlines()

    def running(self, host: Host) -> list[str]:
        states = host.sh(f"docker ps --filter name=^{PROJECT}- --format '{{{{.Names}}}} {{{{.Status}}}}'")
        return sorted(line.split()[0] for line in states.splitlines() if "Paused" not in line)

    def await_beat(self, host: Host, since: float, within: float) -> float:
        """When both containers of a host write again after a moment; seconds from it. Fails after within seconds."""
        end = time.time() + within + 3
        while True:
            found = {volume: at for at, name, volume in reversed(self.beats()) if name == host.name and at > since}
            if set(found) == set(VOLUMES.values()):
                break
            assert time.time() < end, f"{host.name} is silent"
            time.sleep(0.3)
        return max(found.values()) - since

    def two_at_once(self) -> list[tuple[float, str, str]]:
        """Lines of the source between the first and the last of any stretch in which the target wrote."""
        beats = self.beats()
        times = [at for at, name, volume in beats if name == "lab2" and volume == "data"]
        return [one for one in beats if times and one[1] == "lab1" and times[0] <= one[0] <= times[-1]]

    def is_whole(self, host: Host) -> bool:
        """Every line that a container of the source has written is in the volumes of this host, once and in order."""
        for volume in VOLUMES.values():
            told = [int(line.split()[2]) for line in self.source.sh(f"cat {BEATS}/lab1-{volume}").splitlines()]
            numbers = [int(line.split()[2]) for line in self.log(host, volume)]
            if numbers != list(range(1, len(numbers) + 1)) or numbers[: len(told) - 1] != told[:-1]:
                return False
        return True

    def target_is_clean(self) -> list[str]:
        """What is left on the target that should not be."""
        volumes = f"/var/lib/docker/volumes/{PROJECT}_*"
        steps = [
            f"docker ps -a --filter name=^{PROJECT}- --format '{{{{.Names}}}} {{{{.Status}}}}' | grep -v Created",
            f"ls -A {volumes}/_data | grep -v :",
            f"ls -d {volumes}/.openmemory* 2> /dev/null",
            f"ls {STATE}/{PROJECT}/journal.json 2> /dev/null",
        ]
        left = self.target.sh("; ".join(f"{step} || true" for step in steps))
        return [line for line in left.splitlines() if line]

    @contextmanager
    def cut_at(self, step: str, told: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Cut at a step, and for as long as the context lasts; what was told last, with the time of the cut."""
        with ExitStack() as stack:
            at = 0.0
            last: dict[str, Any] = {}
            for last in told:
                if last.get("step") == step:
                    at = time.time()
                    stack.enter_context(self.cut())
            yield {**last, "cut": at}

    @contextmanager
    def cut(self) -> Iterator[None]:
        """No packet between the two hosts."""
        self.source.sh(
            f"iptables -A INPUT -s {self.target.address} -j DROP; iptables -A OUTPUT -d {self.target.address} -j DROP"
        )
        try:
            yield
        finally:
            self.source.sh("iptables -F INPUT; iptables -F OUTPUT")
