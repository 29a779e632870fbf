# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which snapshot is meant by an id, "latest", a tag or a time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone

from ..errors import StackError
from .snapshot import Snapshot, iso, of_the_future, own_regular, whole_first

_SHOWN_SNAPSHOTS = 10


def choose(
    snapshots: Sequence[Snapshot],
    text: str,
    project: str | None,
    where: str,
    host: str = "",
    volumes: Sequence[str] = (),
) -> Snapshot:
    """Repository.resolve() among snapshots already read (oldest first, all projects).

    Where the host has made some of the project, "latest", a tag or a time never finds one that another host made of
    a stack of the same name, nor one of some volumes only where there is one of all of those that are wanted (volumes;
    () for all of the stack); an id does.
    """
    text = text.strip()
    own = [each for each in snapshots if project in (None, each.project)]
    regular = own_regular(own, host)
    whole = whole_first(regular, volumes)
    if not own:
        others = sorted({each.project for each in snapshots})
        hint = f"; it has some of {', '.join(others)}" if others else ""
        raise StackError(
            f"The repository {where} has no snapshot of the stack {project or ''}{hint}: make a backup first."
        )
    if text in ("", "latest"):
        found = _newest(whole)
    elif text.startswith("tag:"):
        found = _newest(whole_first([each for each in regular if text[4:] in each.tags], volumes))
    else:
        found = [each for each in own if each.id.startswith(text)] if len(text) >= 4 else []
        if not found:
            foreign = [each for each in snapshots if len(text) >= 8 and each.id.startswith(text)]
            if foreign:
                raise StackError(
                    f"snapshot {text} is of the stack {foreign[0].project}, not of {project}: name one of {project}, "
                    f"or give the project {foreign[0].project}."
                )
            moment = moment_of(text)
            found = [each for each in whole if moment and each.shown_time <= moment][-1:]
        elif len(found) > 1:
            raise StackError(f"snapshot {text} fits {len(found)} snapshots: give more digits of the id.")
    if found:
        return found[0]
    newest = [
        f"{each.short_id} ({iso(each.time)}{', safety' if each.is_safety else ''})" for each in own[-_SHOWN_SNAPSHOTS:]
    ]
    older = f" and {len(own) - _SHOWN_SNAPSHOTS} older" if len(own) > _SHOWN_SNAPSHOTS else ""
    raise StackError(
        f"snapshot {text!r} names none of the stack {project or ''} in {where}: give an id, latest, tag:NAME or a "
        f"time; there are {', '.join(reversed(newest))}{older}."
    )


def _newest(oldest_first: Sequence[Snapshot]) -> list[Snapshot]:
    """The newest alone; StackError where that says it is of the future and others do not: who knows which is meant?"""
    now = datetime.now(timezone.utc)
    ahead = of_the_future(oldest_first, now)
    if ahead and len(ahead) < len(oldest_first):
        newest = ahead[-1]
        raise StackError(
            f"The newest snapshot, {newest.short_id}, says that it is of {iso(newest.time)}, and it is {iso(now)}: "
            "set the clock of this host right, or, where that is right, give the id of the snapshot that you mean and "
            "remove the other with restic forget."
        )
    return list(oldest_first[-1:])


def moment_of(text: str) -> datetime | None:
    """The moment that a text is, in this host's time zone unless it names one; None for another text."""
    for suffix in ("", ":00"):
        with suppress(ValueError):
            found = datetime.fromisoformat(text.replace("Z", "+00:00") + suffix)
            return found if found.tzinfo else found.astimezone()
    return None
