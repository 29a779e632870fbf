# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key of a migration on the target: what it opens, for how long, and that nobody else's key is touched."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import DEFAULT_HOST
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import BusyError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import door as under_test
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import gate
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.door import Expected, Gate, close_door
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.line import LINE, SETTLE
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.durable_json import write_json
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import record_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places

OPERATION = "20261125t021500-5f0c2a"
NEXT = "20261126t021500-000000"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB+/abc="
OTHERS = ["# mine", 'from="10.0.0.1" ssh-ed25519 AAAAC3other me@home', "ssh-rsa AAAAB3last"]


class Target:
    """A home with keys of others in it, and the state of a stack."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch):
        self.home, self.state_dir = root / "home", root / "state"
        self.keys = self.home / ".ssh/authorized_keys"
        self.account = pwd.struct_passwd(("me", "x", os.getuid(), os.getgid(), "", str(self.home), "/bin/sh"))
        self.home.mkdir()
        monkeypatch.setattr(under_test, "_require_tools", lambda _command: None)
        monkeypatch.setattr(pwd, "getpwnam", {"me": self.account, "root": self.account}.__getitem__)
        of = Places.of
        runtime = str(root / "run")

        def places(project: str, state_dir: str, create: bool = True) -> Places:
            return of(project, state_dir, runtime, create)

        monkeypatch.setattr(Places, "of", places)

    def have(self, lines: list[str], mode: int = 0o600) -> None:
        self.keys.parent.mkdir(mode=0o700)
        self.keys.write_text("".join(f"{line}\n" for line in lines))
        self.keys.chmod(mode)

    def places(self, project: str = "om") -> Places:
        return Places.of(project, str(self.state_dir))

    def gate(self, project: str = "om", operation: str = OPERATION, key: str = KEY, user: str = "me") -> Gate:
        return Gate(Expected(operation, project, {"a": "b"}, ssh_user=user), key, str(self.state_dir))

    @property
    def lines(self) -> list[str]:
        return self.keys.read_text().splitlines()


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    return Target(tmp_path, monkeypatch)


def test_the_key_is_let_in_beside_those_of_others(target: Target) -> None:
    target.have(OTHERS)
    assert target.gate().open(24)
    assert target.lines[:-1] == OTHERS
    options = r'restrict,expiry-time="\d{12}",command=".*"'
    assert re.fullmatch(f"{options} {re.escape(KEY)} openmemory-stack-migration-om", target.lines[-1])


def test_a_second_time_nothing_is_changed(target: Target) -> None:
    target.have(OTHERS)
    target.gate().open(24)
    before = (target.keys.stat().st_ino, target.lines)
    assert not target.gate().open(24)
    assert (target.keys.stat().st_ino, target.lines) == before


def test_the_next_migration_takes_the_place_of_the_last(target: Target) -> None:
    target.gate().open(24)
    other = KEY.replace("abc", "def")
    assert target.gate(operation=NEXT, key=other).open(24)
    assert [OPERATION in line or KEY in line for line in target.lines] == [False]
    assert Expected.load(target.places(), NEXT).name_map == {"a": "b"}
    with pytest.raises(StackError, match=f"No migration {OPERATION} is expected"):
        Expected.load(target.places(), OPERATION)


def test_a_key_that_somebody_took_out_is_let_in_again(target: Target) -> None:
    target.gate().open(24)
    target.keys.write_text("")
    assert target.gate().open(24)
    assert len(target.lines) == 1


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o400])
def test_owner_and_mode_are_kept(target: Target, mode: int) -> None:
    target.have(OTHERS, mode)
    owner = (os.getuid(), os.getgid())
    if os.geteuid() == 0:
        owner = (4711, 4712)
        os.chown(target.keys, *owner)
    target.gate().open(24)
    close_door(target.places(), "om")
    about = target.keys.stat()
    assert (stat.S_IMODE(about.st_mode), (about.st_uid, about.st_gid)) == (mode, owner)
    assert target.lines == OTHERS


def test_what_is_not_there_is_made_for_the_user_alone(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        fields = ("me", "x", 4711, 4712, "", str(target.home), "/bin/sh")
        monkeypatch.setattr(pwd, "getpwnam", lambda _name: pwd.struct_passwd(fields))
    target.gate().open(24)
    for path, mode in ((target.keys.parent, 0o700), (target.keys, 0o600)):
        about = path.stat()
        assert stat.S_IMODE(about.st_mode) == mode
        assert about.st_uid == (4711 if os.geteuid() == 0 else os.getuid())


def test_a_link_stays_a_link(target: Target) -> None:
    target.keys.parent.mkdir()
    real = target.home / "keys"
    real.write_text("ssh-rsa AAAA\n")
    target.keys.symlink_to(real)
    target.gate().open(24)
    assert target.keys.is_symlink()
    assert len(real.read_text().splitlines()) == 2


def test_closing_leaves_the_keys_of_others_and_of_other_stacks(target: Target) -> None:
    target.have(OTHERS)
    target.gate().open(24)
    target.gate("second-om", NEXT, KEY.replace("abc", "def")).open(24)
    assert close_door(target.places(), "om")
    assert target.lines[:-1] == OTHERS
    assert target.lines[-1].endswith("openmemory-stack-migration-second-om")
    assert not os.path.exists(target.places().arrival)
    assert not close_door(target.places(), "om")


def test_check_mode_changes_nothing(target: Target) -> None:
    target.have(OTHERS)
    assert target.gate().open(24, check_mode=True)
    assert target.lines == OTHERS
    assert not target.state_dir.exists()
    target.gate().open(24)
    with_key = target.lines
    assert close_door(target.places(), "om", check_mode=True)
    assert target.lines == with_key
    assert os.path.exists(target.places().arrival)


@pytest.mark.parametrize("hours", [0.5, 24.0])
def test_it_expires_in_the_hosts_own_time(target: Target, hours: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        target.gate().open(hours)
        found = re.search(r'expiry-time="(\d{12})"', target.lines[0])
        assert found is not None
        until = time.mktime(time.strptime(found[1], "%Y%m%d%H%M"))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert -60 <= until - (time.time() + 3600 * hours) <= 0


def ran(options: str, asked: str) -> list[str]:
    """What is run for what the source asks, as sshd would read and run it."""
    match = re.fullmatch(r'restrict,expiry-time="\d+",command="((?:[^"\\]|\\.)*)"', options)
    assert match is not None, options
    command = match[1].replace('\\"', '"')
    environment = {**os.environ, "SSH_ORIGINAL_COMMAND": asked}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.fixture
def teller(tmp_path: Path) -> Path:
    """In place of the command: it says what it was started with."""
    place = tmp_path / "the command"
    place.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    place.chmod(0o755)
    return place


HOSTILE = ["", LINE, "a b", "$(touch /tmp/no) `id`; rm -rf \"x\" 'y' \\", "two\nlines", "-x"]


@pytest.mark.parametrize("asked", HOSTILE)
def test_what_is_asked_for_is_one_word_for_the_gate_and_nothing_for_the_shell(
    target: Target, teller: Path, asked: str
) -> None:
    options = replace(target.gate(user="root"), command=str(teller)).options(time.time())
    state = ["--state-dir", str(target.state_dir), "--docker-host", DEFAULT_HOST]
    assert ran(options, asked) == ["gate", OPERATION, "--project", "om", *state, "--quiet", "--asked", asked]


@pytest.mark.parametrize("place", ["/a b", "/it's", '/say "x"', "/back\\slash", "/$HOME"])
def test_settings_reach_the_gate_as_they_are(teller: Path, place: str) -> None:
    one = Gate(Expected(OPERATION, "om"), KEY, place, f"unix://{place}/docker.sock", str(teller))
    words = ran(one.options(time.time()), LINE)
    assert words[words.index("--state-dir") + 1] == place
    assert words[words.index("--docker-host") + 1] == f"unix://{place}/docker.sock"


def test_a_user_that_is_not_root_becomes_root_by_sudo() -> None:
    options = Gate(Expected(OPERATION, "om", ssh_user="me"), KEY).options(time.time())
    assert options.split('command="', 1)[1].startswith(f"sudo -n {under_test.COMMAND} gate ")
    assert "sudo" not in Gate(Expected(OPERATION, "om"), KEY).options(time.time())


@pytest.mark.parametrize("key", ["", "ssh-ed25519", 'ssh-ed25519 AAAA"\nssh-rsa', "ssh-ed25519\tAA,BB"])
def test_what_is_no_key_is_refused(target: Target, key: str) -> None:
    with pytest.raises(StackError, match="public_key is"):
        target.gate(key=key).open(24)
    assert not target.keys.exists()


def test_a_comment_of_the_key_does_not_come_along(target: Target) -> None:
    target.gate(key=f"{KEY} me@home\nssh-rsa AAAAmore").open(24)
    assert target.lines[0].endswith(f" {KEY} openmemory-stack-migration-om")
    assert len(target.lines) == 1


def test_a_user_that_is_not_there(target: Target) -> None:
    with pytest.raises(StackError, match="ssh_user is nobody-here"):
        target.gate(user="nobody-here").open(24)


def became(monkeypatch: pytest.MonkeyPatch, places: Places, asked: str) -> list[str]:
    """The argv that the gate becomes."""
    seen: list[list[str]] = []

    monkeypatch.setattr(sys, "argv", [under_test.COMMAND])

    def become(file: str, words: list[str]) -> None:
        assert file == words[0]
        seen.append(words)
        raise SystemExit

    monkeypatch.setattr(os, "execvp", become)
    with pytest.raises(SystemExit):
        gate.enter(places, OPERATION, DEFAULT_HOST, asked)
    return seen[0]


def test_the_gate_becomes_the_arrival_in_a_unit_that_ends_it(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.gate().open(24)
    words = became(monkeypatch, target.places(), LINE)
    at = words.index("--")
    own = ["--project", "om", "--state-dir", str(target.state_dir), "--docker-host", DEFAULT_HOST, "--quiet"]
    assert words[at + 1 :] == [under_test.COMMAND, "arrive", OPERATION, *own]
    assert f"--property=ExecStopPost=-{shlex.join([under_test.COMMAND, 'recover', *own])}" in words[:at]
    assert {"--pipe", f"--property=WatchdogSec={gate.WATCHDOG_S}", "--property=WatchdogSignal=SIGKILL"} <= set(
        words[:at]
    )


@pytest.mark.parametrize("more", ["", " --config=/etc/shadow .", "; rm -rf /", " --sender . /etc"])
def test_the_gate_becomes_rsync_by_its_own_settings(target: Target, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    target.gate().open(24)
    places = target.places()
    expected = ["rsync", "--server", "--daemon", f"--config={places.runtime}/arrival.conf", "."]
    assert became(monkeypatch, places, f"rsync --server --daemon{more}") == expected


@pytest.mark.parametrize("asked", ["", "sh", "rsync --server -logDtpr . /", f"{LINE} x", f" {LINE}", f"{SETTLE}; id"])
def test_the_gate_opens_nothing_else(target: Target, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    target.gate().open(24)
    monkeypatch.setattr(os, "execvp", lambda *words: pytest.fail(f"{words}"))
    with pytest.raises(StackError, match="does not open"):
        gate.enter(target.places(), OPERATION, DEFAULT_HOST, asked)


@pytest.mark.parametrize("asked", [LINE, SETTLE, "rsync --server --daemon"])
def test_the_gate_opens_nothing_for_a_migration_that_is_not_expected(
    target: Target, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr(os, "execvp", lambda *words: pytest.fail(f"{words}"))
    target.gate(operation=NEXT).open(24)
    with pytest.raises(StackError, match=f"No migration {OPERATION} is expected"):
        gate.enter(target.places(), OPERATION, DEFAULT_HOST, asked)


@pytest.fixture
def recovered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a question does before it answers."""
    done: list[str] = []

    def recover(*_about: Any, lock_held: bool) -> list[str]:
        assert lock_held
        done.append("recover")
        return []

    monkeypatch.setattr(gate, "recover", recover)
    monkeypatch.setattr(subprocess, "run", lambda words, **_options: done.append(words[1]))
    return done


