# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of the last backup and the last drill of a stack, for status and for monitoring."""

from __future__ import annotations

import json
import os
from typing import Any

from .places import Places


def read_last(places: Places) -> dict[str, Any]:
    """{operation: result}; empty where nothing was recorded or the record cannot be read."""
    try:
        with open(places.last, encoding="utf-8") as stream:
            found: dict[str, Any] = json.load(stream)
    except (OSError, ValueError):
        return {}
    return found


def record_last(places: Places, operation: str, result: dict[str, Any]) -> None:
    """Keep result (JSON values) as that of the last operation of its kind. The file is replaced whole, 0600."""
    draft = f"{places.last}.new"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump({**read_last(places), operation: result}, stream, indent=1, sort_keys=True)
    os.replace(draft, places.last)
