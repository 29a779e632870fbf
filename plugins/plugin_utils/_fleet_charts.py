# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Curves of growth and bars of freeze windows as inline SVG: named and described, and readable without colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import count
from statistics import median
from typing import Any

from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_text import count as counted
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_text import day, size, span
from markupsafe import Markup, escape

WAYS = {"single": "one copy", "two_pass": "two passes", "reflink": "shared blocks", "live": "live"}
_PAD = 3.0
_MARGIN = 1.15  # room above the highest point


class Charts:
    """One page's charts; each gets ids of its own."""

    def __init__(self) -> None:
        self._ids = count(1)

    def growth(self, name: str, growth: Mapping[str, Any], width: int = 150, height: int = 34) -> Markup:
        """The curve of [[epoch, bytes]], from zero; an empty text for less than two points."""
        points: Sequence[Sequence[float]] = growth["points"]
        if len(points) < 2:
            return Markup("")
        first, last = points[0], points[-1]
        top = max(held for _at, held in points) * _MARGIN or 1
        wide = (last[0] - first[0]) or 1
        placed = [
            (_PAD + (at - first[0]) / wide * (width - 2 * _PAD), height - 1 - held / top * (height - 2 - _PAD))
            for at, held in points
        ]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        body = (
            f'<path class="area" d="M{placed[0][0]:.1f} {height}L{line}L{placed[-1][0]:.1f} {height}Z"/>'
            f'<path class="line" d="M{line}"/>'
            f'<circle class="end" cx="{placed[-1][0]:.1f}" cy="{placed[-1][1]:.1f}" r="2.5"/>'
        )
        told = (
            f"From {size(first[1])} on {_day(first[0])} to {size(last[1])} on {_day(last[0])}, {len(points)} snapshots"
        )
        return self._svg("growth", width, height, f"Size of {name}", told, body)

    def freezes(self, name: str, freezes: Sequence[Mapping[str, Any]], width: int = 300, height: int = 64) -> Markup:
        """A bar for each snapshot, oldest first; the pattern tells the way of the copy."""
        if not freezes:
            return Markup("")
        top = max(each["seconds"] for each in freezes) or 1
        step = min(14.0, width / len(freezes))
        width = max(round(step * len(freezes)), 1)
        thick = max(1.0, step * 0.72)
        parts: dict[str, list[str]] = {}
        for number, each in enumerate(freezes):
            tall = max(1.0, each["seconds"] / top * (height - 2))
            left = number * step
            parts.setdefault(way_class(each["way"]), []).append(
                f"M{left:.1f} {height}v-{tall:.1f}h{thick:.1f}v{tall:.1f}z"
            )
        body = f'<path class="floor" d="M0 {height - 0.5}h{width}"/>' + "".join(
            f'<path class="bar {way}" d="{"".join(bars)}"/>' for way, bars in sorted(parts.items())
        )
        return self._svg("freezes", width, height, f"Freeze windows of {name}", freeze_words(freezes), body)

    def shares(self, by_status: Mapping[str, int], width: int = 1000, height: int = 10) -> Markup:
        """One bar whose parts are the hosts by status, worst first."""
        total = sum(by_status.values())
        if not total:
            return Markup("")
        body, left = "", 0.0
        for status, amount in by_status.items():
            if amount:
                wide = max(4.0, amount / total * width)  # a single host among a thousand is still to be seen
                body += (
                    f'<rect class="{status}" x="{left:.1f}" width="{max(2.0, wide - 2):.1f}" height="{height}" rx="2"/>'
                )
                left += wide
        told = ", ".join(f"{amount} {status}" for status, amount in by_status.items() if amount)
        return self._svg("shares", round(left), height, "Hosts by status", told, body, stretched=True)

    def _svg(
        self, kind: str, width: int, height: int, title: str, told: str, body: str, stretched: bool = False
    ) -> Markup:
        one = next(self._ids)
        extra = ' preserveAspectRatio="none"' if stretched else f' width="{width}" height="{height}"'
        return Markup(
            f'<svg class="{kind}" viewBox="0 0 {width} {height}"{extra} role="img" aria-labelledby="t{one} d{one}">'
            f'<title id="t{one}">{escape(title)}</title><desc id="d{one}">{escape(told)}</desc>{body}</svg>'
        )


def way_class(way: str) -> str:
    """The class of a bar; ways that are not known look like the first."""
    return way if way in WAYS else "single"


def freeze_words(freezes: Sequence[Mapping[str, Any]]) -> str:
    """The same for who does not see it."""
    seconds = [each["seconds"] for each in freezes]
    longest = max(freezes, key=lambda each: float(each["seconds"]))
    return (
        f"{counted(len(freezes), 'snapshot')} from {day(freezes[0]['time'])} to {day(freezes[-1]['time'])}: "
        f"last {span(seconds[-1])}, median {span(median(seconds))}, "
        f"longest {span(longest['seconds'])} on {day(longest['time'])}"
    )


def freeze_facts(freezes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{last, median, longest (seconds), ways: [(class, words, how many)]}; empty without any."""
    if not freezes:
        return {}
    seconds = [each["seconds"] for each in freezes]
    ways = Counter(way_class(each["way"]) for each in freezes)
    told = [(way, WAYS[way], amount) for way, amount in sorted(ways.items())]
    return {"last": seconds[-1], "median": median(seconds), "longest": max(seconds), "ways": told}


def _day(epoch: float) -> str:
    return day(datetime.fromtimestamp(epoch, timezone.utc).isoformat()).partition(",")[0]
