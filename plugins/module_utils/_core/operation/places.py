# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where an operation keeps what it needs on this host."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from typing import Any

from ..errors import StackError

CONFIG_DIR = "/etc/openmemory-stack"
STATE_DIR = "/var/lib/openmemory-stack"
RUNTIME_DIR = "/run/openmemory-stack"
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Places:
    """The directories of one stack. state survives a reboot, runtime does not. Absolute paths, mode 0700."""

    project: str
    state: str
    runtime: str

    @classmethod
    def of(
        cls, project: str, state_dir: str = STATE_DIR, runtime_dir: str = RUNTIME_DIR, create: bool = True
    ) -> Places:
        """The places of a project, made if need be. create=False (for check mode) makes nothing.

        Raises StackError for a project's name that is no directory name, or directories that cannot be made private.
        """
        if not _PROJECT.fullmatch(project):
            raise StackError(f"project {project!r} is not the name of a Compose project; correct it.")
        if not os.path.isabs(state_dir):
            raise StackError(f"state_dir {state_dir} is not an absolute path; correct it.")
        places = cls(project, os.path.join(state_dir, project), os.path.join(runtime_dir, project))
        if create:
            for parent, path in ((state_dir, places.state), (runtime_dir, places.runtime)):
                private_directory(parent, keep_mode=True)
                private_directory(path)
        return places

    @property
    def staging(self) -> str:
        return os.path.join(self.state, "staging")

    @property
    def scratch(self) -> str:
        return os.path.join(self.state, "scratch")

    @property
    def manifests(self) -> str:
        return os.path.join(self.state, "manifests")

    @property
    def journal(self) -> str:
        return os.path.join(self.state, "journal.json")

    @property
    def lock(self) -> str:
        return os.path.join(self.state, "lock")

    @property
    def kept(self) -> str:
        return os.path.join(self.state, "kept.json")

    @property
    def last(self) -> str:
        return os.path.join(self.state, "last.json")

    @property
    def told(self) -> str:
        """Who was told which outcome of an operation."""
        return os.path.join(self.state, "told.json")

    @property
    def arrival(self) -> str:
        """The migration that is expected on this host."""
        return os.path.join(self.state, "arrival.json")

    @property
    def retired(self) -> str:
        """Where the stack has been moved to, once it has."""
        return os.path.join(self.state, "retired.json")

    @property
    def progress(self) -> str:
        return os.path.join(self.runtime, "progress.json")

    @property
    def committed(self) -> str:
        """What the last backup has committed, by which the next one begins."""
        return os.path.join(self.runtime, "committed.json")

    @property
    def guard(self) -> str:
        """Whose the paused containers are, and what the guard of a freeze did when it resumed them by itself."""
        return os.path.join(self.runtime, "guard.json")


def require_local(engine: Any) -> None:
    """Raise StackError for an engine of another machine: its paths and processes cannot be seen from here."""
    if not engine.is_local:
        raise StackError(
            f"docker_host {engine.docker_host} is not a socket of this host; backups and restores run on the host that "
            "has the engine."
        )


def private_directory(path: str, keep_mode: bool = False) -> None:
    """Make a directory (and its parents) with mode 0700; one that is there gets that mode, unless keep_mode.

    Raises StackError if it cannot be made, or belongs to somebody else.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and not keep_mode:
            raise StackError(f"{path} is a link; remove it, so that a private directory can be made there.")
        if found.st_uid != os.geteuid() and not keep_mode:
            raise StackError(
                f"{path} belongs to user {found.st_uid}; remove it, or give it to the user that runs this."
            )
        if not keep_mode and stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(path, 0o700)
    except OSError as error:
        raise StackError(f"{path} cannot be made ({error.strerror}); use become: true or correct state_dir.") from error
