# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One operation at a time, and no lock that outlives its process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.lock import RECOVERY, OperationLock
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.process import start_ticks


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))


def fork_sleeper() -> int:
    """A child that fork alone made, without exec."""
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    return pid


def test_the_second_is_told_who_has_it(places: Places) -> None:
    with OperationLock(places, "backup"), pytest.raises(StackError) as raised, OperationLock(places, "restore"):
        pass
    told = r"Another operation is under way on the stack om: backup, started [\d-]{10} [\d:]{8} by process (\d+); wait"
    found = re.match(told, str(raised.value))
    assert found is not None, str(raised.value)
    assert int(found[1]) == os.getpid()


def test_another_stack_is_not_locked(places: Places, tmp_path: Path) -> None:
    other = Places.of("other", str(tmp_path / "state"), str(tmp_path / "run"))
    with OperationLock(places, "backup"), OperationLock(other, "backup"):
        pass


def test_a_recovery_is_waited_for_by_who_has_patience(places: Places) -> None:
    recovery = OperationLock(places, RECOVERY)
    with recovery, pytest.raises(StackError, match="recover, started"), OperationLock(places, RECOVERY, 0.3):
        pass
    recovery.__enter__()
    threading.Timer(0.3, recovery.__exit__, (None, None, None)).start()
    with OperationLock(places, RECOVERY, 20.0):
        pass


def test_no_other_operation_is_waited_for(places: Places) -> None:
    begun = time.monotonic()
    with (
        OperationLock(places, "backup"),
        pytest.raises(StackError, match="backup, started"),
        OperationLock(places, RECOVERY, 20.0),
    ):
        pass
    assert time.monotonic() - begun < 10


def test_a_holder_that_has_not_said_its_name_yet(places: Places) -> None:
    with OperationLock(places, "backup"):
        Path(places.lock).write_bytes(b"")
        with (
            pytest.raises(StackError, match="under way on the stack om; wait for it"),
            OperationLock(places, "restore"),
        ):
            pass


def test_it_is_free_after_an_error_and_after_death(places: Places) -> None:
    with pytest.raises(ZeroDivisionError), OperationLock(places, "backup"):
        raise ZeroDivisionError
    pid = os.fork()
    if not pid:
        OperationLock(places, "backup").__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert b'"backup"' in Path(places.lock).read_bytes()
    with OperationLock(places, "restore"):
        pass
    assert Path(places.lock).read_bytes() == b""


def test_a_child_that_a_dead_holder_has_just_started_is_waited_for(places: Places) -> None:
    started, said = os.pipe()
    pid = os.fork()
    if not pid:
        lock = OperationLock(places, "backup")
        lock.__enter__()
        child = subprocess.Popen(["/bin/sleep", "60"], pass_fds=[lock._descriptor])  # as if it had not come to its exec
        os.write(said, str(child.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    sleeper = int(os.read(started, 20))
    threading.Timer(0.5, os.kill, (sleeper, signal.SIGKILL)).start()
    with OperationLock(places, "restore"):
        assert start_ticks(sleeper) is None


def test_children_do_not_keep_it(places: Places) -> None:
    with OperationLock(places, "backup"):
        forked = fork_sleeper()
        started = subprocess.Popen(["/bin/sleep", "60"], close_fds=False)
    try:
        with OperationLock(places, "restore"):
            assert started.poll() is None
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        started.kill()
        started.wait()


def test_a_child_does_not_release_its_parents(places: Places) -> None:
    lock = OperationLock(places, "backup")
    with lock:
        pid = os.fork()
        if not pid:
            try:
                lock.__exit__(None, None, None)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.raises(StackError, match="backup, started"), OperationLock(places, "restore"):
            pass
