# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole backup or restore of the light stack in a process of its own, which stays at a point: whole_child.py JSON.

JSON: verb (backup, restore), at, directory (of the stack), snapshot (to restore). at is a phase of the journal or of
the progress, "frozen" (all is paused), "rename" (some of the data is swapped) or "accepted". It says so and stays there
until the file "go" in the directory appears. How it ended is said too. It needs no pytest: it runs on the lab's hosts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror, PassReport
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import swap
from light_stack import Stack

STAYS_S = 120.0  # a bound, should nobody come
SAFETY = ("safety", "frozen", "freeze")  # of a restore: these are points of its safety capture
RENAME = 4  # of nine or so

ASKED: dict[str, Any] = json.loads(sys.argv[1])
AT: str = ASKED["at"]
GO = Path(ASKED["directory"]) / "go"


def reach(point: str) -> None:
    """Stay here, if this is the point; only the first time."""
    global AT
    if point != AT:
        return
    AT = ""
    print(json.dumps({"at": point, "pid": os.getpid()}), flush=True)
    end = time.monotonic() + STAYS_S
    while not GO.exists() and time.monotonic() < end:
        time.sleep(0.02)


def arm() -> None:
    """Every point says that it is reached."""
    notes, phase, frozen_pass, rename = Journal.notes, Progress.phase, Mirror.frozen_pass, swap._rename
    renamed: list[str] = []

    def noted(self: Journal, values: dict[str, Any]) -> None:
        notes(self, values)
        reach(str(values.get("phase")))
        reach(str((values.get("restore") or {}).get("stage")))

    def begun(self: Progress, name: str, total_bytes: int | None = None) -> None:
        phase(self, name, total_bytes)
        reach(name)

    def copied(self: Mirror, budget: float | None = None) -> PassReport:
        reach("frozen")
        return frozen_pass(self, budget)

    def moved(source: str, target: str) -> None:
        rename(source, target)
        renamed.append(target)
        if len(renamed) == RENAME:
            reach("rename")

    vars(compose_health)["_STABLE_SECONDS"] = 0.3  # these containers have no health check
    changed: list[tuple[Any, str, Any]] = [
        (Journal, "notes", noted),
        (Progress, "phase", begun),
        (Mirror, "frozen_pass", copied),
        (swap, "_rename", moved),
    ]
    for owner, name, value in changed:
        setattr(owner, name, value)


def main() -> int:
    arm()
    stack = Stack(Path(ASKED["directory"]))
    stack.snapshot = ASKED.get("snapshot", "")
    try:
        if ASKED["verb"] == "backup":
            stack.backup(keep=Keep(last=3), export=ASKED["at"] == "export")
        else:
            stack.restore(safety=ASKED["at"] in SAFETY, probe=ASKED["at"] == "probe")
    except StackError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    print(json.dumps({"error": None}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
