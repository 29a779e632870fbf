# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The line between the two hosts over pipes: who may run, for how long, and what each side knows of the other."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import line as under_test
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.caller import LOST
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.line import Line, LineLostError

from ..conftest import COLLECTIONS

CHILD = Path(__file__).with_name("arrival_child.py")
LEASE_S, FENCED_S, SILENCE_S, TICK_S = 0.6, 0.4, 0.45, 0.1
LATE_S = 0.5  # what a busy machine may take longer


class Target:
    """How the target is to be, and what became of its containers."""

    def __init__(self, root: Path):
        self.killed = root / "killed"
        self.asked: dict[str, Any] = {"killed": str(self.killed), "lease": LEASE_S, "tick": TICK_S}
        self.environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}

    def command(self, **asked: Any) -> list[str]:
        return [sys.executable, str(CHILD), json.dumps({**self.asked, **asked})]

    def line(self, **asked: Any) -> Line:
        return Line(["env", f"PYTHONPATH={COLLECTIONS}", *self.command(**asked)], 10)

    def process(self, **asked: Any) -> subprocess.Popen[bytes]:
        """Without the source's end of the line."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(**asked), stdin=pipe, stdout=pipe, env=self.environment)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    for name, value in (("LEASE_S", LEASE_S), ("FENCED_S", FENCED_S), ("SILENCE_S", SILENCE_S)):
        monkeypatch.setattr(under_test, name, value)
    return Target(tmp_path)


@pytest.fixture
def process(target: Target) -> Iterator[subprocess.Popen[bytes]]:
    with target.process() as running:
        assert answer(running) == {"hello": under_test.PROTOCOL}
        yield running
        running.kill()


def tell(process: subprocess.Popen[bytes], **message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def start(process: subprocess.Popen[bytes], seconds: float = 60, until: str = "phase") -> None:
    """Answer as the source does until the containers run, and then no more."""
    tell(process, do="start", seconds=seconds)
    while until not in (said := hear(process)):
        if "tick" in said:
            tell(process, tock=said["tick"])


def answer(process: subprocess.Popen[bytes]) -> Any:
    """The next message that is no tick."""
    while "tick" in (said := hear(process)):
        continue
    return said


def rest(process: subprocess.Popen[bytes]) -> list[Any]:
    """What it still says until it ends."""
    assert process.stdout is not None
    return [json.loads(line) for line in process.stdout]


def faked(script: str) -> list[str]:
    """A target that is a few lines of shell after its greeting."""
    greeting = json.dumps({"hello": under_test.PROTOCOL})
    return ["sh", "-c", f"echo {shlex.quote(greeting)}; {script}"]


def test_a_request_and_its_answer(target: Target) -> None:
    line = target.line()
    assert line.ask("offer", 5, volumes={"a": 1}) == {"done": "offer", "volumes": {"a": 1}}
    line.close()
    assert not target.killed.exists()


def test_what_the_target_refuses_is_said_in_its_own_words(target: Target) -> None:
    line = target.line()
    with pytest.raises(StackError, match=r"^It is full\.$"):
        line.ask("refuse", 5)
    assert line.ask("sync", 5)["done"] == "sync"
    line.close()


def test_the_targets_steps_are_told(target: Target) -> None:
    line, phases = target.line(), []
    line.lease()
    line.ask("start", 5, phases.append, seconds=0)
    assert phases == ["one", "two"]
    line.fence()


def test_another_version_is_refused(target: Target) -> None:
    with pytest.raises(StackError, match="another version of openmemory"):
        target.line(protocol=under_test.PROTOCOL + 1)


@pytest.mark.parametrize("script", ["echo 'Host key verification failed.' >&2; exit 255", "echo Account expired."])
def test_a_line_that_does_not_come_to_be_says_why(script: str) -> None:
    with pytest.raises(LineLostError, match=r"\((Host key verification failed|Account expired)\)"):
        Line(["sh", "-c", script], 5)


def test_a_target_that_does_not_greet(target: Target) -> None:
    with pytest.raises(LineLostError, match=r"no answer in 0\.2 s"):
        Line(["sleep", "60"], 0.2)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(StackError, match="/no/ssh cannot be started"):
        Line(["/no/ssh"], 1)


def test_who_waits_for_an_answer_may_give_up(target: Target) -> None:
    begun: list[str] = []

    def fired() -> None:
        if begun:
            raise StackError("The guard has fired.")

    line = target.line()
    line.watch = fired
    line.lease()
    with pytest.raises(StackError, match="The guard has fired"):
        line.ask("start", 60, begun.append, seconds=60)
    line.fence()
    assert target.killed.exists()


def test_as_long_as_the_source_answers_the_target_runs(target: Target) -> None:
    line = target.line()
    line.lease()
    assert line.ask("start", 10, seconds=4 * LEASE_S)["done"] == "start"
    assert not target.killed.exists()
    assert line.ask("accept", 5)["accepted"] == [True]
    line.close()
    time.sleep(LEASE_S + LATE_S)
    assert not target.killed.exists()


def test_stop_kills_first_and_is_answered_then(target: Target) -> None:
    """The fence returns as soon as the target has said that it has killed, and not before."""
    line = target.line(kill=0.3)
    line.lease()
    line.ask("start", 5, seconds=0)
    begun = time.monotonic()
    line.fence()
    assert target.killed.exists()
    assert 0.3 < time.monotonic() - begun < LEASE_S + FENCED_S


def test_a_fence_that_comes_before_the_start_lets_it_not_begin(target: Target) -> None:
    """The target is slow: its lease would begin with an answer to its next tick, and there is none any more."""
    script = (
        f"""read start; read stop; echo '{{"tick": 1}}'; timeout 0.3 head -n 1 > {target.killed}; cat > /dev/null"""
    )
    line = Line(faked(script), 5)
    line.lease()
    with pytest.raises(LineLostError):
        line.ask("start", 0.1)
    line.fence()
    assert target.killed.read_text() == ""


def test_a_fence_before_the_lease_waits_for_nothing(target: Target) -> None:
    line = target.line()
    begun = time.monotonic()
    line.fence()
    assert time.monotonic() - begun < LEASE_S
    assert not target.killed.exists()


def test_a_late_answer_is_not_taken_for_a_stop(target: Target) -> None:
    """The target had just started when it was told to stop."""
    script = f"""read start; read stop; echo '{{"done": "start"}}'; sleep 0.2; touch {target.killed}
    echo '{{"done": "stop"}}'; cat > /dev/null"""
    line = Line(faked(script), 5)
    line.lease()
    with pytest.raises(LineLostError):
        line.ask("start", 0.1)
    line.fence()
    assert target.killed.exists()


def test_a_target_that_falls_silent_is_given_up_and_waited_for(target: Target) -> None:
    """It may be any time before it kills what it has started: nothing here may go on until then."""
    ticks = """for n in 1 2 3; do echo '{"tick": '$n'}'; sleep 0.1; done; exec sleep 60"""
    line = Line(faked(ticks), 5)
    line.lease()
    begun = time.monotonic()
    with pytest.raises(LineLostError, match="silent"):
        line.ask("start", 60)
    silent = time.monotonic() - begun
    line.fence()
    fenced = time.monotonic() - begun
    last_tick = 0.2
    assert last_tick + SILENCE_S <= silent < last_tick + SILENCE_S + LATE_S
    assert fenced >= last_tick + LEASE_S + FENCED_S


def test_a_connection_that_hangs_is_ended(target: Target) -> None:
    """ssh was stopped by a signal, and does not end when it is told to."""
    line = Line(faked("kill -STOP $$"), 5)
    begun = time.monotonic()
    line.close()
    assert time.monotonic() - begun < 5


def test_a_target_that_is_gone_is_waited_for_too(target: Target) -> None:
    """The connection may have broken with the target's part of it alive."""
    begun = time.monotonic()
    line = Line(faked("exit 0"), 5)
    line.lease()
    with pytest.raises(LineLostError, match="the connection was closed"):
        line.ask("start", 5)
    line.fence()
    assert time.monotonic() - begun >= LEASE_S + FENCED_S


