# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers ended so that none of their processes runs another instruction."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

from ..capture.guard import find_freezer
from ..capture.guard_process import set_freezer
from ..engine import ACTIVE, Engine
from ..errors import NotFoundError, StackError

_DEAD_WITHIN_S = 10.0
_CGROUPS = ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup")  # version 1, which Docker prefers, and 2
_FREEZERS = (("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0"))


def end_at_once(engine: Engine, identities: Iterable[str]) -> list[str]:
    """Kill those of the containers that run or are frozen; their names. Raises StackError if one does not end.

    Docker kills a container's first process alone, and lets a frozen one go on for it: the others could answer one more
    request before they are killed in turn. So all of them are frozen, and have their SIGKILL, before any goes on.
    """
    wanted = list(identities)
    end_processes(wanted)
    active = []
    for identity in wanted:
        try:
            found = engine.inspect_container(identity)
        except NotFoundError:
            continue
        if found["State"]["Status"] in ACTIVE:
            active.append(found)
    for found in active:
        freezer = find_freezer(found["State"]["Pid"], found["Id"]) if found["State"]["Pid"] else None
        order = {"freezer": freezer}
        set_freezer(order, "freeze")
        if freezer:
            _kill_group(os.path.dirname(freezer["file"]))
        set_freezer(order, "thaw")
    deadline = time.monotonic() + _DEAD_WITHIN_S
    for found in active:
        with suppress(NotFoundError):
            engine.kill(found["Id"])
        while engine.is_active(found["Id"]):
            if time.monotonic() > deadline:
                raise StackError(f"The container {found['Id'][:12]} cannot be killed; look at the engine's log.")
            time.sleep(0.02)
    return [str(found["Name"]).lstrip("/") for found in active]


def end_processes(identities: Iterable[str]) -> None:
    """Kill all processes of the containers, without the engine: it does not answer for one that it is starting."""
    wanted = [identity for identity in identities if identity]
    root = next((place for place in _CGROUPS if os.path.isdir(place)), "")
    for place, inside, _files in os.walk(root) if wanted and root else ():
        for name in [name for name in inside if any(identity in name for identity in wanted)]:
            group = os.path.join(place, name)
            for file, freeze, thaw in _FREEZERS:
                if os.path.exists(os.path.join(group, file)):
                    order = {"freezer": {"file": os.path.join(group, file), "freeze": freeze, "thaw": thaw}}
                    set_freezer(order, "freeze")
                    _kill_group(group)
                    set_freezer(order, "thaw")
            inside.remove(name)


def _kill_group(directory: str) -> None:
    """SIGKILL for all processes of a cgroup and those below it."""
    for place, _inside, files in os.walk(directory):
        if "cgroup.procs" not in files:
            continue
        with suppress(OSError), open(os.path.join(place, "cgroup.procs"), encoding="ascii") as listed:
            for pid in listed.read().split():
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
