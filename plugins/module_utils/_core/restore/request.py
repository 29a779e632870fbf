# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore is asked to do, checked before anything is touched."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..backup.request import check_project
from ..errors import StackError
from ..operation.places import STATE_DIR

TARGETS = ("in_place", "new")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # Docker's own rule for volumes


@dataclass
class RestoreRequest:
    """The names are those of the module's options; times are in seconds, keep_days in days.

    volumes are names as in the snapshot or as in Docker; None means all in the snapshot. path is one file or directory
    inside the one volume that volumes then names. from_project is the stack that the snapshot is of, where it is
    another one. name_map gives {name in the snapshot: name of the Docker volume}; new_prefix is put before the
    snapshot's names of the volumes that target "new" makes. set_password makes the restored Neo4j take the password
    that its container has in NEO4J_AUTH. force is only needed where something live is replaced. staging_dir is where
    the safety capture makes its copy, None for where a backup does by default.
    """

    project: str
    repository: str
    password_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    snapshot: str = "latest"
    from_project: str | None = None
    volumes: Sequence[str] | None = None
    path: str | None = None
    target: str = "in_place"
    name_map: Mapping[str, str] = field(default_factory=dict)
    new_prefix: str | None = None
    probe: bool = False
    force: bool = False
    safety: bool = True
    keep_days: float = 7.0
    ignore_versions: bool = False
    check_census: bool = True
    start: bool = True
    set_password: bool = False
    wait_timeout: float = 300.0
    stop_timeout: int | None = None
    state_dir: str = STATE_DIR
    staging_dir: str | None = None

    def check(self) -> None:
        """Raise StackError for what can be seen to be wrong without looking at the host."""
        check_project(self.project)
        if self.from_project is not None:
            check_project(self.from_project)
        if self.target not in TARGETS:
            raise StackError(f"target is {self.target!r}; use one of {', '.join(TARGETS)}.")
        if self.volumes is not None and not self.volumes:
            raise StackError("volumes is an empty list; leave it out to restore all volumes of the snapshot.")
        if self.path is not None:
            self._check_path(self.path)
        for name in self.name_map.values():
            if not _NAME.fullmatch(name):
                raise StackError(f"name_map names the volume {name!r}, which Docker refuses; use letters, digits, _.-")
        if self.new_prefix is not None and self.target != "new":
            raise StackError("new_prefix is for target: new; leave it out, or set target: new.")
        for name, path in (("state_dir", self.state_dir), ("staging_dir", self.staging_dir)):
            if path is not None and not os.path.isabs(path):
                raise StackError(f"{name} is {path}, which is not an absolute path; give one that starts with /.")
        if not 0 <= self.keep_days <= 3650:
            raise StackError(f"keep_days is {self.keep_days:g}; give days between 0 and 3650.")
        if not 0 < self.wait_timeout <= 86400:
            raise StackError(f"wait_timeout is {self.wait_timeout:g}; give seconds between 0 and 86400.")

    def _check_path(self, path: str) -> None:
        if self.volumes is None or len(self.volumes) != 1:
            raise StackError(f"path is {path}, and volumes must name the one volume that it is in.")
        for name in ("probe", "set_password"):
            if getattr(self, name):
                raise StackError(f"path is {path}, and {name} is for whole volumes; leave out one of them.")
        if self.target == "new":
            raise StackError("path restores into a volume that is there; leave out target: new, or path.")
        normal = posixpath.normpath(path)
        if path.startswith("/") or normal in ("", ".", "..") or normal.startswith("../") or "\0" in path:
            raise StackError(f"path is {path!r}; give it relative to the root of the volume, without .. in it.")
        self.path = normal
