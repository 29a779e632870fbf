# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Compose project's files on the host: what differs, written atomically."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import StackError
from .project_env import ENV_MODE, ENV_NAME, HEADER, redact_env, render_env
from .project_secrets import Mask

_OURS = ("COMPOSE_PROJECT_NAME", "COMPOSE_FILE")
KEPT_SUFFIX = ".before-openmemory-stack"


@dataclass(frozen=True)
class ProjectFile:
    """A file as it shall be; mode in the way of chmod."""

    name: str
    content: str
    mode: int = 0o644

    @property
    def data(self) -> bytes:
        return self.content.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class FileChange:
    """A file that is not (before is None) or not yet as it shall be."""

    path: str
    wanted: ProjectFile
    before: bytes | None
    before_mode: int | None


def wanted_files(
    files: Iterable[Mapping[str, Any]], settings: Mapping[str, str], project_name: str
) -> list[ProjectFile]:
    """The compose files in their order, then `.env` with what lets a plain `docker compose` find them.

    Raises StackError for a name that is no plain file name, is there twice, or a mode that is not octal.
    """
    wanted: list[ProjectFile] = []
    for file in files:
        name = str(file["name"])
        if not name or "/" in name or ":" in name or name in (".", "..", ENV_NAME):
            raise StackError(
                f"files: {name!r} is no plain file name; give a name without / and : that is not {ENV_NAME}."
            )
        if name in [one.name for one in wanted]:
            raise StackError(f"files: {name} is named twice; give each file once.")
        wanted.append(ProjectFile(name, str(file["content"]), parse_mode(file.get("mode") or "0644", name)))
    settings = {
        **settings,
        "COMPOSE_PROJECT_NAME": project_name,
        "COMPOSE_FILE": ":".join(one.name for one in wanted),
    }
    return [*wanted, ProjectFile(ENV_NAME, render_env(settings), ENV_MODE)]


def parse_mode(text: str, name: str) -> int:
    """'0644' as a number."""
    try:
        mode = int(str(text), 8)
    except ValueError:
        mode = -1
    if not 0o400 <= mode <= 0o777:
        raise StackError(f'files: the mode {text!r} of {name} is not octal; write it like "0644", in quotes.')
    return mode


def find_changes(directory: str, wanted: Iterable[ProjectFile]) -> list[FileChange]:
    """The files that differ in content or mode. Raises StackError for a directory in a file's place."""
    changes = []
    for file in wanted:
        path = os.path.join(directory, file.name)
        try:
            with open(path, "rb") as handle:
                before: bytes | None = handle.read()
                mode: int | None = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
        except FileNotFoundError:
            before, mode = None, None
        except OSError as error:
            raise StackError(f"{path} cannot be read ({error.strerror}); move it away.") from error
        if before != file.data or mode != file.mode:
            changes.append(FileChange(path, file, before, mode))
    return changes


def is_ours(directory: str) -> bool:
    """Whether the settings file there was written by this collection, and so the files beside it."""
    try:
        with open(os.path.join(directory, ENV_NAME), encoding="utf-8", errors="replace") as handle:
            return handle.read(len(HEADER)) == HEADER
    except OSError:
        return False


def write_changes(directory: str, changes: Iterable[FileChange], keep_old: bool) -> None:
    """Replace each file by rename; with keep_old, what was there stays beside it under another name."""
    for change in changes:
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            if keep_old and change.before is not None and change.before != change.wanted.data:
                _keep(change)
            _replace(change.path, change.wanted.data, change.wanted.mode)
        except OSError as error:
            raise StackError(f"{change.path} cannot be written ({error.strerror}); correct project_src.") from error


def file_diffs(changes: Iterable[FileChange], public: Collection[str], mask: Mask) -> list[dict[str, str]]:
    """What Ansible shows with --diff, without a secret in it."""
    diffs = []
    for change in changes:
        before = (change.before or b"").decode("utf-8", "replace")
        after = change.wanted.content
        if change.wanted.name == ENV_NAME:
            before, after = _env_diff(before, after, {*public, *_OURS})
        if change.before is not None and change.before_mode != change.wanted.mode:
            before = f"mode: {change.before_mode:04o}\n{before}"
            after = f"mode: {change.wanted.mode:04o}\n{after}"
        header = change.path if change.before is not None else f"{change.path} (does not exist)"
        diffs.append(
            {"before_header": header, "after_header": change.path, "before": mask(before), "after": mask(after)}
        )
    return diffs


def _env_diff(before: str, after: str, public: Collection[str]) -> tuple[str, str]:
    was = before.splitlines()
    shown = redact_env(after, public)
    for number, line in enumerate(after.splitlines()):
        if before and line not in was and shown[number] != line:
            shown[number] += " (changed)"
    return "".join(f"{line}\n" for line in redact_env(before, public)), "".join(f"{line}\n" for line in shown)


def _keep(change: FileChange) -> None:
    kept = change.path + KEPT_SUFFIX
    if not os.path.lexists(kept):
        # a settings file of somebody else holds secrets whatever its mode was
        mode = ENV_MODE if change.wanted.name == ENV_NAME else change.before_mode or ENV_MODE
        _replace(kept, change.before or b"", mode)


def _replace(path: str, data: bytes, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
