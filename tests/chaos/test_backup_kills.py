# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Promise 4 for a backup: killed with -9, or the disk full, at every phase.

Containers run again, data is whole, the next run goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import THROWAWAY

from backup_child import request
from live_stack import LiveStack

CHILD = Path(__file__).resolve().parent / "backup_child.py"
ROOT = Path("/var/tmp/omkill")
PROJECT = "omkill"
RESUMED_SECONDS = 5.0  # promise 4
PHASES = ("plan", "repository", "copy", "freeze", "check", "probe", "export", "throw-away", "commit", "retention")


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    LiveStack(PROJECT, ROOT / "stack", 28780).down()
    shutil.rmtree(ROOT, ignore_errors=True)
    made = LiveStack(PROJECT, ROOT / "stack", 28780)
    (ROOT / "password").touch(mode=0o600)
    (ROOT / "password").write_text("chaos")
    made.up()
    made.write(100)
    yield made
    made.down()
    shutil.rmtree(ROOT)


def run(phase: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(phase), capture_output=True, text=True, check=False, env=environment())


def command(phase: str) -> list[str]:
    return [sys.executable, str(CHILD), str(ROOT), PROJECT, phase]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(CHILD.parents[2] / ".collections")}


def states(stack: LiveStack) -> dict[str, dict[str, Any]]:
    client = docker.APIClient()  # not Compose: this is asked again and again
    found = client.containers(all=True, filters={"label": f"com.docker.compose.project={PROJECT}"})
    known = {one["Labels"]["com.docker.compose.service"]: one["Id"] for one in found}
    return {name: client.inspect_container(known[name])["State"] for name in ("openmemory-mcp", "qdrant", "neo4j")}


def wait_until_all_run(stack: LiveStack) -> None:
    end = time.monotonic() + RESUMED_SECONDS
    while any(state["Paused"] or not state["Running"] for state in states(stack).values()):
        assert time.monotonic() < end, states(stack)
        time.sleep(0.05)


def assert_whole(stack: LiveStack) -> None:
    found = stack.read()
    assert found["agree"], found
    assert not found["missing_count"], found


def assert_next_run_works() -> None:
    done = run("none")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    asked = request(ROOT, PROJECT)
    repository = backup.open_repository(asked, Places.of(PROJECT, asked.state_dir))
    repository.restic.lock_wait_s = 30.0  # the killed run's restic may still be on its way out
    assert repository.check() == []
    assert repository.snapshots(PROJECT)[-1].id == result["snapshot_id"]
    assert not Path(Places.of(PROJECT, asked.state_dir).journal).exists()
    label = {"label": f"{THROWAWAY}={PROJECT}"}
    client = docker.APIClient()
    assert [*client.containers(all=True, filters=label), *client.networks(filters=label)] == []
    assert not any(Path(Places.of(PROJECT, asked.state_dir).scratch).glob("*"))


@pytest.mark.parametrize("phase", PHASES)
def test_killed_at_the_start_of_a_phase(stack: LiveStack, phase: str) -> None:
    started = {name: state["StartedAt"] for name, state in states(stack).items()}
    done = run(phase)
    assert done.returncode == -signal.SIGKILL, (done.returncode, done.stderr)
    wait_until_all_run(stack)
    assert {name: state["StartedAt"] for name, state in states(stack).items()} == started, "a container was restarted"
    assert_whole(stack)
    assert_next_run_works()
    assert_whole(stack)


@pytest.fixture(params=["state", "repository"])
def small_disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The state directory, or the repository, on a disk of 900 MB; nothing else is there."""
    place = ROOT / str(request.param)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900m,mode=0700", "omkill", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)
    place.rmdir()
    for left in ("state", "repository"):
        shutil.rmtree(ROOT / left, ignore_errors=True)


@pytest.mark.parametrize("phase", ["copy", "freeze", "check", "commit", "retention"])
def test_the_disk_gets_full_when_a_phase_begins(stack: LiveStack, small_disk: Path, phase: str) -> None:
    filler = small_disk / "filler"
    if small_disk.name == "repository":
        assert run("none").returncode == 0  # a repository is made in an empty directory only
    done = run(f"fill:{phase}:{filler}")
    if done.returncode:
        assert "No space left" in done.stderr or "no room" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    else:  # what came after that phase needs no room there
        needed = {"state": ("copy", "check"), "repository": ("copy", "freeze", "check", "commit")}
        assert phase not in needed[small_disk.name], "a snapshot was made on a full disk"
    wait_until_all_run(stack)
    filler.unlink()
    assert_next_run_works()
    assert_whole(stack)


@pytest.mark.parametrize("group", [False, True])
def test_killed_while_everything_is_frozen(stack: LiveStack, group: bool) -> None:
    child = subprocess.Popen(command("slow"), env=environment(), start_new_session=True)
    end = time.monotonic() + 60
    while not all(state["Paused"] for state in states(stack).values()):
        assert time.monotonic() < end, "the freeze did not come"
        assert child.poll() is None, "it ended before the freeze"
        time.sleep(0.02)
    if group:
        os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.wait()
    wait_until_all_run(stack)
    assert_whole(stack)
    assert_next_run_works()


def test_killed_at_any_moment_of_the_commit(stack: LiveStack) -> None:
    child = subprocess.Popen(command("none"), env=environment(), stdout=subprocess.DEVNULL)
    journal = Path(Places.of(PROJECT, request(ROOT, PROJECT).state_dir).journal)
    end = time.monotonic() + 60
    while not (journal.exists() and '"commit"' in journal.read_text()):
        assert time.monotonic() < end, "the commit did not come"
        assert child.poll() is None, "it ended before the commit"
        time.sleep(0.01)
    time.sleep(0.2)
    child.kill()
    child.wait()
    wait_until_all_run(stack)
    assert_next_run_works()
    assert_whole(stack)
