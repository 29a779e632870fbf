# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a purge is asked to do, checked before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..backup.request import BackupRequest, check_project
from ..errors import StackError
from ..operation.places import STATE_DIR

SNAPSHOT = ("make", "none")
TAG = "before-purge"


@dataclass
class PurgeRequest:
    """The names are those of the module's options; times are in seconds.

    confirm is the project's name again. snapshot is "make" or "none"; repository and password_file may only be left out
    with "none", and are never removed. staging_dir is the one that backups have, project_src the directory of the
    compose file (None: where the containers say it is). directories go, too, if nothing is in them afterwards.
    """

    project: str
    repository: str | None = None
    password_file: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    confirm: str = ""
    snapshot: str = "make"
    project_src: str | None = None
    directories: Sequence[str] = ()
    stop_timeout: int | None = None
    state_dir: str = STATE_DIR
    staging_dir: str | None = None

    def check(self) -> None:
        """Raise StackError for what can be seen to be wrong without looking at the host."""
        check_project(self.project)
        if self.snapshot not in SNAPSHOT:
            raise StackError(f"snapshot is {self.snapshot!r}; use one of {', '.join(SNAPSHOT)}.")
        if self.confirm and self.confirm != self.project:
            raise StackError(
                f"confirm is {self.confirm!r}, and the stack to remove is {self.project}; set confirm: {self.project} "
                "if that is the one, or correct compose_project."
            )
        if self.snapshot == "make" and not (self.repository and self.password_file):
            missing = "password_file" if self.repository else "repository"
            raise StackError(f"{missing} is not given, and a snapshot is made first; give it, or set snapshot: none.")
        paths = {"state_dir": self.state_dir, "staging_dir": self.staging_dir, "project_src": self.project_src}
        for name, path in [*paths.items(), *(("directories", path) for path in self.directories)]:
            if path is not None and not os.path.isabs(path):
                raise StackError(f"{name} is {path}, which is not an absolute path; give one that starts with /.")

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
