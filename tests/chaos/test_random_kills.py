# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups and restores that get a SIGKILL at a random moment, alone or with all that they have started.

ROUNDS says how many (6); `make soak ROUNDS=n` runs any number. SEED repeats what a run that failed has printed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aftermath import (
    BOTH,
    PROMISED_S,
    containers,
    end_of,
    freezers,
    last_words,
    leftovers,
    paused,
    thaw_seconds,
    wait_running,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from light_stack import Stack

ROUNDS = int(os.environ.get("ROUNDS", "6"))
SEED = int(os.environ.get("SEED") or random.randrange(1 << 32))
KEEP = Keep(last=3)


def begun(stack: Stack, verb: str, safety: bool) -> int:
    """The pid of a run in a process and a group of its own."""
    child = os.fork()
    if child:
        with suppress(OSError):
            os.setpgid(child, child)  # whoever is first
        return child
    try:  # nothing of pytest may run here
        os.setpgid(0, 0)
        stack.engine = Engine.connect()
        run: Callable[[], Any] = (
            (lambda: stack.backup(keep=KEEP)) if verb == "backup" else lambda: stack.restore(safety=safety)
        )
        run()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{error!r}\n".encode())
    finally:
        os._exit(1)


def usual_seconds(stack: Stack, verb: str, safety: bool) -> float:
    started = time.monotonic()
    child = begun(stack, verb, safety)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return time.monotonic() - started


def broken_promise(stack: Stack, phase: str, verb: str) -> str:
    """What of the promise does not hold within its time: what was paused must run; what was stopped may wait."""
    seconds = thaw_seconds(freezers(stack))
    if seconds > PROMISED_S:
        return f"frozen for {seconds:.1f} s"
    end = time.monotonic() + PROMISED_S
    while paused(stack) and time.monotonic() < end:
        time.sleep(0.02)
    if paused(stack):
        return f"{paused(stack)} are paused"
    stops = verb == "restore" and phase in ("stop", "swap", "start", "health", "finish")
    gone = [about["Name"] for about in containers(stack) if not about["State"]["Running"]]
    return f"{gone} do not run, and it died in {phase}" if gone and not stops else ""


def test_whatever_the_moment(stack: Stack) -> None:
    print(f"SEED={SEED}")
    chance = random.Random(SEED)
    kinds = [("backup", False), ("restore", False), ("restore", True)]
    stack.snapshot, new = stack.backup(keep=KEEP), stack.trees()
    usual = {kind: usual_seconds(stack, *kind) for kind in kinds}
    ends: dict[str, int] = {}
    for number in range(ROUNDS):
        stack.afresh(f"live{number}")
        old = stack.trees()
        verb, _safety = kind = chance.choice(kinds)
        after, group, by_recover = chance.uniform(0, usual[kind]), chance.random() < 0.5, chance.random() < 0.5
        child = begun(stack, *kind)
        time.sleep(after)
        (os.killpg if group else os.kill)(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        phase, stage = last_words(stack)
        about = f"SEED={SEED}, round {number}: {kind}, killed after {after:.3f} s in {phase!r}, {group=}, {by_recover=}"
        assert code in (0, -signal.SIGKILL), f"{about}: it failed by itself"
        assert not broken_promise(stack, phase, verb), about
        if by_recover:
            recover(stack.engine, stack.places)
        else:
            made = stack.backup(keep=KEEP)
        if verb == "backup" or (phase and stage != "accepted"):
            wanted = ["old"]
        elif phase or code == 0:
            wanted = ["new"]
        else:  # it had not begun yet, or was through but for its exit
            wanted = ["old", "new"]
        now = stack.trees()
        ended = end_of(old, new, now)
        assert ended in wanted, f"{about}: {ended}"
        assert (wait_running(stack), leftovers(stack)) == (BOTH, []), about
        if by_recover:
            made = stack.backup(keep=KEEP)
        stack.snapshot, new = made, now
        stack.afresh("other")
        stack.restore()
        assert (end_of(new, {}, stack.trees()), wait_running(stack), leftovers(stack)) == ("old", BOTH, []), about
        what = f"{verb} killed in {phase or 'no phase'}, then {ended}"
        ends[what] = ends.get(what, 0) + 1
    print("\n".join(f"{count:4} {what}" for what, count in sorted(ends.items())))
