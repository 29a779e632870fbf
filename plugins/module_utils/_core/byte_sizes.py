# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Amounts of bytes, as people write and read them."""

from __future__ import annotations

import re

from .errors import StackError

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_bytes(amount: str | int, parameter: str) -> int:
    """Bytes in 1073741824, "512M" or "1.5 GiB" (units of 1024); raises StackError naming the parameter."""
    match = _AMOUNT.fullmatch(str(amount).strip())
    if not match:
        raise StackError(f"{parameter} is {amount!r}; give bytes or an amount such as 512M or 1G.")
    return int(float(match.group(1)) * 1024 ** _UNITS[match.group(2).upper()])


def show_bytes(amount: int) -> str:
    """The amount for people: "1.5 GiB", "640 KiB", "12 bytes"."""
    value, units = float(amount), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.1f} {units[0]}".replace(".0 ", " ")