def test_without_answers_the_target_kills(target: Target, process: subprocess.Popen[bytes]) -> None:
    start(process)
    begun = time.monotonic()
    assert process.wait(10) == LOST
    assert LEASE_S - TICK_S <= time.monotonic() - begun < LEASE_S + LATE_S
    assert target.killed.exists()


def test_an_old_answer_counts_from_when_its_tick_was_sent(target: Target, process: subprocess.Popen[bytes]) -> None:
    """A network that holds answers back must not make the lease longer; nor does an answer that was never asked for."""
    start(process)
    first = hear(process)
    begun = time.monotonic()
    time.sleep(LEASE_S - TICK_S * 2)
    tell(process, tock=first["tick"])
    tell(process, tock=first["tick"])
    tell(process, tock=4711)
    assert process.wait(10) == LOST
    assert time.monotonic() - begun < LEASE_S + LATE_S


def test_a_start_that_was_long_on_its_way_starts_nothing(target: Target, process: subprocess.Popen[bytes]) -> None:
    """The source has given up meanwhile and goes on; it answers no tick, or had answered those of before only."""
    before = hear(process)
    tell(process, do="start", seconds=60)
    tell(process, tock=before["tick"])
    assert answer(process) == {"failed": "The source does not answer."}


def test_a_line_that_closes_kills_at_once(target: Target, process: subprocess.Popen[bytes]) -> None:
    start(process)
    assert process.stdin is not None
    process.stdin.close()
    begun = time.monotonic()
    assert process.wait(10) == LOST
    assert time.monotonic() - begun < LEASE_S - TICK_S
    assert target.killed.exists()


