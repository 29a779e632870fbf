# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole backups and restores on the lab's hosts, during which dockerd or the SSH connection dies, at every phase; and
some by Ansible, which connects again.

The hosts take turns, and rounds run on both at once, as most of one is waiting for dockerd; each test has its own.
"""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aftermath import BOTH, PROMISED_S
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_run import AnsibleRun
from light_stack import IMAGE, PROJECT
from sleep_image import make_image
from sleepers import REPOSITORY
from test_dockerd_killed import CORE, LAB, SSH, addresses

SCRIPTS = "/srv/omwhole"
STACK = "/srv/omrest"
ROUND_S = 120.0
PHASES = {
    "backup": ("plan", "repository", "copy", "freeze", "frozen", "check", "export", "commit", "retention"),
    "restore": (
        "plan", "fetch", "check", "probe", "safety", "frozen", "sync",
        "stop", "swap", "rename", "start", "health", "finish", "accepted",
    ),
}  # fmt: skip
LATE = ("stop", "rename")  # it goes on when dockerd is back, and has started containers again
KILLERS = ("dockerd", "connection")
NAMES = ("killer", "verb", "at")
Round = tuple[str, str, str]
ROUNDS: list[Round] = [(killer, verb, at) for killer in KILLERS for verb, phases in PHASES.items() for at in phases]
RESULT = "result"  # it is over, and Ansible asks for its result
ANSIBLE = [("backup", "copy"), ("restore", "fetch"), ("restore", "swap"), ("backup", RESULT)]
AGAIN: list[Round] = [("ansible", verb, at) for verb, at in ANSIBLE]
LOST = "the connection is lost, trying again; it goes on there"
TRIES = 5  # a phase is soon over, and seen from beside
CUTS = 3


class Host:
    """A host of the lab, with whole_host.py running there."""

    def __init__(self, name: str, output: Path):
        self.name = name
        self.target = f"root@{addresses()[name]}"
        self.options = ["-i", str(LAB / "id_ed25519"), *SSH]
        python = f"env PYTHONPATH={SCRIPTS}/collections:{SCRIPTS} python3 {SCRIPTS}"
        self.child = f"exec {python}/whole_child.py"
        self._command = f"exec {python}/whole_host.py {STACK}"
        self._driver: subprocess.Popen[str] | None = None
        self.output = output  # directory for what is printed
        self.rounds = 0

    def ssh(self, command: str, *options: str) -> list[str]:
        return ["ssh", *options, *self.options, self.target, command]

    def copy(self, to: str, *sources: str) -> None:
        remote = shlex.join(["ssh", *self.options])
        command = ["rsync", "-a", "--exclude", "__pycache__", "-e", remote, *sources, f"{self.target}:{to}"]
        subprocess.run(command, check=True)

    def install(self, repository: Path) -> None:
        steps = f"mkdir -p {SCRIPTS}/collections/{CORE}; {make_image(IMAGE)}"
        subprocess.run(self.ssh(steps), check=True, stdout=subprocess.DEVNULL)
        names = ("aftermath", "light_stack", "sleep_image", "whole_child", "whole_host")
        self.copy(f"{SCRIPTS}/", *(str(REPOSITORY / f"tests/chaos/{name}.py") for name in names))
        self.copy(f"{SCRIPTS}/collections/{CORE}/", str(REPOSITORY / "plugins/module_utils/_core"))
        self._driver = subprocess.Popen(
            self.ssh(self._command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask("clean")
        self.copy(f"{STACK}/", f"{repository}/")
        self.ask("make")

    def ask(self, method: str, *arguments: Any) -> Any:
        assert self._driver is not None
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps([method, arguments]) + "\n")
        self._driver.stdin.flush()
        answer = json.loads(self._driver.stdout.readline() or '{"error": "whole_host.py has ended"}')
        assert "error" not in answer, f"{self.name}, {method}: {answer['error']}"
        return answer["value"]

    def remove(self) -> None:
        assert self._driver is not None
        self.ask("clean")
        self._driver.communicate()
        # a guard whose engine was away may still look after its containers
        wait = "for n in $(seq 100); do pgrep -f '[o]mrest/guard/guard.py' >/dev/null || break; sleep 0.2; done"
        left = f"{wait}; ! pgrep -af '[o]mrest/guard/guard.py'"
        subprocess.run(self.ssh(f"rm -rf {SCRIPTS}; docker rmi -f {IMAGE} >/dev/null; {left}"), check=True)

    def round(self, killer: str, verb: str, at: str) -> dict[str, Any]:
        """What was seen of one death; all is put right afterwards."""
        self.rounds += 1
        if killer == "ansible":
            return self._by_ansible(verb, at)
        asked = {"verb": verb, "at": at, "directory": STACK, "snapshot": self.ask("begin")}
        options = ["-tt"] if killer == "connection" else []
        child = subprocess.Popen(
            self.ssh(f"{self.child} {shlex.quote(json.dumps(asked))}", *options),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            said = json.loads(child.stdout.readline() or "{}")
            assert said.get("at") == at, f"{said}: it ended before {at}"
            found: dict[str, Any] = {"frozen": self.ask("frozen"), "told": None}
            if killer == "connection":
                child.kill()
                found["thawed_s"], found["gone"] = self.ask("thaw", said["pid"])
            else:
                found["thawed_s"] = self.ask("kill_dockerd")
                if at in LATE:
                    self.ask("back")
                self.ask("go")
                found["told"] = json.loads(child.communicate(timeout=ROUND_S)[0])
                self.ask("back")
        finally:
            child.kill()
            child.communicate()
            self.ask("go")  # of a round that failed, it still stays on its host
        return {**found, **self.ask("put_right", ("recover", "the next backup")[self.rounds % 2])}

    def _by_ansible(self, verb: str, at: str) -> dict[str, Any]:
        asked = {"compose_project": PROJECT, "password_file": f"{STACK}/password", "state_dir": f"{STACK}/state"}
        asked["repository"] = f"{STACK}/repository"
        output = self.output / f"{verb}-{at}"
        for _number in range(TRIES):
            snapshot, before = self.ask("begin"), self.ask("snapshots")
            more = {"snapshot": snapshot, "force": True, "safety": False} if verb == "restore" else {}
            with AnsibleRun(self.name, f"volume_{verb}", {**asked, **more}, output) as run:
                pid = 0
                if at == RESULT:
                    run.cut_result(CUTS)
                else:
                    pid = self.ask("hold", at)
                if pid:
                    try:
                        run.wait_for(LOST, run.cut)
                        if at == "copy":  # long enough for a line about how far it is
                            run.wait_for(f"backup: {at}")
                    finally:
                        self.ask("let_go", pid)
                result = run.result()
            if pid or at == RESULT:
                break
        else:
            raise AssertionError(f"{verb}: it was never seen at {at}")
        made = [name for name in self.ask("snapshots") if name not in before]
        return {"result": result, "printed": run.said(), "made": made, **self.ask("put_right", "recover")}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a cheap key, and its password."""
    place = tmp_path_factory.mktemp("whole")
    ensure_password(str(place / "password"))
    Repository(Restic(str(place / "repository"), str(place / "password"))).init()
    return place


