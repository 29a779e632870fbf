# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One instant of all volumes of a plan, as a copy in staging."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..engine import Engine
from ..hidden import is_hidden
from ..operation.journal import Journal
from ..operation.places import Places
from ..operation.progress import Progress
from .durable import much_is_dirty, sync_filesystems
from .freeze import Freeze
from .mirror import Mirror, PassReport
from .plan import CapturePlan, PlannedVolume, refuse_others
from .staging import Staging
from .way import Way

_MOST_LIVE_PASSES = 4
_SHORT_WAIT_S = 0.1  # after the last pass
_SHORT_PASS_S = 1.0  # what is written meanwhile is little, and another pass costs as much again


@dataclass
class Captured:
    """freeze_s is the freeze window in seconds; reports are by volume key, the last pass of each.

    instant: seconds since 1970 as the last container was frozen; what was written until then is in it. earlier are
    those of the passes before, in which it was written to; quiesced is [{name, how}]. before is what the witness said.
    """

    way: str
    freeze_s: float
    instant: float = 0.0
    reports: dict[str, PassReport] = field(default_factory=dict)
    earlier: list[PassReport] = field(default_factory=list)
    quiesced: list[dict[str, str]] = field(default_factory=list)
    before: Any = None


@dataclass
class CaptureSettings:
    """timeout: seconds after which the guard resumes everything.

    stop_timeout: seconds that a container gets to stop, None for what the container itself says.
    """

    compare: bool = False
    timeout: float = 60.0
    stop_timeout: int | None = None


def capture(
    plan: CapturePlan,
    way: Way,
    staging: Staging,
    engine: Engine,
    places: Places,
    journal: Journal,
    progress: Progress,
    settings: CaptureSettings,
    witness: Callable[[], Any] = lambda: None,
    ready: Callable[[], None] = lambda: None,
) -> Captured:
    """Fill staging with one instant of plan's volumes. witness is asked right before the window.

    ready may wait, and raise StackError where the copy would be of no use; it is called before anything is frozen.
    Raises StackError, with every container running again, where a file could not be read or the instant was broken.
    """
    frozen = {volume.key: _mirror(volume, way, staging, settings, progress) for volume in plan.frozen}
    live = {volume.key: _mirror(volume, way, staging, settings, progress) for volume in plan.live}
    found = Captured(way.name, 0.0)
    journal.phase("copy")
    progress.phase("copy", sum(volume.size.allocated_bytes for volume in plan.volumes))
    for key, mirror in live.items():
        found.reports[key] = mirror.live_pass()
        mirror.save()
    mirrors = list(frozen.values())
    timeouts = settings.timeout, settings.stop_timeout
    begun = 0.0

    def last() -> None:
        """What the witness and the guard took time for is copied too; sharing blocks first writes out what is dirty."""
        if way.name == "single":
            flush(mirrors)
            flushed = time.monotonic()
            ready()
            if time.monotonic() - flushed > _SHORT_WAIT_S:
                flush(mirrors)
        else:
            asked = time.monotonic()
            found.earlier += pre_copy(mirrors)
            copied = time.monotonic()
            ready()
            was_long = copied - asked > _SHORT_PASS_S
            if was_long:  # the census is of a moment long before the window
                found.before = witness()
            if was_long or time.monotonic() - copied > _SHORT_WAIT_S:
                found.earlier += pre_copy(mirrors)
        journal.phase("freeze")
        progress.phase("freeze")
        nonlocal begun
        begun = time.time()
        refuse_others(engine, plan)  # outside of the window, and as near to it as can be

    freeze = Freeze(engine, plan.project, places, journal, plan.pause, plan.stop, *timeouts, last)
    try:
        if way.name != "single":
            found.earlier += pre_copy([mirror for mirror in mirrors if not mirror.is_warm()])
        found.before = witness()
        with freeze:
            found.instant = time.time()
            for key, mirror in frozen.items():
                found.reports[key] = mirror.frozen_pass(settings.timeout)
                freeze.check()
    finally:
        for mirror in mirrors:
            mirror.save()  # a freeze that failed costs no full copy the next time
    refuse_others(engine, plan, begun)
    found.freeze_s = freeze.window
    found.quiesced = freeze.quiesced
    return found


def _mirror(volume: PlannedVolume, way: Way, staging: Staging, settings: CaptureSettings, progress: Progress) -> Mirror:
    return Mirror(
        volume.path,
        staging.volume(volume.key),
        staging.index(volume.key),
        clone=way.clone[volume.key],
        compare=settings.compare,
        excluded=[name for name in os.listdir(volume.path) if is_hidden(name)],
        on_bytes=progress.advance,
    )


def flush(mirrors: list[Mirror]) -> None:
    """The work before a window without a pass."""
    for mirror in mirrors:
        mirror.flush()


def pre_copy(mirrors: list[Mirror]) -> list[PassReport]:
    """Pass after pass, until one is short or passes stop helping; returns their reports.

    A whole copy is made before the census and the guard; what changed since the last backup only after them. Where much
    waits to be written it is written out at once, or the kernel would let whoever writes next wait: the window.
    """
    made: list[PassReport] = []
    before = None
    for _number in range(_MOST_LIVE_PASSES):
        reports = [mirror.live_pass() for mirror in mirrors]
        if much_is_dirty():
            sync_filesystems(mirror.target for mirror in mirrors)
        read = sum(report.bytes_read for report in reports)
        made += reports
        if sum(report.seconds for report in reports) <= _SHORT_PASS_S or (before is not None and read > before * 0.7):
            break
        before = read
    return made
