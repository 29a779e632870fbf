# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Host directories of path-backed volumes: what has to change, and the change."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .errors import StackError
from .stores.registry import default_owner
from .volumes import VolumeSpec

DEFAULT_MODE = 0o750


@dataclass(frozen=True)
class Directory:
    """Owner and mode that a directory has or gets."""

    owner: int
    group: int
    mode: int

    def as_result(self) -> dict[str, Any]:
        return {"owner": self.owner, "group": self.group, "mode": f"{self.mode:04o}"}

    def __str__(self) -> str:
        return f"{self.owner}:{self.group}, mode {self.mode:04o}"


@dataclass(frozen=True)
class DirectoryPlan:
    """before is None where the directory is not there."""

    path: str
    before: Directory | None
    after: Directory

    @property
    def changes(self) -> bool:
        return self.before != self.after

    @property
    def action(self) -> str:
        if self.before is None:
            return f"create directory {self.path} ({self.after})"
        return f"change directory {self.path} from {self.before} to {self.after}"


def plan_directory(spec: VolumeSpec) -> DirectoryPlan:
    """What the directory of a path-backed volume is and shall be.

    A new one gets the owner that its store needs; of one that exists only what was asked for is changed.
    """
    path = str(spec.path)
    try:
        about = os.stat(path)
    except FileNotFoundError:
        owner, group = default_owner(spec.store) or (os.geteuid(), os.getegid())
        mode = DEFAULT_MODE
        before = None
    except OSError as error:
        raise StackError(f"volume {spec.name}: path {path} cannot be read ({error.strerror}).") from error
    else:
        owner, group, mode = about.st_uid, about.st_gid, about.st_mode & 0o7777
        before = Directory(owner, group, mode)
    after = Directory(
        owner if spec.owner is None else spec.owner,
        group if spec.group is None else spec.group,
        mode if spec.mode is None else spec.mode,
    )
    return DirectoryPlan(path, before, after)


def apply_directory(plan: DirectoryPlan) -> None:
    """Create the directory, its parents (mode 0755) too, or correct its owner and mode; never what is in it.

    A new one appears with its owner and mode or not at all: a later run would take one without them for the user's own.
    """
    parent, name = os.path.split(plan.path)
    draft = os.path.join(parent, f".{name}.openmemory-new")
    try:
        if plan.before is None:
            os.makedirs(parent, mode=0o755, exist_ok=True)
            with suppress(FileExistsError):  # left by a run that was killed
                os.mkdir(draft, mode=0o700)
            _set(draft, plan.after)
            os.rename(draft, plan.path)
        else:
            _set(plan.path, plan.after)
    except OSError as error:
        with suppress(OSError):
            os.rmdir(draft)
        raise StackError(f"Could not {plan.action}: {error.strerror}.") from error


def _set(path: str, wanted: Directory) -> None:
    os.chown(path, wanted.owner, wanted.group)
    os.chmod(path, wanted.mode)  # after chown, which clears the set-id bits
