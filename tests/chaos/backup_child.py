# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One backup in a process of its own, to which something happens: backup_child.py ROOT PROJECT WHAT.

WHAT is a phase, at whose start it kills itself with -9; "throw-away": the same when the first one of a probe runs;
"fill:PHASE:FILE", which fills FILE's disk then; "slow", which makes the copy inside the freeze take seconds, for who
kills it from outside; or "none".
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror, PassReport
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.throwaway import Throwaway
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep

FROZEN_SECONDS = 30.0


def request(root: Path, project: str, what: str = "") -> BackupRequest:
    return BackupRequest(
        project,
        str(root / "repository"),
        str(root / "password"),
        capture="two_pass",
        state_dir=str(root / "state"),
        keep=Keep(last=3),
        prune="retention" in what,
        verify="full" if what in ("probe", "throw-away") else "quick",
        export=what == "export",
    )


def fill(file: str) -> None:
    """Take all that is left on a file's disk."""
    with contextlib.suppress(OSError), open(file, "ab", buffering=0) as stream:
        while True:
            stream.write(bytes(65536))
    with contextlib.suppress(OSError), open(file, "ab", buffering=0) as stream:
        while True:
            stream.write(b"0")


def main(root: str, project: str, what: str) -> int:
    def happen(state: dict[str, Any]) -> None:
        if state["phase"] == what:
            os.kill(os.getpid(), signal.SIGKILL)
        if what.startswith(f"fill:{state['phase']}:"):
            fill(what.split(":")[2])

    if what == "throw-away":
        start = Throwaway.start

        def dies(self: Throwaway, *arguments: Any, **options: Any) -> str:
            start(self, *arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        changed: Any = Throwaway
        changed.start = dies
    if what == "slow":
        exact = Mirror.frozen_pass

        def slowly(self: Mirror, budget: float | None = None) -> PassReport:
            report = exact(self, budget)
            time.sleep(FROZEN_SECONDS)
            return report

        vars_of_class: Any = Mirror
        vars_of_class.frozen_pass = slowly
    try:
        print(json.dumps(backup.run(request(Path(root), project, what), Engine.connect(), Progress(listener=happen))))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
