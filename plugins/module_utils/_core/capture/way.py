# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The way a capture goes: reflink, single or two-pass. All give the same bytes; they differ in the freeze window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..byte_sizes import show_bytes
from ..errors import StackError
from ..filesystem import free_and_total
from .durable import can_clone
from .plan import PlannedVolume
from .staging import Staging

# Bytes a second of a copy inside the window. cp alone moves 2 GB/s from the page cache; on a busy machine with 2 cores
# 273 MB took 1.48 s, so a fifth of that is counted on.
COPY_RATE = 0.4e9
_MARGIN = 64 * 1024 * 1024


@dataclass(frozen=True)
class Way:
    """name is reflink, single or two_pass; clone says by volume key whether its copy can share blocks."""

    name: str
    clone: dict[str, bool] = field(default_factory=dict)


def choose(
    asked: str,
    volumes: Sequence[PlannedVolume],
    staging: Staging,
    budget: float,
    shares: Callable[[str, str], bool] | None = None,
) -> Way:
    """The way that is asked for, or with "auto" the first that fits.

    budget is in seconds: how long one copy of everything may take inside the freeze window. shares tells whether two
    directories can share blocks; without it that is tried, in staging that is prepared. Raises StackError where
    reflink is asked for and the file systems cannot.
    """
    shares = shares or can_clone
    frozen = [volume for volume in volumes if volume.quiesce != "none"]
    clone = {volume.key: shares(volume.path, staging.root) for volume in volumes}
    unable = [volume for volume in frozen if not clone[volume.key]]
    if asked == "reflink" and unable:
        raise StackError(
            f"capture is reflink, but the volume {unable[0].name} ({unable[0].filesystem} at {unable[0].path}) and "
            f"staging at {staging.root} do not share blocks (one XFS or btrfs); set staging_dir, or capture: auto."
        )
    if asked != "auto":
        return Way(asked, clone)
    if frozen and not unable:
        return Way("reflink", clone)
    allocated = sum(volume.size.allocated_bytes for volume in unable)
    return Way("single" if allocated <= budget * COPY_RATE else "two_pass", clone)


def check_space(volumes: Sequence[PlannedVolume], staging: Staging, way: Way) -> None:
    """Raise StackError saying how much is missing where staging has no room for the copies."""
    needed = _MARGIN
    for volume in volumes:
        if not way.clone[volume.key]:
            needed += max(0, volume.size.allocated_bytes - staging.size(volume.key).allocated_bytes)
    free = free_and_total(staging.root)[0]
    if free is not None and free < needed:
        raise StackError(
            f"There is no room for staging at {staging.root}: needed {show_bytes(needed)}, free {show_bytes(free)}, "
            f"missing {show_bytes(needed - free)}; make room or set staging_dir. Nothing was backed up."
        )
