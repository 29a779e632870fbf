# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON files that are either the old or the new one, whatever dies."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from ..errors import StackError


def write_json(path: str, value: Any, durable: bool = True) -> None:
    """Replace a file by value as JSON in ASCII, as names of files may be no UTF-8, mode 0600. durable: it is on disk
    before this returns.

    Raises StackError naming the file if the disk refuses.
    """
    temporary = path + ".new"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(json.dumps(value).encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_directory(os.path.dirname(path))
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise StackError(f"{path} cannot be written ({error.strerror}); free space or repair the disk.") from error


def read_json(path: str) -> Any:
    """The value in a file, None if there is no file. Raises StackError for one that is not JSON or cannot be read."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StackError(f"{path} cannot be read ({error.strerror}); use become: true.") from error
    except ValueError as error:
        raise StackError(f"{path} is damaged ({error}); look at it, and remove it to go on without it.") from error


def sync_directory(path: str) -> None:
    """Put a directory's entries on disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
