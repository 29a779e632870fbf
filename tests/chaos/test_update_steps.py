# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Qdrant that demands steps: taken, refused, and killed in one. Its storage is opened one minor at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import THROWAWAY, recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof import ask, census, trial
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import update
from update_stack import PROJECT, Updated, alone

from live_stack import REPOSITORY

IMAGE = f"{PROJECT}/qdrant"
OLD, NEW = {"q": f"{IMAGE}:v1.20.0"}, {"q": f"{IMAGE}:v1.22.0"}
READY = (
    "exec 3<>/dev/tcp/127.0.0.1/6333 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 "
    "&& read -r a <&3 && [[ $$a == *200* ]]"
)
POINTS = 20


class Stepping(Updated):
    """One service, which is healthy when Qdrant answers."""

    def compose(self, images: dict[str, str]) -> dict[str, Any]:
        health = {"test": ["CMD", "bash", "-c", READY], "interval": "1s", "retries": 30}
        service = {"image": images["q"], "volumes": ["data:/qdrant/storage"], "network_mode": "none", "init": True}
        return {"services": {"q": {**service, "healthcheck": health}}, "volumes": {"data": {}}}

    @property
    def server(self) -> ask.Service:
        found = ask.qdrant(self.inspected()["q"])
        assert found is not None
        return found

    def fill(self) -> None:
        self.server.ask("PUT", "/collections/c", {"vectors": {"size": 2, "distance": "Cosine"}})
        points = [{"id": number, "vector": [1, number]} for number in range(1, POINTS + 1)]
        self.server.ask("PUT", "/collections/c/points?wait=true", {"points": points})

    def points(self) -> Any:
        return census.count_qdrant(self.server)["collections"]

    def throwaways(self) -> Any:
        """Its own: other tests have theirs on the same engine."""
        return self.client.containers(all=True, filters={"label": f"{THROWAWAY}={PROJECT}"})


@pytest.fixture(scope="module")
def references() -> Iterator[None]:
    """The reference images under one name; the tag of the first step has a patch, as if there was none of the minor."""
    client = docker.APIClient()
    with alone():
        build = [sys.executable, str(REPOSITORY / "tests/images/build.py")]
        lines = subprocess.run(build, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.splitlines()
        for reference, local in (line.split() for line in lines if line.startswith("qdrant/qdrant:")):
            client.tag(local, IMAGE, reference.rpartition(":")[2])
        yield
        for tag in ("v1.20.0", "v1.21.0", "v1.22.0"):
            client.remove_image(f"{IMAGE}:{tag}", force=True)


@pytest.fixture
def home(references: None) -> Iterator[Stepping]:
    stack = Stepping(Path("/var/tmp") / f"{PROJECT}-steps")
    stack.clean()
    stack.directory.mkdir()
    stack.state.mkdir()
    stack.deploy(**OLD)
    stack.fill()
    yield stack
    stack.clean()


def test_two_steps_in_one_update_and_all_points(home: Stepping) -> None:
    result = home.update(NEW)
    assert result["services"]["q"]["steps"] == [f"{IMAGE}:v1.21.0"]
    assert (home.running(), home.points()) == (NEW, {"c": POINTS})
    assert "step v1.21.0" in result["timings"]
    assert not home.throwaways()


def test_without_the_step_the_server_does_not_start_and_the_old_one_runs_again(
    home: Stepping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the steps are for, and that they are taken: without them this engine refuses the storage."""
    with monkeypatch.context() as patch:
        patch.setattr(update, "with_steps", lambda service, _have: service)
        with pytest.raises(StackError, match="on the data from before the update"):
            home.update(NEW)
    assert (home.running(), home.points()) == (OLD, {"c": POINTS})


def test_refused_before_anything_stops(home: Stepping) -> None:
    before = home.ids()
    with pytest.raises(StackError, match=r"Qdrant 1\.20\.0 runs.*update to 1\.21, then to 1\.22\.0"):
        home.update(NEW, steps="refuse")
    step = home.image(f"{IMAGE}:v1.21.0")
    home.client.remove_image(f"{IMAGE}:v1.21.0")
    try:
        with pytest.raises(StackError, match=rf"has to run 1\.21 before that, .* neither {IMAGE}:v1\.21 nor"):
            home.update(NEW)
    finally:
        home.client.tag(step, IMAGE, "v1.21.0")
    assert home.ids() == before
    assert home.points() == {"c": POINTS}


def die(*_: Any) -> None:
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_in_a_step_the_old_version_has_its_data_back(home: Stepping) -> None:
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            pytest.MonkeyPatch().setattr(trial, "wait_ready", die)
            update.run(home.request(NEW), Engine.connect(), Progress())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    end = time.monotonic() + 60
    while (home.running() != OLD or os.path.exists(home.places.journal)) and time.monotonic() < end:
        time.sleep(0.05)
    while home.inspected()["q"]["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < end + 20
        time.sleep(0.2)
    assert (home.running(), home.points()) == (OLD, {"c": POINTS})
    assert not home.throwaways()
    time.sleep(0.3)  # the watcher's last words
    assert recover(home.engine, home.places) == []
