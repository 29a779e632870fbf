# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One freeze in a process of its own, which says where it is and stays there until it is killed: freeze_child.py JSON.

JSON: state_dir, runtime_dir, pause (names), stop (names), timeout (seconds), at (armed, pausing, body, resuming), stay
(seconds), or recover: true. A freeze that fails is said, and leaves the journal as a death would. It needs the
collection on PYTHONPATH and no Ansible, so it runs on the lab's hosts too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import freeze as freeze_module
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.lock import OperationLock
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover

ASKED: dict[str, Any] = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
FREEZERS: list[dict[str, Any]] = []


def stay(at: str) -> None:
    if ASKED.get("at") == at:
        print(json.dumps({"at": at, "pid": os.getpid(), "freezers": FREEZERS}), flush=True)
        time.sleep(ASKED.get("stay", 300))


class Slow(Engine):
    """Stays between the first and the second pause, or unpause, if that is asked for."""

    paused = 0
    resumed = 0

    def pause(self, container: str) -> None:
        if self.paused:
            stay("pausing")
        super().pause(container)
        self.paused += 1

    def unpause(self, container: str) -> None:
        if self.resumed:
            stay("resuming")
        super().unpause(container)
        self.resumed += 1


class SlowGuard(freeze_module.Guard):
    """Stays when it is armed and nothing is paused yet, if that is asked for."""

    def go(self) -> None:
        stay("armed")
        super().go()


def main() -> None:
    engine = Slow.connect()
    places = Places.of("omguard", ASKED["state_dir"], ASKED["runtime_dir"])
    if ASKED.get("recover"):
        print(json.dumps(recover(engine, places)))
        return
    vars(freeze_module)["Guard"] = SlowGuard
    for name in ASKED["pause"]:
        found = engine.inspect_container(name)
        freezer = freeze_module.find_freezer(found["State"]["Pid"], found["Id"])
        FREEZERS.append({"pid": found["State"]["Pid"], **(freezer or {})})
    with OperationLock(places, "backup"):
        journal = Journal.begin(places, "backup", "b1")
        timeout = ASKED.get("timeout", 60)
        with freeze_module.Freeze(engine, "omguard", places, journal, ASKED["pause"], ASKED.get("stop", []), timeout):
            stay("body")
        journal.end()


if __name__ == "__main__":
    try:
        main()
    except StackError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(1)
