# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies that follow what is live, until one last pass, while nothing writes, makes them exact."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..capture.capture import pre_copy
from ..capture.durable import can_clone, sync_filesystems
from ..capture.mirror import Mirror, PassReport
from ..hidden import is_hidden
from ..operation.progress import Progress


@dataclass(frozen=True)
class Copy:
    """One directory that is copied. target is one that only we use, in a directory of ours; excluded are left out."""

    source: str
    target: str
    excluded: tuple[str, ...] = ()


class Standby:
    """Copies by key. Raises StackError, as Mirror does, naming the file that cannot be read or written.

    What is known of one from pass to pass, and what is removed from it, is in the directory meta beside it: a file can
    only be moved out of the way on its own file system. Whoever made the directory removes that.
    """

    def __init__(self, copies: Mapping[str, Copy], progress: Progress):
        self._places = [os.path.dirname(copy.target) for copy in copies.values()]
        self._mirrors = {
            key: Mirror(
                copy.source,
                copy.target,
                os.path.join(os.path.dirname(copy.target), "meta", "index.json"),
                clone=can_clone(copy.source, os.path.dirname(copy.target)),
                excluded=[name for name in os.listdir(copy.source) if is_hidden(name) or name in copy.excluded],
                on_bytes=progress.advance,
            )
            for key, copy in copies.items()
        }

    def follow(self) -> int:
        """Pass after pass while others write, until one is short; the copies are on disk then. Returns bytes read."""
        made = pre_copy(list(self._mirrors.values()))
        self.sync()
        return sum(report.bytes_read for report in made)

    def catch_up(self) -> int:
        """One pass, right before all stops: what follow() and waiting have left. Returns bytes read."""
        return sum(mirror.live_pass().bytes_read for mirror in self._mirrors.values())

    def settle(self) -> dict[str, PassReport]:
        """The last pass, which makes the copies exact; nothing may write to the sources. Reports by key."""
        return {key: mirror.frozen_pass() for key, mirror in self._mirrors.items()}

    def sync(self) -> None:
        """Write the copies out to disk, one file system after the other; also when they have been moved on it."""
        sync_filesystems(self._places)
