# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of an operation's progress, and how often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_phases_bytes_rate_and_time_left(tmp_path: Path) -> None:
    clock, told = Clock(), list[dict[str, Any]]()
    progress = Progress(str(tmp_path / "progress.json"), told.append, clock)
    progress.phase("copy", 1000)
    clock.now += 2
    progress.advance(200)
    assert json.loads((tmp_path / "progress.json").read_text()) == told[-1]
    assert (tmp_path / "progress.json").stat().st_mode & 0o777 == 0o600
    told[-1].pop("updated")
    assert told[-1] == {
        "phase": "copy", "phases_done": [], "bytes": 200, "total_bytes": 1000, "rate": 100, "eta_s": 8.0, "done": False,
    }  # fmt: skip
    clock.now += 1
    progress.phase("check")
    assert (told[-1]["phases_done"], told[-1]["bytes"]) == ([{"name": "copy", "seconds": 3.0}], 0)
    assert (told[-1]["rate"], told[-1]["eta_s"]) == (None, None)
    clock.now += 0.5
    progress.phase("copy")
    clock.now += 1
    progress.done()
    assert (told[-1]["phase"], told[-1]["done"]) == (None, True)
    assert progress.timings == {"copy": 4.0, "check": 0.5}


def test_it_tells_at_most_twice_a_second() -> None:
    clock, told = Clock(), list[dict[str, Any]]()
    progress = Progress(listener=told.append, clock=clock)
    progress.phase("copy", 10_000)
    for _round in range(1000):
        clock.now += 0.01
        progress.advance(10)
    assert 19 <= len(told) <= 21
    assert told[-1]["bytes"] <= 10_000


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock, told = Clock(), list[dict[str, Any]]()
    progress = Progress(listener=told.append, clock=clock)
    progress.phase("copy", 100_000)
    for speed in (1000, 10):
        for _second in range(20):
            clock.now += 1
            progress.advance(speed)
    assert told[-1]["rate"] == 10
    assert told[-1]["eta_s"] == (100_000 - 20_200) / 10


def test_a_file_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    progress = Progress()
    progress.attach(str(tmp_path / "gone" / "progress.json"))
    progress.phase("copy")
    progress.done()
    assert list(progress.timings) == ["copy"]
