# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked for, and its files in a private place where Compose can read them before they are deployed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .compose_cli import ComposeCli, Connection
from .operation.places import STATE_DIR
from .project_env import ENV_NAME
from .project_files import ProjectFile
from .project_secrets import Mask


@dataclass
class Request:
    """What is asked for; the names are those of the module's options. Times are in seconds.

    ends_with_us: Compose is killed when this process is, so that whoever repairs what is left works alone.
    """

    project_name: str
    project_src: str
    connection: Connection
    tmpdir: str
    files: Sequence[Mapping[str, Any]] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    state: str = "present"
    pull: str = "missing"
    recreate: str = "auto"
    remove_orphans: bool = False
    wait: bool = True
    wait_timeout: float = 300
    stop_timeout: int | None = None
    expected_volumes: Sequence[str] = ()
    state_dir: str = STATE_DIR
    ends_with_us: bool = False

    @property
    def mask(self) -> Mask:
        return Mask(self.secrets.values())


class Candidate:
    """A project's files, ready for Compose before they are in place: a directory of our own, gone afterwards."""

    def __init__(self, request: Request, wanted: Sequence[ProjectFile]):
        self.request = request
        self.directory = tempfile.mkdtemp(prefix="compose-", dir=request.tmpdir)  # 0700
        self._names = [file.name for file in wanted if file.name != ENV_NAME]
        for file in wanted:
            self.add(file)

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *_error: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def add(self, file: ProjectFile) -> None:
        handle = os.open(os.path.join(self.directory, file.name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(file.data)

    def cli(self, extra: Sequence[str] = ()) -> ComposeCli:
        return cli_for(self.request, self.directory, [*self._names, *extra])


def cli_for(request: Request, directory: str, names: Sequence[str]) -> ComposeCli:
    """Compose for the files of these names in a directory; for none, the project that labels lead to."""
    return ComposeCli(
        request.connection,
        request.project_name,
        request.project_src,
        [os.path.join(directory, name) for name in names],
        os.path.join(directory, ENV_NAME) if names else None,
        request.mask,
        ends_with_us=request.ends_with_us,
    )
