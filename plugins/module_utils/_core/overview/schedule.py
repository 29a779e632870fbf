# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemd says of a stack's timers: whether they run, when next, and how the last run ended."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Any

KINDS = ("backup", "drill", "check")
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)")
_PROPERTIES = "Id,LoadState,ActiveState,NextElapseUSecRealtime,Result"
_LIMIT_S = 10


def schedule(project: str) -> dict[str, dict[str, Any]] | None:
    """{kind: {active, next (ISO, UTC), result}} of the timers, None where no systemd answers.

    active: whether the timer waits. result: systemd's word for how the last run of its service ended, "success" also
    where there was none.
    """
    names = [f"openmemory-stack-{kind}@{project}.{what}" for kind in KINDS for what in ("timer", "service")]
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TZ": "UTC", "LC_ALL": "C"}
    try:
        said = subprocess.run(
            ["systemctl", "show", f"--property={_PROPERTIES}", "--", *names],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
        ).stdout
    except (
        OSError,
        subprocess.SubprocessError,
    ):  # no systemd, so nothing can be said
        return None
    return read(said, project)


def read(said: str, project: str) -> dict[str, dict[str, Any]]:
    """The same from the output of systemctl show, a block for each unit."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in said.split("\n\n")]
    units = {block["Id"]: block for block in blocks if "Id" in block}
    found = {}
    for kind in KINDS:
        timer = units.get(f"openmemory-stack-{kind}@{project}.timer", {})
        service = units.get(f"openmemory-stack-{kind}@{project}.service", {})
        moment = _MOMENT.search(timer.get("NextElapseUSecRealtime", ""))
        found[kind] = {
            "active": timer.get("LoadState") == "loaded" and timer.get("ActiveState") == "active",
            "next": f"{moment.group(1)}T{moment.group(2)}Z" if moment else None,
            "result": service.get("Result") or "success",
        }
    return found
