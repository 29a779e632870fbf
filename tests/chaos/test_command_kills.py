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
    PROMISED_S,
    containers,
    end_of,
    freezers,
    frozen,
    last_words,
    leftovers,
    paused,
    thaw_seconds,
    wait_running,
)
from light_stack import PROJECT, Stack
from sleepers import REPOSITORY

BEGINS_S = 60.0
PHASES = {
    "backup": ("copy", "freeze", "check", "commit"),
    "restore": ("fetch", "check", "safety", "copy", "freeze", "commit", "stop", "swap", "start", "health", "finish"),
}  # as they come
FROZEN = "frozen"
TRIES = 5  # a freeze is over after 0.05 s
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
MAIN = "import sys; from ansible_collections.openmemory.stack.plugins.module_utils._core.command.main import main; "


def by_command(stack: Stack, verb: str, *more: str) -> list[str]:
    """The command line; the script that a host gets does the same."""
    known = ["--project", PROJECT, "--repository", f"{stack.directory}/repository", "--json"]
    known += ["--password-file", str(stack.password), "--state-dir", str(stack.state)]
    force = ["--force"] if verb == "restore" else []
    return [sys.executable, "-c", f"{MAIN}sys.exit(main())", verb, *known, *force, *more]


def by_module(stack: Stack, verb: str) -> list[str]:
    asked: dict[str, Any] = {
        "compose_project": PROJECT,
        "repository": f"{stack.directory}/repository",
        "password_file": str(stack.password),
        "state_dir": str(stack.state),
    }
    if verb == "restore":
        asked["force"] = True
    python = ["-e", f"ansible_python_interpreter={sys.executable}"]
    ansible = [str(Path(sys.executable).with_name("ansible")), "localhost", "-c", "local", *python]
    return [*ansible, "-m", f"openmemory.stack.volume_{verb}", "-a", json.dumps(asked)]


WAYS = {"command": by_command, "module": by_module}
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(REPOSITORY / ".collections"),
    "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / ".collections"),
}


def kill_at(stack: Stack, process: subprocess.Popen[bytes], verb: str, at: str, known: list[dict[str, Any]]) -> bool:
    """SIGKILL for the process that the journal names, as soon as that tells the phase or a later one; or, for "frozen",
    as soon as a container is. False if it has ended before that was seen."""
    wanted = PHASES[verb][PHASES[verb].index(at) :] if at != FROZEN else ()
    end = time.monotonic() + BEGINS_S
    while process.poll() is None:
        assert time.monotonic() < end, f"{at} did not come"
        try:
            data = json.loads(Path(stack.places.journal).read_text())
        except (FileNotFoundError, ValueError):
            continue
        if data["phase"] in wanted or (at == FROZEN and frozen(known)):
            os.kill(data["pid"], signal.SIGKILL)
            return True
    return False


@pytest.mark.parametrize(("verb", "at"), KILLS)
@pytest.mark.parametrize("way", WAYS)
def test_killed(stack: Stack, snapshot: dict[str, Any], way: str, verb: str, at: str, tmp_path: Path) -> None:
    for number in range(TRIES):
        stack.afresh(f"{way}-{verb}-{at}-{number}")  # other data than in the newest snapshot
        live, known = stack.trees(), freezers(stack)
        with (tmp_path / "output").open("w") as out:
            command = WAYS[way](stack, verb)
            process = subprocess.Popen(command, cwd=REPOSITORY, env=ENVIRONMENT, stdout=out, stderr=out)
            hit = kill_at(stack, process, verb, at, known)
            assert thaw_seconds(known) < PROMISED_S
            code = process.wait(timeout=30)
        if hit:
            break
        assert (at, code) == (FROZEN, 0), (tmp_path / "output").read_text()
    assert hit, "it was never seen frozen"
    assert code != 0
    died_in, stage = last_words(stack)
    said = (tmp_path / "output").read_text()
    assert process.returncode == -signal.SIGKILL or way == "module", said
    end = time.monotonic() + PROMISED_S
    while paused(stack):
        assert time.monotonic() < end
    if died_in not in STOPS:
        assert wait_running(stack, 0) == BOTH
    done = subprocess.run(
        WAYS[way](stack, "backup"), cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Ended the {verb} that died in the phase {died_in}." in done.stdout
    wanted = "new" if stage == "accepted" else "old"
    assert end_of(live, snapshot, stack.trees()) == wanted
    assert (wait_running(stack), leftovers(stack)) == (BOTH, [])
    stack.afresh("other")
    stack.restore(snapshot="latest")
    assert (end_of(live, snapshot, stack.trees()), wait_running(stack), leftovers(stack)) == (wanted, BOTH, [])


def test_the_command_recover_does_it_too(stack: Stack) -> None:
    live = stack.trees()
    process = subprocess.Popen(by_command(stack, "restore", "--no-safety"), env=ENVIRONMENT)
    assert kill_at(stack, process, "restore", "swap", [])
    process.wait()
    assert len(containers(stack)) == len(BOTH)
    done = subprocess.run(by_command(stack, "recover"), env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (stack.trees(), wait_running(stack), leftovers(stack)) == (live, BOTH, [])
