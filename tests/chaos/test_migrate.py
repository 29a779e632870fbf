# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Migrations between two hosts of the lab while either side, or the network between them, dies at each step."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator

import pytest
from moving_stack import PROJECT, PROMISED_S, STATE, Flit

BOTH = [f"{PROJECT}-first", f"{PROJECT}-second"]
UNIT = f"openmemory-stack-arrival-{PROJECT}-*"


@pytest.fixture(scope="module")
def installed() -> Iterator[Flit]:
    """The other tests that break the lab's engines wait meanwhile."""
    with open("/var/tmp/omlab-engines.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        flit = Flit()
        flit.install()
        yield flit
        flit.clean()


@pytest.fixture
def flit(installed: Flit) -> Flit:
    installed.clean()
    installed.deploy()
    return installed


def stays(flit: Flit) -> None:
    """The source runs with all that it ever wrote, there were never two, and the target has nothing."""
    assert flit.running(flit.source) == BOTH
    assert flit.two_at_once() == []
    assert flit.is_whole(flit.source)
    end = time.monotonic() + 10
    while flit.target_is_clean() and time.monotonic() < end:
        time.sleep(0.5)
    assert flit.target_is_clean() == []


def moved(flit: Flit) -> None:
    """The target runs with all that the source ever wrote, there were never two, and the source is retired."""
    assert flit.running(flit.target) == BOTH
    assert flit.running(flit.source) == []
    assert flit.two_at_once() == []
    assert flit.is_whole(flit.target)
    policies = "docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' "
    assert flit.source.sh(f"{policies} {' '.join(BOTH)}").split() == ["no", "no"]
    assert flit.target.sh(f"{policies} {' '.join(BOTH)}").split() == ["unless-stopped", "unless-stopped"]
    assert f'"target": "{flit.target.name}"' in flit.source.sh(f"cat {STATE}/{PROJECT}/retired.json")


def test_it_moves(flit: Flit) -> None:
    told = list(flit.move())
    result = told[-1]["result"]
    assert result["changed"]
    moved(flit)
    assert 0 < result["start_s"] < result["cutover_s"]
    assert "openmemory-stack-migration" not in flit.target.sh("cat /root/.ssh/authorized_keys")
    assert flit.source.sh(f"ls {STATE}/{PROJECT}").split() == ["lock", "retired.json"]


BEFORE = ["connect", "transfer", "freeze", "delta", "start", "target: swap", "target: start", "target: prove", "commit"]


@pytest.mark.parametrize("at", BEFORE)
def test_the_source_is_killed(flit: Flit, at: str) -> None:
    told = list(flit.move(at))
    assert told[-1]["step"] == at
    assert flit.await_beat(flit.source, told[-1]["time"], PROMISED_S) < PROMISED_S
    flit.await_end()
    stays(flit)


def test_a_recovery_right_after_a_death_waits_for_the_target_too(flit: Flit) -> None:
    """The guard and the watcher are dead as well, and somebody runs recover at once."""
    for told in flit.move():
        if told.get("step") == "target: start":
            flit.source.sh("pkill -KILL -f '[g]uard.py' || true; pkill -KILL -f '[m]igrate_child.py'")
            killed = told["time"]
    assert "Resumed container" in flit.recover()
    assert flit.await_beat(flit.source, killed, PROMISED_S) > 0
    stays(flit)


@pytest.mark.parametrize("at", ["ask accept", "asked accept", "retire"])
def test_the_source_is_killed_around_the_point_of_no_return(flit: Flit, at: str) -> None:
    """Its watcher asks the target, and goes on as that says."""
    told = list(flit.move(at))
    assert told[-1]["step"] == at
    flit.await_end()
    if at == "ask accept":
        flit.await_beat(flit.source, told[-1]["time"], PROMISED_S)
        stays(flit)
    else:
        moved(flit)


@pytest.mark.parametrize("at", ["transfer", "delta", "target: start", "target: prove"])
def test_the_target_is_killed(flit: Flit, at: str) -> None:
    for told in flit.move(wait="ask accept"):  # its proof takes some milliseconds, and it must not have taken over
        if told.get("step") == at:
            flit.target.sh(f"systemctl kill --signal=KILL '{UNIT}'")
            killed = time.time()
        last = told
    assert "cannot be heard" in last["failed"] or "could not be sent" in last["failed"], last
    assert "runs here as before" in last["failed"]
    assert flit.await_beat(flit.source, killed, PROMISED_S) < PROMISED_S
    stays(flit)


def test_the_target_is_stopped_by_a_signal(flit: Flit) -> None:
    """The source hears the silence, or the end that systemd's watchdog makes of it, whichever is first."""
    for told in flit.move():
        if told.get("step") == "target: start":
            flit.target.sh(f"systemctl kill --signal=STOP '{UNIT}'")
            stopped = time.time()
        last = told
    assert "cannot be heard" in last["failed"], last
    assert "runs here as before" in last["failed"]
    assert flit.await_beat(flit.source, stopped, PROMISED_S) < PROMISED_S
    stays(flit)


@pytest.mark.parametrize("at", ["transfer", "delta", "target: start"])
def test_the_network_is_cut(flit: Flit, at: str) -> None:
    with flit.cut_at(at, flit.move()) as last:
        assert "runs here as before" in last["failed"]
        assert flit.await_beat(flit.source, last["cut"], PROMISED_S) < PROMISED_S
    stays(flit)


@pytest.mark.parametrize("at", ["ask accept", "asked accept"])
def test_the_network_is_cut_at_the_point_of_no_return(flit: Flit, at: str) -> None:
    """Neither runs as long as nobody can know; then whichever side the target says."""
    for told in flit.move(wait=at):
        if told.get("step") == at:
            with flit.cut():
                time.sleep(6)
                assert flit.running(flit.source) == []
        last = told
    if at == "asked accept":
        assert last["result"]["changed"]
        moved(flit)
    else:
        assert "has not taken over" in last["failed"]
        flit.await_beat(flit.source, last["time"], PROMISED_S)
        stays(flit)


def test_nobody_runs_while_the_target_cannot_be_asked(flit: Flit) -> None:
    """What is said then, that it is said again, and who runs once it can be asked."""
    with flit.cut_at("ask accept", flit.move(wait="ask accept", patience=2)) as last:
        assert "cannot be told" in last["failed"]
        assert "lab2" in last["failed"]
        assert "cannot be told" in flit.recover()
        assert flit.running(flit.source) == []
        assert flit.running(flit.target) == []
    flit.recover()  # unless its watcher was quicker
    flit.await_end()
    flit.await_beat(flit.source, time.time(), PROMISED_S)
    stays(flit)


def test_a_store_in_its_containers_own_layer_comes_along(flit: Flit) -> None:
    """Upstream's compose file mounted Qdrant's volume beside its data (mem0 issue 2895)."""
    flit.clean()
    flit.make_qdrant(flit.source, "run -d", "/mem0/storage")
    flit.make_qdrant(flit.target, "create", "/qdrant/storage")
    flit.add_points(5)
    result = list(flit.move())[-1]["result"]
    assert result["census"] == {"qdrant_storage": {"collections": {"flit": 5}}}
    place = f"/var/lib/docker/volumes/{PROJECT}_qdrant_storage/_data"
    look = "import os, sys; print({name for place, _d, _f in os.walk(sys.argv[1]) for name in os.listxattr(place)})"
    assert flit.target.sh(f"python3 -c '{look}' {place}") == "set()"


def test_the_source_is_stopped_by_a_signal_and_goes_on(flit: Flit) -> None:
    for told in flit.move():
        if told.get("step") == "target: start":
            flit.source.sh("pkill -STOP -f '[m]igrate_child.py'")
            time.sleep(5)
            assert flit.running(flit.target) == []
            flit.source.sh("pkill -CONT -f '[m]igrate_child.py'")
        last = told
    assert "failed" in last
    flit.await_beat(flit.source, last["time"], PROMISED_S)
    stays(flit)


def test_the_engine_of_the_source_dies_in_the_freeze(flit: Flit) -> None:
    for told in flit.move():
        if told.get("step") == "target: start":
            flit.source.sh("kill -9 $(pidof dockerd)")
        last = told
    assert "failed" in last
    end = time.monotonic() + 60
    while flit.source.sh("timeout 5 docker version > /dev/null 2>&1 && echo yes || echo no") != "yes":
        assert time.monotonic() < end
        time.sleep(0.5)
    flit.recover()
    flit.await_beat(flit.source, last["time"], 30)
    stays(flit)
