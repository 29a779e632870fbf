# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup is asked to do, checked before anything is touched."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import StackError
from ..operation.places import STATE_DIR
from ..repository.copying import Copy
from ..repository.retention import Keep
from ..repository.snapshot import OURS, SAFETY

if TYPE_CHECKING:
    from ..capture.plan import CapturePlan

QUIESCE = ("pause", "stop", "none")
WAYS = ("auto", "reflink", "single", "two_pass")
VERIFY = ("none", "quick", "full")
STAGING = ("keep", "discard")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")  # as Compose has it
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass
class BackupRequest:
    """The names are those of the module's options; times are in seconds.

    volumes are {name, quiesce}, the name as in Docker or as in the project; None means all of the project's.
    environment holds the credentials of restic's back end. freeze_budget is how long a single copy may take. copies are
    the far repositories that are filled from this one.
    """

    project: str
    repository: str
    password_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[Mapping[str, Any]] | None = None
    quiesce: str = "pause"
    capture: str = "auto"
    compare: bool = False
    staging: str = "keep"
    staging_dir: str | None = None
    state_dir: str = STATE_DIR
    verify: str = "quick"
    tags: Sequence[str] = ()
    keep: Keep | None = None
    prune: bool = True
    export: bool = False
    freeze_timeout: float = 60.0
    freeze_budget: float = 0.3
    init: bool = True
    stop_timeout: int | None = None
    copies: Sequence[Mapping[str, Any]] = ()

    def far(self) -> list[Copy]:
        """The copies; StackError for one that makes no sense."""
        return [Copy.of(each, self.password_file) for each in self.copies or ()]

    def check(self) -> None:
        """Raise StackError for what can be seen to be wrong without looking at the host."""
        check_project(self.project)
        for name, value, allowed in (
            ("quiesce", self.quiesce, QUIESCE),
            ("capture", self.capture, WAYS),
            ("verify", self.verify, VERIFY),
            ("staging", self.staging, STAGING),
        ):
            _one_of(name, value, allowed)
        for volume in self.volumes or ():
            if volume.get("quiesce"):
                _one_of(f"quiesce of volume {volume.get('name')}", str(volume["quiesce"]), QUIESCE)
        if self.volumes is not None and not self.volumes:
            raise StackError("volumes is an empty list; leave it out to back up all volumes of the project.")
        for name, path in (("state_dir", self.state_dir), ("staging_dir", self.staging_dir)):
            if path is not None and not os.path.isabs(path):
                raise StackError(f"{name} is {path}, which is not an absolute path; give one that starts with /.")
        for tag in self.tags:
            if not _TAG.fullmatch(tag):
                raise StackError(f"The tag {tag!r} is not allowed; use letters, digits, '.', '_' and '-'.")
            if tag in (SAFETY, OURS):  # retention and "latest" go by them
                raise StackError(f"The tag {tag!r} is one of ours, with a meaning of its own; choose another.")
        far = self.far()
        for copy in far:
            copy.check(self.repository, self.environment)
        twice = sorted({each.name for each in far if sum(other.name == each.name for other in far) > 1})
        if twice:
            raise StackError(f"copies has the name {twice[0]} twice; give each its own.")
        for name, seconds in (("freeze_timeout", self.freeze_timeout), ("freeze_budget", self.freeze_budget)):
            if not 0 < seconds <= 3600:
                raise StackError(f"{name} is {seconds:g}; give seconds between 0 and 3600.")


def check_project(project: str, option: str = "compose_project") -> None:
    """Raise StackError unless it is a name that Compose allows; it also becomes a directory's name."""
    if not _PROJECT.fullmatch(project):
        raise StackError(
            f"{option} is {project!r}; a Compose project's name has lower-case letters, digits, '-' and '_',"
            " and starts with a letter or a digit."
        )


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise StackError(f"{name} is {value!r}; use one of {', '.join(allowed)}.")


def not_of_one_instant(volumes: Sequence[str]) -> str:
    """The warning about stores that are copied while they are written to."""
    return (
        f"{', '.join(volumes)}: the store is written to while it is copied (quiesce: none), so its copy may be torn, "
        "and does not fit the others; the snapshot does not count as verified. Use quiesce: pause."
    )


def tags_of(request: BackupRequest, plan: CapturePlan) -> list[str]:
    """Those of every snapshot, and the user's; regular.tags() has more."""
    return [f"project={request.project}", f"verified={verified_of(request, plan)}", *request.tags]


def verified_of(request: BackupRequest, plan: CapturePlan) -> str:
    """What a snapshot counts as: a check tells nothing of a store that went on writing while it was copied."""
    return "none" if plan.torn else request.verify
