# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What something that died has left of the light stack. It needs no pytest, so it runs on the lab's hosts too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.guard import find_freezer
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.guard_process import is_frozen
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.durable_json import read_json
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import THROWAWAY
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from light_stack import LABELS, PROJECT, Stack

PROMISED_S = 5.0  # within this, whatever dies, paused containers run again
BOTH = [f"{PROJECT}-app", f"{PROJECT}-store"]
COMES_S = 60.0
FROZEN, RETENTION = "frozen", "retention"
PHASES = {FROZEN: "freeze", RETENTION: "commit"}  # of the journal, where it has another name


def containers(stack: Stack) -> list[dict[str, Any]]:
    """Inspected, in any state."""
    found = stack.client.containers(all=True, filters={"label": f"{LABELS}project={PROJECT}"})
    return [stack.client.inspect_container(container["Id"]) for container in found]


def freezers(stack: Stack) -> list[dict[str, Any]]:
    """The pid and the freezer of each container that runs or is paused."""
    running = [(about["State"]["Pid"], about["Id"]) for about in containers(stack) if about["State"]["Pid"]]
    return [{"pid": pid, "freezer": find_freezer(pid, identity)} for pid, identity in running]


def frozen(known: Sequence[Mapping[str, Any]]) -> list[int]:
    """The pids, of those freezers, that the kernel does not let run: the engine need not be there to tell."""
    return [container["pid"] for container in known if is_frozen(dict(container))]


def thaw_seconds(known: Sequence[Mapping[str, Any]], most: float = 2 * PROMISED_S) -> float:
    """How long it takes from now until the kernel lets all of them run; at most so many seconds are waited."""
    begun = time.monotonic()
    while frozen(known) and time.monotonic() - begun < most:
        time.sleep(0.01)
    return time.monotonic() - begun


def wait_running(stack: Stack, seconds: float = 2 * PROMISED_S) -> list[str]:
    """The names of what runs, as soon as both do and neither is paused, or when seconds have passed."""
    end = time.monotonic() + seconds
    while True:
        found = [each["Name"].lstrip("/") for each in containers(stack) if each["State"]["Status"] == "running"]
        if sorted(found) == BOTH or time.monotonic() > end:
            return sorted(found)
        time.sleep(0.02)


def hold_at(
    stack: Stack, at: str, known: Sequence[Mapping[str, Any]] = (), ended: Callable[[], bool] = lambda: False
) -> int:
    """SIGSTOP for the process that the journal names, at this phase and no other: it is looked at once more when it
    stands still. Its pid; 0 if it was past the phase, and goes on, or if it has ended. "frozen": a container is."""
    places, end = stack.places, time.monotonic() + COMES_S
    while not ended():
        assert time.monotonic() < end, f"{at} did not come"
        pid = _who_is_at(places, at, known)
        if not pid:
            time.sleep(0.001)  # the shortest lasts some milliseconds; without it the run gets less of the processor
            continue
        with suppress(FileNotFoundError, ProcessLookupError):  # it may just have ended
            os.kill(pid, signal.SIGSTOP)
            while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "TZ":
                time.sleep(0)
            if _who_is_at(places, at, known) == pid:
                return pid
            os.kill(pid, signal.SIGCONT)
        break
    return 0


def _who_is_at(places: Places, at: str, known: Sequence[Mapping[str, Any]]) -> int:
    journal = read_json(places.journal) or {}
    there = journal.get("phase") == PHASES.get(at, at)
    if at == FROZEN:
        there = there and bool(frozen(known))
    elif at in (RETENTION, "copy"):
        there = there and read_json(places.progress)["phase"] == at
    elif at == "swap":  # before that the phase only plans the renames
        there = there and journal["restore"]["stage"] == "swapping"
    return int(journal["pid"]) if there else 0


def last_words(stack: Stack) -> tuple[str, str]:
    """The phase, and the stage of a restore, in which a run has died; "" where it had not begun or had ended."""
    journal = Journal.load(stack.places)
    data = journal.data if journal is not None else {}
    return str(data.get("phase") or ""), str((data.get("restore") or {}).get("stage") or "")


def paused(stack: Stack) -> list[str]:
    """What the engine calls paused."""
    return [about["Name"] for about in containers(stack) if about["State"]["Paused"]]


def leftovers(stack: Stack) -> list[str]:
    """Sentences on what is wrong when all has been put right: there must be none."""
    found = [f"{stack.places.journal} is left"] if os.path.exists(stack.places.journal) else []
    if os.path.isdir(stack.places.scratch):
        found += [f"{name} is left in scratch" for name in os.listdir(stack.places.scratch)]
    listed, there = sorted(entry.path for entry in kept.load(stack.places)), sorted(stack.left())
    if listed != there:
        found.append(f"{there} are beside the data, and {listed} are known to be kept")
    label = {"label": f"{THROWAWAY}={PROJECT}"}
    left = [*stack.client.containers(all=True, filters=label), *stack.client.networks(filters=label)]
    found += [f"a throw-away is left: {each['Id']}" for each in left]
    for about in containers(stack):
        for mount in about["Mounts"] if about["State"]["Pid"] else ():
            inside = os.stat(f"/proc/{about['State']['Pid']}/root{mount['Destination']}")
            if not os.path.samestat(inside, os.stat(stack.root(mount["Name"][len(PROJECT) + 1 :]))):
                found.append(f"{about['Name']} runs on other data than what is live in {mount['Name']}")
    return found


def end_of(old: Mapping[str, Any], new: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which of the two the live data is: old or new; else what differs from each."""
    if now == old:
        return "old"
    if now == new:
        return "new"
    wrong = {
        name: [sorted(path for path in {*was[name], *now[name]} if was[name].get(path) != now[name].get(path))[:5]
               for was in (old, new)]
        for name in now
    }  # fmt: skip
    return f"neither; what differs from the old and from the new, by volume: {wrong}"
