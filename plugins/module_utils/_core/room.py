# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Room for a copy, asked for before it begins."""

from __future__ import annotations

from .byte_sizes import show_bytes
from .errors import StackError
from .filesystem import free_and_total


def require_room(place: str, needed: int, what: str = "a copy beside the live data") -> None:
    """Raise StackError, naming how much is missing, unless needed bytes are free on the file system of place.

    what is copied is named in the sentence. A file system that does not tell its room is left to the copy itself.
    """
    free, _total = free_and_total(place)
    if free is not None and free < needed:
        raise StackError(
            f"There is no room for {what}: {show_bytes(needed)} are needed on the file system of {place}, "
            f"{show_bytes(free)} are free, {show_bytes(needed - free)} are missing; make room."
        )
