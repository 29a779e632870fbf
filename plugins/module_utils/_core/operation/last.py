# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results of the last backup and the last drill of a stack, for status and for monitoring."""

from __future__ import annotations

from typing import Any

from ..errors import StackError
from .durable_json import read_json, write_json
from .places import Places


def read_last(places: Places) -> dict[str, Any]:
    """{operation: result}; empty where nothing was recorded or the record cannot be read."""
    try:
        found: dict[str, Any] = read_json(places.last) or {}
    except StackError:  # it is only a record: a damaged one is made anew
        return {}
    return found


def record_last(places: Places, operation: str, result: dict[str, Any]) -> None:
    """Keep result (JSON values) as that of the last operation of its kind. Raises StackError if the disk refuses."""
    write_json(places.last, {**read_last(places), operation: result})
