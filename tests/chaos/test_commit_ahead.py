# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A commit that is begun before its data is there, with the oldest restic that we take and a newer one: it stores what
is there in the end, and nothing at all if it is not told to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import ahead
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.ahead import CommitAhead
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic

NAMES = ["manifest.json", "volumes"]
COLLECTIONS = Path(__file__).resolve().parents[2] / ".collections"
TAGS = ["openmemory-stack", "project=p"]
_CHILD = """
import importlib, sys, time
core = "ansible_collections.openmemory.stack.plugins.module_utils._core.repository"
ahead, repository, restic = (importlib.import_module(f"{core}.{name}") for name in ("ahead", "repository", "restic"))
place, password, cache, command, staging, pipe = sys.argv[1:]
there = repository.Repository(restic.Restic(place, password, cache_dir=cache, command=command))
with ahead.CommitAhead(there, staging, ["manifest.json", "volumes"], ["openmemory-stack"], pipe) as begun:
    print("begun", flush=True)
    begun.opened()
    print("opened", flush=True)
    time.sleep(60)
"""


@dataclass
class Case:
    home: Path
    command: str

    @property
    def staging(self) -> Path:
        return self.home / "staging"

    @property
    def pipe(self) -> Path:
        return self.home / "pipe"

    def restic(self, password: str = "right") -> Restic:
        file = self.home / f"password-{password}"
        file.touch(0o600)
        file.write_text(password)
        return Restic(str(self.home / "far"), str(file), cache_dir=str(self.home / "cache"), command=self.command)

    def ahead(self, password: str = "right", progress: Callable[[int, int], None] | None = None) -> CommitAhead:
        there = Repository(self.restic(password))
        return CommitAhead(there, str(self.staging), NAMES, TAGS, str(self.pipe), progress)

    def left(self) -> tuple[int, int, bool]:
        """Snapshots, locks, and whether the pipe is still there."""
        snapshots, locks = (len(list((self.home / "far" / name).iterdir())) for name in ("snapshots", "locks"))
        return snapshots, locks, self.pipe.exists()


@pytest.fixture
def case(tmp_path: Path, restic_command: str) -> Case:
    made = Case(tmp_path, restic_command)
    (made.staging / "volumes").mkdir(parents=True)
    (made.staging / "manifest.json").touch()
    (made.staging / "volumes/a").write_bytes(os.urandom(3 << 20))
    made.restic().call("init", doing="make it")  # with a key that takes its time, as those of users do
    return made


