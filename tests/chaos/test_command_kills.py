# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command openmemory-stack and Ansible's modules, as people run them, killed with -9 at a phase."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aftermath import (
    BOTH,
    FROZEN,
    PHASES,
    PROMISED_S,
    RETENTION,
    containers,
    end_of,
    freezers,
    hold_at,
    last_words,
    leftovers,
    paused,
    thaw_seconds,
    wait_running,
)
from light_stack import PROJECT, Stack
from sleepers import REPOSITORY

ENDS_S = 60.0
TRIES = 5  # a freeze is over after 0.05 s, and a swap after not much more
STOPS = ("stop", "swap", "start", "health")  # what was stopped waits for the next run
KILLS = [
    ("backup", "copy"),
    ("backup", FROZEN),
    ("backup", "commit"),
    ("restore", "fetch"),
    ("restore", "safety"),
    ("restore", FROZEN),
    ("restore", "stop"),
    ("restore", "health"),
]
SHORT = [("backup", "check"), ("backup", RETENTION), ("restore", "swap"), ("restore", "start"), ("restore", "finish")]
ROUNDS = [("command", *kill) for kill in [*KILLS, *SHORT]] + [("module", *kill) for kill in KILLS]
KEEP = {"last": -1}  # all: what a test begins with stays
MAIN = "import sys; from ansible_collections.openmemory.stack.plugins.module_utils._core.command.main import main; "


def by_command(stack: Stack, verb: str, *more: str) -> list[str]:
    """The command line; the script that a host gets does the same."""
    (stack.directory / "settings").mkdir(exist_ok=True)
    (stack.directory / "settings" / f"{PROJECT}.json").write_text(json.dumps({"keep": KEEP}))
    known = ["--project", PROJECT, "--repository", str(stack.repository), "--json"]
    known += ["--password-file", str(stack.password), "--state-dir", str(stack.state)]
    known += ["--config-dir", str(stack.directory / "settings")]
    chosen = ["--force", stack.snapshot] if verb == "restore" else []
    return [sys.executable, "-c", f"{MAIN}sys.exit(main())", verb, *known, *chosen, *more]


def by_module(stack: Stack, verb: str) -> list[str]:
    asked: dict[str, Any] = {
        "compose_project": PROJECT,
        "repository": str(stack.repository),
        "password_file": str(stack.password),
        "state_dir": str(stack.state),
    }
    asked |= {"force": True, "snapshot": stack.snapshot} if verb == "restore" else {"keep": KEEP}
    python = ["-e", f"ansible_python_interpreter={sys.executable}"]
    ansible = [str(Path(sys.executable).with_name("ansible")), "localhost", "-c", "local", *python]
    return [*ansible, "-m", f"openmemory.stack.volume_{verb}", "-a", json.dumps(asked)]


WAYS = {"command": by_command, "module": by_module}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(REPOSITORY / ".collections"),
    "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / ".collections"),
}


def kill_at(stack: Stack, process: subprocess.Popen[bytes], at: str, known: list[dict[str, Any]]) -> bool:
    """SIGKILL for the process that the journal names, at this phase and no other; False if the run got past it."""
    pid = hold_at(stack, at, known, lambda: process.poll() is not None)
    if pid:
        os.kill(pid, signal.SIGKILL)
    return bool(pid)


def dead_at(stack: Stack, way: str, verb: str, at: str, output: Path) -> tuple[dict[str, Any], int]:
    """Have a run die there; the trees and the number of snapshots before it. One that got past it is tried again."""
    for number in range(TRIES):
        stack.afresh(f"{way}-{verb}-{at}-{number}")  # other data than in any snapshot
        live, known, there = stack.trees(), freezers(stack), snapshots(stack)
        with output.open("w") as out:
            command = WAYS[way](stack, verb)
            process = subprocess.Popen(command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=out, stderr=out)
            hit = kill_at(stack, process, at, known)
            assert thaw_seconds(known) < PROMISED_S
            code = process.wait(ENDS_S)
        said = output.read_text()
        if hit:
            assert code == (-signal.SIGKILL if way == "command" else 2), said
            return live, there
        assert code == 0, said
    raise AssertionError(f"it was never seen at {at}")


def snapshots(stack: Stack) -> int:
    return len(list((stack.repository / "snapshots").iterdir()))


@pytest.mark.parametrize(("way", "verb", "at"), ROUNDS)
def test_killed(stack: Stack, snapshot: dict[str, Any], way: str, verb: str, at: str, tmp_path: Path) -> None:
    live, before = dead_at(stack, way, verb, at, tmp_path / "output")
    died_in, stage = last_words(stack)
    assert died_in == PHASES.get(at, at)
    end = time.monotonic() + PROMISED_S
    while paused(stack):
        assert time.monotonic() < end
        time.sleep(0.05)
    if died_in not in STOPS:
        assert wait_running(stack, 0) == BOTH
    there = snapshots(stack)
    if verb == "backup" and at != "commit":  # while it commits, it may be there or not
        assert there == before + (at == RETENTION)
    again = way if at in ("copy", "fetch") else "command"  # which of them ends it is the same to the rest
    done = subprocess.run(
        WAYS[again](stack, "backup"), cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Ended the {verb} that died in the phase {died_in}." in done.stdout
    assert snapshots(stack) == there + 1
    wanted = "new" if stage == "accepted" else "old"
    assert end_of(live, snapshot, stack.trees()) == wanted
    assert (wait_running(stack), leftovers(stack)) == (BOTH, [])
    stack.afresh("other")
    stack.restore(snapshot="latest")
    assert (end_of(live, snapshot, stack.trees()), wait_running(stack), leftovers(stack)) == (wanted, BOTH, [])


def test_the_command_recover_does_it_too(stack: Stack, tmp_path: Path) -> None:
    live, _before = dead_at(stack, "command", "restore", "swap", tmp_path / "output")
    assert len(containers(stack)) == len(BOTH)
    done = subprocess.run(by_command(stack, "recover"), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (stack.trees(), wait_running(stack), leftovers(stack)) == (live, BOTH, [])