@pytest.fixture(scope="module")
def rounds(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[Round, Future[dict[str, Any]]]]:
    """The rounds of all tests that were selected, under way."""
    assert {"lab1", "lab2"} <= set(addresses()), "the lab is not up; run: make lab"
    items: list[Any] = [item for item in request.session.items if item.path == Path(__file__)]
    wanted = [tuple(item.callspec.params[name] for name in NAMES) for item in items]
    with open("/var/tmp/omlab-engines.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        hosts = [Host(name, tmp_path_factory.mktemp(name)) for name in ("lab1", "lab2")]
        lanes = [ThreadPoolExecutor(1), ThreadPoolExecutor(1)]
        for ready in [lane.submit(host.install, repository) for lane, host in zip(lanes, hosts, strict=True)]:
            ready.result()
        begun = {
            one: lanes[number % 2].submit(hosts[number % 2].round, *one)
            for number, one in enumerate([*ROUNDS, *AGAIN])
            if one in wanted
        }
        yield begun
        for lane, host in zip(lanes, hosts, strict=True):
            lane.shutdown()
            host.remove()


@pytest.mark.parametrize(NAMES, ROUNDS)
def test_it_dies(rounds: dict[Round, Future[dict[str, Any]]], killer: str, verb: str, at: str) -> None:
    found = rounds[killer, verb, at].result()
    print(found)
    assert found["frozen"] == (2 if at == "frozen" else 0)
    assert found["thawed_s"] < PROMISED_S
    if killer == "connection":
        assert found["gone"], "the run went on without its connection"
        finished = at == "accepted"
    else:
        finished = found["told"]["error"] is None
    assert found["data"] == ("new" if finished and verb == "restore" else "old")
    assert (found["running"], found["left"]) == (BOTH, [])
    assert found["next"] == ["old", BOTH, []], "the next backup or restore"


@pytest.mark.parametrize(NAMES, AGAIN)
def test_ansible_connects_again(rounds: dict[Round, Future[dict[str, Any]]], killer: str, verb: str, at: str) -> None:
    found = rounds[killer, verb, at].result()
    print(found["printed"])
    is_backup = verb == "backup"
    assert found["printed"].count(f"{verb}: {LOST}\n") == 1
    assert found["made"] == ([found["result"]["snapshot_id"]] if is_backup else [])
    assert found["said"] == [], "something was left to put right"
    assert (found["data"], found["running"], found["left"]) == ("old" if is_backup else "new", BOTH, [])
    assert found["next"] == ["old", BOTH, []], "the next backup or restore"
    if not is_backup:  # Ansible has "started" as a word of its own for what runs in the background
        assert sorted(found["result"]["started_again"]) == BOTH
    if at == "copy":
        assert re.search(rf"^lab\d: {verb}: plan took .* s", found["printed"], re.MULTILINE)
        assert re.search(rf"^lab\d: {verb}: {at} .* of .*%", found["printed"], re.MULTILINE)
