# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that we paused run again, whatever dies; and what was not one instant is no capture."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import guard_process
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.freeze import Freeze
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.guard import freezers
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from sleepers import DIRECTORY, IMAGE, PREFIX, PROMISED_S, REPOSITORY, Sleepers, image

RUN = {"a": "running", "b": "running", "c": "running"}
GONE_S = 15.0  # a guard that has fired looks after the containers for a moment, and then ends


@pytest.fixture(scope="module", autouse=True)
def _image() -> Iterator[None]:
    with image():
        yield


@pytest.fixture
def sleepers() -> Iterator[Sleepers]:
    made = Sleepers()
    made.clean()
    made.start(*RUN)
    yield made
    made.clean()
    shutil.rmtree(DIRECTORY, ignore_errors=True)


class Recording(Engine):
    """Keeps what was asked for, and does something before a call if a test wants it."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.calls: list[str] = []
        self.before: dict[str, Any] = {}

    def _do(self, verb: str, container: str) -> None:
        call = f"{verb} {self.inspect_container(container)['Name'][len(PREFIX) + 2 :]}"
        self.calls.append(call)
        self.before.pop(call, lambda: None)()
        getattr(super(), verb)(container)

    def pause(self, container: str) -> None:
        self._do("pause", container)

    def unpause(self, container: str) -> None:
        self._do("unpause", container)

    def stop(self, container: str, stop_timeout: int | None = None) -> None:
        self._do("stop", container)

    def start(self, container: str) -> None:
        self._do("start", container)


@pytest.fixture
def engine() -> Recording:
    made = Recording.connect()
    assert isinstance(made, Recording)
    return made


@pytest.fixture
def places(sleepers: Sleepers) -> Places:
    return Places.of("omguard", f"{DIRECTORY}/state", f"{DIRECTORY}/run")


def freeze(engine: Engine, places: Places, pause: Sequence[str] = "abc", stop: str = "", timeout: float = 60) -> Freeze:
    journal = Journal.begin(places, "backup", "b1")
    names = [[f"{PREFIX}-{name}" for name in group] for group in (pause, stop)]
    return Freeze(engine, "omguard", places, journal, *names, timeout=timeout)


@contextlib.contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(StackError, match=words):
        yield


DEATHS = {
    "armed": ("armed", signal.SIGKILL, False),
    "between the pauses": ("pausing", signal.SIGKILL, False),
    "in the body": ("body", signal.SIGKILL, False),
    "between the unpauses": ("resuming", signal.SIGKILL, False),
    "with its whole group": ("body", signal.SIGKILL, True),
    "terminated": ("body", signal.SIGTERM, True),
    "its terminal gone": ("body", signal.SIGHUP, True),
    "interrupted between the pauses": ("pausing", signal.SIGINT, True),
}


@pytest.mark.parametrize(("at", "number", "group"), DEATHS.values(), ids=DEATHS.keys())
def test_the_process_that_pauses_dies(sleepers: Sleepers, at: str, number: int, group: bool) -> None:
    sleepers.start("theirs")
    sleepers.sh(f"docker pause {PREFIX}-theirs")
    frozen = {"armed": "", "pausing": "c", "body": "abc", "resuming": "bc"}[at]
    process, said = sleepers.freeze(at, "a", "b", "c", "theirs")
    wanted = {**RUN, "theirs": "paused"}
    assert sleepers.states() == {**wanted, **dict.fromkeys(frozen, "paused")}
    (os.killpg if group else os.kill)(said["pid"], number)
    assert sleepers.wait(wanted, PROMISED_S) == wanted
    assert sleepers.guards(GONE_S) == ""
    assert process.wait(timeout=10) != 0
    assert sleepers.recover()[-1:] == ["Ended the backup that died in the phase begin."]
    assert sleepers.recover() == []
    assert sleepers.states() == wanted
    assert os.listdir(f"{DIRECTORY}/run/omguard") == []


def test_a_freeze_that_ends_well(sleepers: Sleepers, engine: Recording, places: Places) -> None:
    sleepers.sh(f"docker pause {PREFIX}-b")
    sleepers.start("d")
    noted: list[Any] = []
    engine.before["stop d"] = lambda: noted.append(Journal.load(places))
    with freeze(engine, places, "abc", stop="d") as frozen:
        assert sleepers.states() == {"a": "paused", "b": "paused", "c": "paused", "d": "exited"}
        time.sleep(0.2)
    assert engine.calls == ["stop d", "pause c", "pause a", "unpause a", "unpause c", "start d"]
    assert sleepers.states() == {"a": "running", "b": "paused", "c": "running", "d": "running"}
    assert [entry["how"] for entry in frozen.quiesced] == ["paused", "was paused", "paused", "stopped"]
    assert 0.2 < frozen.window < GONE_S
    noted.append(Journal.load(places))
    names = [[[entry["name"][-1] for entry in journal.data[key]] for key in ("paused", "stopped")] for journal in noted]
    assert names == [[["a", "c"], ["d"]], [[], []]]
    assert sleepers.guards(GONE_S) == ""
    assert os.listdir(places.runtime) == []


def test_an_error_of_the_body_is_passed_on(sleepers: Sleepers, engine: Recording, places: Places) -> None:
    with pytest.raises(ZeroDivisionError), freeze(engine, places):
        raise ZeroDivisionError
    assert sleepers.states() == RUN
    assert sleepers.guards(GONE_S) == ""


def test_the_deadline(sleepers: Sleepers, engine: Recording, places: Places) -> None:
    told = r"took longer than freeze_timeout \(3 s\).* and nothing was backed up; raise freeze_timeout"
    with refused(told), freeze(engine, places, timeout=3) as frozen:  # on a busy machine three pauses take a second
        assert sleepers.wait(RUN, 3 + PROMISED_S) == RUN
        with pytest.raises(StackError, match=told):
            frozen.check()
        assert sleepers.guards(GONE_S) == ""
        sleepers.sh(f"docker pause {PREFIX}-a")  # that is the user's own
        raise StackError("a file changed while it was read")
    assert sleepers.states() == {**RUN, "a": "paused"}
    assert not [call for call in engine.calls if call.startswith("unpause")]


MEDDLING = {
    "resumed": ("docker unpause omguard-b", "omguard-b was resumed", RUN),
    "restarted": (
        "docker unpause omguard-b; docker restart omguard-b; docker pause omguard-b",
        "omguard-b was restart",
        RUN,
    ),
    "removed": ("docker rm -f omguard-b", "omguard-b was removed", {"a": "running", "c": "running"}),
    "started": ("docker start omguard-off", "omguard-off started", RUN),
}


@pytest.mark.parametrize(("command", "words", "left"), MEDDLING.values(), ids=MEDDLING.keys())
def test_what_was_not_one_instant_is_refused(
    sleepers: Sleepers, engine: Recording, places: Places, command: str, words: str, left: dict[str, str]
) -> None:
    sleepers.sh(f"docker create --name {PREFIX}-off --network none {IMAGE} /bin/sleep 900")
    with refused(f"{words}.* nothing was backed up; try again"), freeze(engine, places, ["a", "b", "c", "off"]):
        sleepers.sh(command)
    states = sleepers.states()
    assert states.pop("off") in ("created", "running")
    assert states == left
    assert sleepers.guards(GONE_S) == ""


@pytest.mark.parametrize(("verb", "order"), [("pause", "abc"), ("stop", "")])
def test_a_container_that_refuses(sleepers: Sleepers, engine: Recording, places: Places, verb: str, order: str) -> None:
    kill = f"docker kill {PREFIX}-b" if verb == "pause" else f"docker rm -f {PREFIX}-b"
    engine.before[f"{verb} b"] = lambda: sleepers.sh(kill)
    told = f"Container {PREFIX}-b could not be {verb}"
    with pytest.raises(StackError, match=told), freeze(engine, places, order, stop="" if order else "abc"):
        raise AssertionError
    states = sleepers.states()
    assert states.pop("b", "gone") in ("exited", "gone")
    assert states == {"a": "running", "c": "running"}
    assert sleepers.guards(GONE_S) == ""


def test_what_was_stopped_is_started_by_recovery(sleepers: Sleepers) -> None:
    process, said = sleepers.freeze("body", "a", "b", stop=[f"{PREFIX}-c"])
    os.kill(said["pid"], signal.SIGKILL)
    stopped = {**RUN, "c": "exited"}
    assert sleepers.wait(stopped, PROMISED_S) == stopped
    process.wait(timeout=10)
    assert sleepers.recover()[0] == f"Started container {PREFIX}-c."
    assert sleepers.states() == RUN
    assert sleepers.guards(GONE_S) == ""


def refuse() -> None:
    raise StackError("not now")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("call", ["pause b", "unpause b"])
def test_an_interruption_of_pausing_or_resuming(
    sleepers: Sleepers, engine: Recording, places: Places, call: str
) -> None:
    engine.before[call] = interrupt
    with pytest.raises(KeyboardInterrupt), freeze(engine, places):
        pass
    assert sleepers.wait(RUN, PROMISED_S) == RUN
    assert sleepers.guards(GONE_S) == ""


def test_unpausing_is_tried_again(sleepers: Sleepers, engine: Recording, places: Places) -> None:
    with freeze(engine, places):
        engine.before["unpause b"] = refuse
    assert engine.calls[3:] == ["unpause a", "unpause b", "unpause b", "unpause c"]
    assert sleepers.states() == RUN


def test_the_guard_resumes_what_this_process_cannot(
    sleepers: Sleepers, engine: Recording, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "unpause", lambda container: refuse())
    with freeze(engine, places):
        pass
    assert sleepers.states() == RUN
    assert sleepers.guards(GONE_S) == ""


def end_guard(sleepers: Sleepers, number: int) -> None:
    os.kill(int(sleepers.guards(0.2).split()[0]), number)
    assert sleepers.guards(GONE_S) == ""


def test_a_guard_that_is_told_to_end_resumes(sleepers: Sleepers, engine: Recording, places: Places) -> None:
    told = "guard of the freeze was told to end"
    with refused(told), freeze(engine, places):
        end_guard(sleepers, signal.SIGTERM)
        assert sleepers.states() == RUN


def test_a_guard_that_is_killed_harms_nothing(sleepers: Sleepers, engine: Recording, places: Places) -> None:
    with freeze(engine, places):
        end_guard(sleepers, signal.SIGKILL)
        assert sleepers.states() == dict.fromkeys(RUN, "paused")
    assert sleepers.states() == RUN


def test_a_guard_that_cannot_reach_the_engine_pauses_nothing(
    sleepers: Sleepers, engine: Recording, places: Places
) -> None:
    made = freeze(engine, places)
    engine.docker_host = f"unix://{DIRECTORY}/nowhere.sock"
    with pytest.raises(StackError, match=r"guard of the freeze cannot be started.*nothing was paused"), made:
        raise AssertionError
    assert engine.calls == []
    assert sleepers.guards(GONE_S) == ""


def test_a_guard_that_was_let_go_does_nothing(sleepers: Sleepers, engine: Recording, places: Places) -> None:
    with freeze(engine, places, timeout=3):
        pass
    sleepers.sh(f"docker pause {PREFIX}-a")
    time.sleep(3.5)
    assert sleepers.states() == {**RUN, "a": "paused"}


def test_a_guard_that_has_fired_leaves_the_next_freeze_alone(
    sleepers: Sleepers, engine: Recording, places: Places
) -> None:
    process, said = sleepers.freeze("body", "a", "b", "c")
    os.kill(said["pid"], signal.SIGKILL)
    assert process.wait(timeout=10) != 0
    assert sleepers.wait(RUN, PROMISED_S) == RUN
    assert recover(engine, places)
    with freeze(engine, places):
        time.sleep(2)
        assert sleepers.states() == dict.fromkeys(RUN, "paused")
    assert sleepers.guards(GONE_S) == ""


def test_the_freezer_of_cgroup_version_2(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    made = freezers("0::/omguard-test", mounts, "omguard-test")[0]
    group = Path(made["file"]).parent
    group.mkdir()
    process = subprocess.Popen(["/bin/sleep", "60"])
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        container = {"id": "x", "started_at": "", "freezer": made}
        for word, frozen in (("freeze", True), ("thaw", False)):
            guard_process.set_freezer(container, word)
            assert guard_process.is_frozen(container) is frozen
            until = time.monotonic() + PROMISED_S
            while f"frozen {int(frozen)}" not in (group / "cgroup.events").read_text():  # the kernel takes its time
                assert time.monotonic() < until
    finally:
        process.kill()
        process.wait()
        group.rmdir()


MODULE = """
import os, time
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.freeze import Freeze
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
module = AnsibleModule({"names": {"type": "list"}, "directory": {}})
at = module.params["directory"]
places = Places.of("omguard", at + "/state", at + "/run")
with Freeze(Engine.connect(), "omguard", places, Journal.begin(places, "backup", "b1"), module.params["names"]):
    with open(at + "/pid", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(300)
"""


def test_a_module_of_ansible_dies(sleepers: Sleepers, tmp_path: Path) -> None:
    (tmp_path / "omguard_freeze.py").write_text(MODULE)
    names = ",".join(f"{PREFIX}-{name}" for name in RUN)
    command = [
        str(Path(sys.executable).with_name("ansible")),
        "localhost",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    ]
    command += ["-m", "omguard_freeze", "-a", f"names={names} directory={tmp_path}"]
    environment = {**os.environ, "ANSIBLE_LIBRARY": str(tmp_path)}
    output = tmp_path / "output"
    with output.open("w") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=out, stderr=out)
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    assert sleepers.states() == dict.fromkeys(RUN, "paused"), output.read_text()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert sleepers.wait(RUN, PROMISED_S) == RUN
    process.wait(timeout=30)
    until = time.monotonic() + GONE_S
    while subprocess.run(["pgrep", "-f", f"{tmp_path}/run"], check=False, capture_output=True).stdout:
        assert time.monotonic() < until


def test_an_engine_that_is_slow_to_unpause_lengthens_nobody_else_s_freeze(
    sleepers: Sleepers, engine: Recording, places: Places
) -> None:
    """Seen under load: a health check that froze with its container held the unpause for its timeout, 5 s."""
    slow = 3.0
    engine.before["unpause b"] = lambda: time.sleep(slow)
    frozen = freeze(engine, places)
    with frozen:
        pass
    assert frozen.window < slow, "the freezer was not opened without the engine"
    assert sleepers.states() == RUN
    assert sleepers.guards(GONE_S) == ""
