# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Compose says it did, or with --dry-run would do, read from its progress lines."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LINE = re.compile(r'^\s*(?:DRY-RUN MODE -\s+)?(Network|Volume|Container)\s+"?([^"\s]+)"?\s+(\w+)\s*$')
# Only these words are changes. "Created" is not: 2.26 says so of containers that exist and are about to be started.
_CHANGES = {
    "Creating": "created",
    "Recreate": "recreated",
    "Starting": "started",
    "Restarting": "restarted",
    "Stopping": "stopped",
    "Removing": "removed",
}
_TEMPORARY = re.compile(r"^[0-9a-f]{12}_")  # the name of a container while its successor is being made
_STRONGEST = ["created", "recreated", "removed", "restarted", "stopped", "started"]


def changes(stderr: str) -> list[tuple[str, str, str]]:
    """(kind, name, what happened), once for each thing, in the order in which Compose came to them."""
    found: dict[tuple[str, str], str] = {}
    for line in stderr.splitlines():
        match = _LINE.match(line)
        if match is None or match[3] not in _CHANGES:
            continue
        thing = (match[1].lower(), _TEMPORARY.sub("", match[2]))
        word = _CHANGES[match[3]]
        if thing not in found or _STRONGEST.index(word) < _STRONGEST.index(found[thing]):
            found[thing] = word
    return [(kind, name, word) for (kind, name), word in found.items()]


def sentences(events: Iterable[tuple[str, str, str]], dry_run: bool = False) -> list[str]:
    """One line for people for each event."""
    return [f"{kind} {name} {'would be ' if dry_run else ''}{word}" for kind, name, word in events]