@pytest.fixture(autouse=True)
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer to open a repository and to store."""
    monkeypatch.setattr(ahead, "_OPENS_WITHIN_S", 60.0)
    monkeypatch.setattr(ahead, "LONGEST_S", 120.0)


@contextmanager
def interrupted_by(number: int) -> Iterator[None]:
    """InterruptedError, as KeyboardInterrupt comes, wherever the main thread waits."""

    def interrupt(_number: int, _frame: object) -> None:
        raise InterruptedError

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)


def rewrite(case: Case, text: str) -> None:
    (case.staging / "manifest.json.new").write_text(text)
    os.replace(case.staging / "manifest.json.new", case.staging / "manifest.json")
    (case.staging / "volumes/late").write_text(text)


def test_what_is_there_in_the_end_is_stored(case: Case) -> None:
    stored = []
    for text in ("first", "second"):
        with case.ahead() as begun:
            begun.opened()
            rewrite(case, text)
            commit = begun.finish()
            assert commit
            stored.append(commit)
    there = Repository(case.restic())
    for commit, text in zip(stored, ("first", "second"), strict=True):
        assert there.dump(commit.snapshot_id, "/manifest.json") == f"{text}\n".encode()
        assert there.dump(commit.snapshot_id, "/volumes/late") == f"{text}\n".encode()
    assert stored[0].bytes_stored > 3 << 20 > 1 << 20 > stored[1].bytes_stored
    assert case.left() == (2, 0, False)
    assert there.check(read_data=True) == []


def test_a_wrong_password_is_told_before_anything_is_frozen(case: Case) -> None:
    with pytest.raises(StackError, match="password"), case.ahead("wrong") as begun:
        begun.opened()
    assert case.left() == (0, 0, False)


@pytest.mark.parametrize("wait", [lambda begun: begun.opened(), lambda _begun: None])
def test_what_is_broken_off_stores_nothing(case: Case, wait: Callable[[CommitAhead], None]) -> None:
    with case.ahead() as begun:
        wait(begun)
    assert case.left() == (0, 0, False)


def test_a_signal_while_it_is_stored_ends_restic(case: Case) -> None:
    (case.staging / "volumes/large").write_bytes(os.urandom(200 << 20))
    signals = iter([signal.SIGUSR1])

    def interrupt_us(done: int, _total: int) -> None:
        """Once, when restic has read something; earlier it may leave its lock, which the next run removes."""
        if done:
            os.kill(os.getpid(), next(signals, 0))

    begun = case.ahead(progress=interrupt_us)
    with interrupted_by(signal.SIGUSR1), pytest.raises(InterruptedError), begun:
        begun.finish()
    assert case.left() == (0, 0, False)


def test_a_half_pattern_stores_nothing_whoever_runs_restic(case: Case) -> None:
    """A wrapper that a site has put before restic gets our signal, and restic only the end of the pipe."""
    wrapper = case.home / "restic"
    wrapper.write_text(f'#!/bin/sh\n{case.command} "$@"\nexit $?\n')
    wrapper.chmod(0o755)
    case.command = str(wrapper)
    with case.ahead() as begun:
        begun.opened()
    time.sleep(2)
    assert case.left()[0] == 0
    with case.ahead() as begun:
        begun.opened()
        assert begun.finish()
    assert case.left()[0] == 1


def test_one_that_would_wait_for_too_long_is_broken_off(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot's time is that of its beginning, so that is not long ago."""
    with case.ahead() as begun:
        begun.opened()
        monkeypatch.setattr(ahead, "LONGEST_S", 2.0)
        time.sleep(2.5)
        assert begun.finish() is None
    assert case.left() == (0, 0, False)


def test_restic_dies_with_us_and_stores_nothing(case: Case) -> None:
    restic = case.restic()
    given = [restic.repository, restic.password_file, str(restic.cache_dir), restic.command, case.staging, case.pipe]
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    for wait in (0.0, 0.2, 0.4, 0.6, None):
        command = [sys.executable, "-c", _CHILD, *map(str, given)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
            assert child.stdout
            assert child.stdout.readline() == b"begun\n"
            if wait is None:
                assert child.stdout.readline() == b"opened\n"
            time.sleep(wait or 0.0)
            child.kill()
        until = time.monotonic() + 10
        while subprocess.run(["pgrep", "-f", f"exclude-file {case.pipe}"], check=False, capture_output=True).stdout:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert case.left()[0] == 0
    with case.ahead() as begun:
        begun.opened()
        begun.finish()
    assert case.left()[0] == 1


def test_a_lock_of_a_dead_process_is_removed(case: Case) -> None:
    restic, locks = case.restic(), case.home / "far" / "locks"
    (case.staging / "volumes/large").write_bytes(os.urandom(64 << 20))  # or the check is over before it is seen
    Repository(restic).commit(str(case.staging), NAMES, TAGS)
    with subprocess.Popen(restic.arguments("check", "--read-data"), env=restic.environ()) as check:
        until = time.monotonic() + 60
        while not list(locks.iterdir()):
            assert check.poll() is None, "it ended before its lock was seen"
            assert time.monotonic() < until
            time.sleep(0.001)
        check.send_signal(signal.SIGKILL)
    assert case.left()[1] == 1
    with case.ahead() as begun:
        begun.opened()
        rewrite(case, "text")
        commit = begun.finish()
        assert commit
    assert Repository(case.restic()).dump(commit.snapshot_id, "/volumes/late") == b"text\n"
