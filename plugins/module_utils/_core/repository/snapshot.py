# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A snapshot of a repository, as its metadata and tags tell it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

OURS = "openmemory-stack"
ABOUT = "time_is_about"  # in what a host remembers of a snapshot that it made
SAFETY = "safety"
AHEAD = timedelta(hours=1)  # clocks differ by less
VERIFIED = ("quick", "full")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?")


@dataclass(frozen=True)
class Snapshot:
    """id: 64 hex digits. time: aware. tags: all of them, ours ("project=x") too. paths: absolute, where staging lay.
    original: in a far repository, the id that it has in the near one. time_is_about: it is not the one that restic
    lists, but seconds before, so it is not for people who may ask for it.
    """

    id: str
    short_id: str
    time: datetime
    tags: tuple[str, ...]
    hostname: str
    paths: tuple[str, ...]
    original: str = ""
    time_is_about: bool = False

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Snapshot:
        """From restic's JSON."""
        return cls(
            id=found["id"],
            short_id=found.get("short_id") or found["id"][:8],
            time=parse_time(found["time"]),
            tags=tuple(found.get("tags") or ()),
            hostname=found.get("hostname", ""),
            paths=tuple(found.get("paths") or ()),
            original=found.get("original") or "",
            time_is_about=bool(found.get(ABOUT)),
        )

    @property
    def shown_time(self) -> datetime:
        """In whole seconds, as people see it: who asks by that time means this snapshot too."""
        return self.time.replace(microsecond=0)

    @property
    def local_time(self) -> str:
        """For messages: 2026-11-25 02:45:27 in this host's time zone, as a restore may be asked for it."""
        return self.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")

    @property
    def origin(self) -> str:
        """The id by which a snapshot and its copies are known for the same."""
        return self.original or self.id

    @property
    def project(self) -> str:
        return self._value("project")

    @property
    def way(self) -> str:
        return self._value("way")

    @property
    def verified(self) -> str:
        """none, quick or full."""
        return self._value("verified") or "none"

    @property
    def is_safety(self) -> bool:
        """Whether it was made of what was live just before a restore."""
        return SAFETY in self.tags

    @property
    def partial(self) -> str:
        """Which volumes it holds, where the project has more that are backed up; "" for all of them."""
        return self._value("partial")

    def holds(self, names: Sequence[str]) -> bool:
        """Whether its tags say that it holds all of these volumes, named as in the project or as Compose names them."""
        listed = self.partial or self._value("volumes")
        some = listed.split("+")
        return not listed or {*names} <= {*some, *(f"{self.project}_{name}" for name in some)}

    @property
    def user_tags(self) -> tuple[str, ...]:
        own = ("project=", "way=", "verified=", "partial=", "volumes=")
        return tuple(tag for tag in self.tags if tag not in (OURS, SAFETY) and not tag.startswith(own))

    def _value(self, key: str) -> str:
        return next((tag[len(key) + 1 :] for tag in self.tags if tag.startswith(f"{key}=")), "")

    def as_result(self) -> dict[str, Any]:
        """For a module's result; the time as ISO 8601 in UTC."""
        return {
            "id": self.id,
            "short_id": self.short_id,
            "time": iso(self.time),
            "project": self.project,
            "host": self.hostname,
            "way": self.way,
            "verified": self.verified,
            "safety": self.is_safety,
            "partial": self.partial,
            "tags": list(self.user_tags),
        }


def own_regular(snapshots: Sequence[Snapshot], host: str) -> list[Snapshot]:
    """Those that no restore made, of this host alone where it made some: another may keep a stack of the same name."""
    regular = [each for each in snapshots if not each.is_safety]
    return [each for each in regular if each.hostname == host] or regular


def of_the_future(snapshots: Sequence[Snapshot], now: datetime) -> list[Snapshot]:
    """Those whose time is not there yet: a clock was wrong, or somebody wants retention to be."""
    return [each for each in snapshots if each.time > now + AHEAD]


def whole_first(snapshots: Sequence[Snapshot], volumes: Sequence[str] = ()) -> list[Snapshot]:
    """Those of all of a project's volumes, or of all of those that are wanted; all where there is none such."""
    whole = [each for each in snapshots if (each.holds(volumes) if volumes else not each.partial)]
    return whole or list(snapshots)


def parse_time(text: str) -> datetime:
    """restic's time (nanoseconds, Z or an offset) as an aware datetime with microseconds."""
    match = _TIME.match(text)
    if not match:
        raise ValueError(text)
    day, clock, fraction, zone = match.groups()
    micros = ((fraction or ".0")[1:] + "000000")[:6]
    return datetime.fromisoformat(f"{day}T{clock}.{micros}{'+00:00' if zone in (None, 'Z') else zone}")


def iso(time: datetime) -> str:
    """2026-11-25T02:45:27Z"""
    from datetime import timezone

    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
