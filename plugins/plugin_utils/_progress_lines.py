# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is printed of an operation's progress file, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.command.wording import phase_now, phases_done


class Lines:
    """Remembers what was printed. start is what every line begins with; for quiet_s seconds nothing is printed."""

    def __init__(self, start: str, quiet_s: float):
        self._start = start
        self._quiet_s = quiet_s
        self._told = 0
        self._last = ""
        self._is_lost = False

    def of(self, progress: Mapping[str, Any], elapsed_s: float) -> list[str]:
        """The lines for what is new: phases that are over, and how far the one under way is."""
        self._is_lost = False
        if elapsed_s < self._quiet_s:
            return []
        over = list(progress.get("phases_done") or ())
        lines = [phases_done(over[self._told :])] if over[self._told :] else []
        self._told = len(over)
        if progress.get("phase"):
            now = phase_now(progress)
            if now != self._last:
                lines.append(now)
            self._last = now
        return [f"{self._start}: {line}" for line in lines]

    def lost(self) -> list[str]:
        """Said once each time the connection goes."""
        if self._is_lost:
            return []
        self._is_lost = True
        return [f"{self._start}: the connection is lost, trying again; it goes on there"]
