# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of ours inside a volume: what a restore keeps in a mount point lies in the volume itself."""

from __future__ import annotations

import re

HIDDEN = ".openmemory-stack-"  # names of ours in the root of a volume start so, and end as an operation's id
_HIDDEN_NAME = re.compile(re.escape(HIDDEN) + r"[0-9]{8}t[0-9]{6}-[0-9a-f]{6}")


def is_hidden(name: str) -> bool:
    """Whether a name in the root of a volume is a directory of ours; captures and swaps leave those alone, no other."""
    return _HIDDEN_NAME.fullmatch(name) is not None
