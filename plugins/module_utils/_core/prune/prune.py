# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prunes a repository that hosts can only add to, from a machine that they cannot reach."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import StackError
from ..operation.places import STATE_DIR
from ..repository.repository import Repository
from ..repository.restic import Restic, refuse_password
from ..repository.retention import Keep, earlier
from ..repository.snapshot import Snapshot, iso
from .arrivals import Arrivals
from .choice import false_times, to_prune

CHECKS = ("none", "structure")
_PART = re.compile(r"(?:100|[1-9]?\d(?:\.\d+)?)%")


@dataclass
class PruneRequest:
    """The names are those of the module's options. project and host: only these; None for all that are ours.

    lock_wait: seconds for a host that adds something meanwhile.
    """

    repository: str
    password_file: str
    keep: Keep
    environment: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    host: str | None = None
    check_repository: str = "structure"
    state_dir: str = STATE_DIR
    lock_wait: float = 600.0

    def check(self) -> None:
        """Raise StackError for what can be seen to be wrong."""
        refuse_password(self.repository)
        to_prune([], {}, self.keep, datetime.now(timezone.utc))
        if self.check_repository not in CHECKS and not _PART.fullmatch(self.check_repository):
            raise StackError(
                f"check_repository is {self.check_repository!r}; use none, structure, or a part of the data such as 5%."
            )
        for name, path in (("state_dir", self.state_dir), ("password_file", self.password_file)):
            if not os.path.isabs(path):
                raise StackError(f"{name} is {path}, which is not an absolute path; give one that starts with /.")

    def open(self) -> Repository:
        cache = os.path.join(self.state_dir, "cache")
        given = self.repository, self.password_file, self.environment, cache
        return Repository(Restic(*given, lock_wait_s=self.lock_wait, patience_s=120.0))


def look(request: PruneRequest, now: datetime | None = None) -> dict[str, Any]:
    """What a prune would do now; changes nothing, here and there. As run()."""
    request.check()
    return _look(request, request.open(), now or datetime.now(timezone.utc))[0]


def run(request: PruneRequest, check_mode: bool = False, now: datetime | None = None) -> dict[str, Any]:
    """Check the repository, note what arrived, and remove what is not kept.

    {changed, repository, kept, removed, false_times (lists of snapshots, each also with arrived), actions, warnings}.
    Raises StackError; a repository that is damaged is left as it is.
    """
    now = now or datetime.now(timezone.utc)
    request.check()
    repository = request.open()
    result, arrivals, going = _look(request, repository, now)
    if check_mode:
        return result
    if going and request.check_repository != "none":
        part = request.check_repository
        problems = repository.check(False if part == "structure" else part)
        if problems:
            raise StackError(
                f"The repository {repository.restic.shown} is damaged ({problems[0]}), and nothing was removed from "
                "it; see which snapshots are whole, and use another copy of the repository where there is one."
            )
    arrivals.write(now)  # before anything goes: a run that dies must not make all the rest arrive anew
    repository.forget([each.id for each in going], prune=True)
    return result


def _look(
    request: PruneRequest, repository: Repository, now: datetime
) -> tuple[dict[str, Any], Arrivals, list[Snapshot]]:
    identity = repository.identity()
    every = repository.snapshots()
    wanted = [each for each in every if _is(request.project, each.project) and _is(request.host, each.hostname)]
    arrivals = Arrivals.of(request.state_dir, identity)
    before = arrivals.last
    arrivals.meet(every, now)
    warnings = [f"snapshot {each} is damaged and cannot be listed" for each in repository.unreadable]
    going = to_prune(wanted, arrivals.seen, request.keep, now)
    if before is not None and earlier(now, request.keep.within) > before and going:
        going = []
        warnings.append(
            f"The last run was at {before:%Y-%m-%d %H:%M} UTC, before all that is kept: nothing was removed this time, "
            "in case it is the clock of this machine that is wrong. The next run goes by it."
        )
    lying = false_times(wanted, arrivals.seen)
    if lying:
        named = ", ".join(f"{each.short_id} of {each.hostname} ({iso(each.time)})" for each in lying[:3])
        more = f" and {len(lying) - 3} more" if len(lying) > 3 else ""
        warnings.append(
            f"Snapshots say that they were made after they had arrived: {named}{more}. Somebody may want the others to "
            "be removed, or a clock is wrong; what is kept does not go by that."
        )
    gone = {each.id for each in going}
    result = {
        "changed": bool(going),
        "repository": repository.restic.shown,
        "kept": [_shown(each, arrivals) for each in wanted if each.id not in gone],
        "removed": [_shown(each, arrivals) for each in going],
        "false_times": [_shown(each, arrivals) for each in lying],
        "actions": [
            f"snapshot {each.short_id} of {each.project} on {each.hostname}, {each.local_time}, removed"
            for each in going
        ],
        "warnings": warnings,
    }
    return result, arrivals, going


def _is(wanted: str | None, found: str) -> bool:
    return not wanted or wanted == found


def _shown(snapshot: Snapshot, arrivals: Arrivals) -> dict[str, Any]:
    return {**snapshot.as_result(), "arrived": iso(arrivals.seen[snapshot.id])}
