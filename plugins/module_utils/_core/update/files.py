# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of a Compose project as they were, kept in a private place until an update is over."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping

from ..errors import StackError
from ..operation.durable_json import sync_directory


def save(paths: Iterable[str], directory: str) -> dict[str, str | None]:
    """Copy files into a directory of ours, made 0700; {path: name of the copy, None where there is no such file}.

    Raises StackError.
    """
    try:
        shutil.rmtree(directory, ignore_errors=True)
        os.mkdir(directory, 0o700)
        saved: dict[str, str | None] = {}
        for number, path in enumerate(paths):
            saved[path] = str(number) if os.path.lexists(path) else None
            if saved[path] is not None:
                _copy(path, os.path.join(directory, str(number)))
        sync_directory(directory)
    except OSError as error:
        raise StackError(f"{error.filename or directory} cannot be kept ({error.strerror}); make room.") from error
    return saved


def put_back(saved: Mapping[str, str | None], directory: str) -> list[str]:
    """Give each file its old contents, owner and mode, or take it away if there was none; the paths that changed.

    It can be called again; raises StackError.
    """
    changed = []
    for path, name in saved.items():
        try:
            if name is None:
                if os.path.lexists(path):
                    os.unlink(path)
                    changed.append(path)
            elif not _same(path, os.path.join(directory, name)):
                handle, temporary = tempfile.mkstemp(prefix=".old-", dir=os.path.dirname(path))
                os.close(handle)
                _copy(os.path.join(directory, name), temporary)
                os.replace(temporary, path)
                changed.append(path)
            if os.path.isdir(os.path.dirname(path)):
                sync_directory(os.path.dirname(path))
        except OSError as error:
            raise StackError(
                f"{path} cannot be put back ({error.strerror}); its old form is in {directory}."
            ) from error
    return changed


def _copy(source: str, target: str) -> None:
    shutil.copy2(source, target)
    about = os.stat(source)
    os.chown(target, about.st_uid, about.st_gid)
    with open(target, "rb") as stream:
        os.fsync(stream.fileno())


def _same(path: str, other: str) -> bool:
    try:
        with open(path, "rb") as one, open(other, "rb") as two:
            here, there = os.fstat(one.fileno()), os.fstat(two.fileno())
            same = (here.st_mode, here.st_uid, here.st_gid) == (there.st_mode, there.st_uid, there.st_gid)
            return same and one.read() == two.read()
    except FileNotFoundError:
        return False
