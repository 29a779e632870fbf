# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain files: what a volume holds that is no store we know."""

from __future__ import annotations

from ..hidden import is_hidden
from ..sizes import is_empty
from .found import UNKNOWN, Found

KIND = "files"


def look(path: str) -> Found | None:
    """Files, or None if there are none; what a restore keeps there is none of the volume's."""
    return None if is_empty(path, leave_out=is_hidden) else Found(KIND, health=UNKNOWN)
