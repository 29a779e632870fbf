# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hosts answered, made harmless and readable: plain types, bounded lengths, no characters that play tricks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.byte_sizes import show_bytes
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.wording import duration

LONGEST = 600  # characters of a text
MOST = 500  # entries of a list or a table
DEEPEST = 12
DASH = "\u2013"
_MONTHS = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]  # strftime would follow the controller's language
# Control characters, and those that turn the direction of writing around or take no room: names are shown as they are.
_TRICKS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def clean(value: Any, depth: int = 0) -> Any:
    """A copy in plain types: texts on one line and bounded, lists bounded, numbers finite, all else None."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        return int(value) if abs(value) < 2**63 else None
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth >= DEEPEST:
        return None
    if isinstance(value, Mapping):
        return {text(str(key)): clean(inner, depth + 1) for key, inner in list(value.items())[:MOST]}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [clean(inner, depth + 1) for inner in list(value)[:MOST]]
    return None


def text(value: str) -> str:
    """On one line, without control characters, at most LONGEST characters."""
    flat = _TRICKS.sub("\ufffd", " ".join(value[: 4 * LONGEST].split()))
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"


def moment(value: Any) -> datetime | None:
    """An ISO time as an aware datetime in UTC; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def iso(when: datetime) -> str:
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: Any) -> float | None:
    """A number that is none of the negative ones; None for anything else."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 else None


def size(value: Any) -> str:
    """640 KiB, or a dash where it is not known."""
    found = number(value)
    return DASH if found is None else str(show_bytes(int(found)))


def span(value: Any) -> str:
    """0.21 s, 3 h 5 min, or a dash where it is not known."""
    found = number(value)
    if found is None:
        return DASH
    if 0 < found < 0.1:
        return f"{1000 * found:.0f} ms"
    return str(duration(found))


def age(value: Any) -> str:
    """Of an age in seconds: now, 5 min, 3 h, 2 days, 5 weeks, 14 months; one unit, as nobody reads more."""
    found = number(value)
    if found is None:
        return DASH
    for unit, name in ((365 * 86400, "year"), (30 * 86400, "month"), (7 * 86400, "week"), (86400, "day")):
        if found >= 2 * unit:
            return f"{int(found // unit)} {name}s"
    if found >= 2 * 3600:
        return f"{int(found // 3600)} h"
    return f"{int(found // 60)} min" if found >= 60 else "now"


def ago(value: Any) -> str:
    """3 h ago, or just now."""
    told = age(value)
    return {"now": "just now", DASH: DASH}.get(told, f"{told} ago")


def day(value: Any) -> str:
    """26 Nov 2026, 02:15, or a dash."""
    found = moment(value)
    return f"{found.day} {_MONTHS[found.month - 1]} {found:%Y, %H:%M}" if found else DASH


def count(amount: int, one: str, many: str = "") -> str:
    """1 host, 3 hosts."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}".replace(",", " ")