@pytest.mark.parametrize(
    ("last", "accepted"),
    [
        (None, False),
        ({"operation": OPERATION, "accepted": True}, True),
        ({"operation": OPERATION, "accepted": False}, False),
        ({"operation": NEXT, "accepted": True}, False),
    ],
)
def test_the_answer_to_the_question(target: Target, recovered: list[str], last: Any, accepted: bool) -> None:
    if last:
        record_last(target.places(), "arrival", last)
    assert gate.settle(target.places(), None, OPERATION) == {"accepted": accepted}
    assert recovered == ["kill", "recover"]


def test_a_record_that_is_damaged_is_no_answer(target: Target, recovered: list[str]) -> None:
    """A no lets the source go on."""
    Path(target.places().last).write_text("{")
    with pytest.raises(StackError, match="is damaged"):
        gate.settle(target.places(), None, OPERATION)


def test_the_question_waits_for_who_is_at_work(
    target: Target, recovered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = iter([True, True, False])

    class Lock:
        def __init__(self, *_about: Any):
            if next(busy):
                raise BusyError("busy")

        def __enter__(self) -> None:
            return None

        def __exit__(self, *_about: Any) -> None:
            return None

    monkeypatch.setattr(gate, "OperationLock", Lock)
    assert gate.settle(target.places(), None, OPERATION) == {"accepted": False}
    assert recovered == ["kill", "recover"]


def test_an_expectation_of_another_kind_is_none(target: Target) -> None:
    write_json(target.places().arrival, ["x"])
    with pytest.raises(StackError, match="is expected on the target"):
        Expected.load(target.places(), OPERATION)
