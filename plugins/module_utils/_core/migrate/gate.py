# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the source's key opens on the target, and nothing else: the line, the rsync daemon, and a question.

sshd runs the gate instead of what was asked for, as the key's own line in authorized_keys says. It starts the target's
part in a unit of systemd's, which runs the recovery when that part has ended, however it ended.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from ..engine import Engine
from ..errors import BusyError, StackError
from ..operation.durable_json import read_json
from ..operation.lock import RECOVERY, OperationLock
from ..operation.places import Places
from ..operation.recover import recover
from .arrival_undo import KEY
from .caller import WATCHDOG_S
from .door import Expected, conf
from .line import LINE, SETTLE

_RSYNC = "rsync --server --daemon"
_ENDS_WITHIN_S = 30.0


def enter(places: Places, operation: str, docker_host: str, asked: str) -> None:
    """Become what the source asks for; returns only for the question. Raises StackError for anything else."""
    Expected.load(places, operation)
    project, state_dir = places.project, os.path.dirname(places.state)
    own = [os.path.abspath(sys.argv[0]), "--project", project, "--state-dir", state_dir, "--docker-host", docker_host]
    if asked.startswith(_RSYNC):
        os.execvp("rsync", ["rsync", "--server", "--daemon", f"--config={conf(places)}", "."])
    if asked == SETTLE:
        return
    if asked != LINE:
        raise StackError(f"The key of the migration {operation} does not open {asked!r}.")
    verb = [own[0], "arrive", operation, *own[1:], "--quiet"]
    after = [own[0], "recover", *own[1:], "--quiet"]
    unit = [
        "systemd-run",
        "--pipe",
        "--quiet",
        "--collect",
        f"--unit={unit_name(places, operation)}",
        f"--property=ExecStopPost=-{shlex.join(after)}",
        "--property=OOMScoreAdjust=-900",
        f"--property=WatchdogSec={WATCHDOG_S}",
        "--property=WatchdogSignal=SIGKILL",
        "--property=NotifyAccess=main",
        f"--description=Takes the stack {project} over from another host",
        "--",
    ]
    os.execvp(unit[0], [*unit, *verb])


def settle(places: Places, engine: Engine, operation: str) -> dict[str, Any]:
    """What has become of a migration, for certain: {accepted}. Its part here is ended first if it still runs."""
    with suppress(OSError):
        subprocess.run(["systemctl", "kill", "--signal=KILL", f"{unit_name(places, operation)}.service"], check=False)
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while True:
        try:
            with OperationLock(places, RECOVERY):
                recover(engine, places, lock_held=True)
                break
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    found = (read_json(places.last) or {}).get(KEY) or {}  # a damaged record must not be taken for a no
    return {"accepted": found.get("operation") == operation and bool(found.get("accepted"))}


def unit_name(places: Places, operation: str) -> str:
    return f"openmemory-stack-arrival-{places.project}-{operation}"
