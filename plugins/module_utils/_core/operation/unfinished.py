# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operation has left in the journal, for people who look: is it under way, or did it die?"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from .journal import Journal
from .places import Places
from .process import start_ticks


def unfinished(places: Places) -> dict[str, Any] | None:
    """{operation, phase, started (ISO, UTC), pid, running} of the journal, None if there is none; raises StackError."""
    journal = Journal.load(places)
    if journal is None:
        return None
    data = journal.data
    started = datetime.fromtimestamp(float(data["started"]), timezone.utc)
    return {
        "operation": data["operation"],
        "phase": data["phase"],
        "started": started.isoformat(timespec="seconds"),
        "pid": data["pid"],
        "running": journal.same_boot and start_ticks(int(data["pid"])) == data["pid_start"],
    }
