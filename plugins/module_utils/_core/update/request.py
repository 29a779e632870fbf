# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an update is asked to do, checked before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..backup.request import BackupRequest, check_project
from ..compose_request import Request
from ..errors import StackError
from ..operation.places import STATE_DIR

SNAPSHOT = ("make", "none")
STEPS = ("auto", "refuse")
PULL = ("always", "never")
TAG = "before-update"


@dataclass
class UpdateRequest:
    """compose is the project as it shall be; the names are those of the module's options, times are in seconds.

    snapshot is "make" or "none"; repository and password_file may only be left out with "none". steps is "auto" to run
    the versions that a store demands in between, "refuse" to list them. keep_days is how long the data from before the
    update stays beside the live data.
    """

    compose: Request
    snapshot: str = "make"
    repository: str | None = None
    password_file: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: str = "auto"
    keep_days: float = 1.0
    state_dir: str = STATE_DIR
    staging_dir: str | None = None

    @property
    def project(self) -> str:
        return self.compose.project_name

    @property
    def deployment(self) -> Request:
        """The project to bring up when all images are there."""
        return replace(self.compose, pull="never", ends_with_us=True, state_dir=self.state_dir)

    def check(self) -> None:
        """Raise StackError for what can be seen to be wrong without looking at the host."""
        check_project(self.project, "project_name")
        if not self.compose.files:
            raise StackError("files is empty, and an update needs the compose file as it shall be; give it.")
        for name, value, allowed in (
            ("snapshot", self.snapshot, SNAPSHOT),
            ("steps", self.steps, STEPS),
            ("pull", self.compose.pull, PULL),
        ):
            if value not in allowed:
                raise StackError(f"{name} is {value!r}; use one of {', '.join(allowed)}.")
        if self.snapshot == "make" and not (self.repository and self.password_file):
            missing = "password_file" if self.repository else "repository"
            raise StackError(f"{missing} is not given, and a snapshot is made first; give it, or set snapshot: none.")
        for name, path in (("state_dir", self.state_dir), ("staging_dir", self.staging_dir)):
            if path is not None and not os.path.isabs(path):
                raise StackError(f"{name} is {path}, which is not an absolute path; give one that starts with /.")
        if not 0 <= self.keep_days <= 3650:
            raise StackError(f"keep_days is {self.keep_days:g}; give days between 0 and 3650.")
        if not 0 < self.compose.wait_timeout <= 86400:
            raise StackError(f"wait_timeout is {self.compose.wait_timeout:g}; give seconds between 0 and 86400.")

    def backup(self) -> BackupRequest:
        """The request of the snapshot; only with snapshot "make"."""
        return BackupRequest(
            project=self.project,
            repository=str(self.repository),
            password_file=str(self.password_file),
            environment=self.environment,
            state_dir=self.state_dir,
            staging_dir=self.staging_dir,
            verify="quick",
            tags=(TAG,),
            init=False,
        )