def test_what_is_no_message_is_as_a_line_that_closes(target: Target, process: subprocess.Popen[bytes]) -> None:
    start(process)
    assert process.stdin is not None
    process.stdin.write(b"\xff no JSON\n")
    process.stdin.flush()
    begun = time.monotonic()
    assert process.wait(10) == LOST
    assert time.monotonic() - begun < LEASE_S - TICK_S
    assert target.killed.exists()


def test_without_a_lease_nothing_is_killed(target: Target, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    assert not target.killed.exists()


def test_what_was_accepted_runs_without_answers(target: Target, process: subprocess.Popen[bytes]) -> None:
    start(process, seconds=0, until="done")
    tell(process, do="accept")
    assert answer(process) == {"done": "accept", "accepted": [True]}
    time.sleep(LEASE_S + TICK_S)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
    assert not target.killed.exists()


def test_a_stop_in_the_middle_of_a_start_is_not_left_for_later(
    target: Target, process: subprocess.Popen[bytes]
) -> None:
    start(process)
    tell(process, do="stop")
    assert answer(process) == {"done": "stop"}
    assert target.killed.exists()
    assert process.wait(10) == LOST


def test_systemd_hears_that_it_lives(target: Target, tmp_path: Path) -> None:
    """And does not while it is stopped by a signal, when it sees to no lease."""
    place = os.path.relpath(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(place)
        heard.settimeout(5)
        target.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with target.process() as process:
            assert heard.recv(100) == b"WATCHDOG=1"
            assert heard.recv(100) == b"WATCHDOG=1"
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            heard.setblocking(False)
            while heard_before(heard):
                continue
            heard.settimeout(1.5)
            with pytest.raises(TimeoutError):
                heard.recv(100)
            process.kill()


def heard_before(heard: socket.socket) -> bool:
    try:
        return bool(heard.recv(100))
    except BlockingIOError:
        return False
