# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much is in a directory tree."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Size:
    """Bytes as the files are long, bytes as they take on disk, and how many there are; directories do not count."""

    bytes: int = 0
    allocated_bytes: int = 0
    files: int = 0
    complete: bool = True


def measure(path: str, deadline: float) -> Size:
    """The size of what is below path on its own file system; hard links count once.

    deadline is a time.monotonic() after which it stops with complete=False. What cannot be read also gives
    complete=False; what vanishes meanwhile is left out.
    """
    size = Size()
    device = os.lstat(path).st_dev
    seen: set[int] = set()
    pending = [path]
    while pending:
        if time.monotonic() > deadline:
            size.complete = False
            break
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    _count(entry, device, size, seen, pending)
        except FileNotFoundError:
            continue
        except OSError:
            size.complete = False
    return size


def _count(entry: os.DirEntry[str], device: int, size: Size, seen: set[int], pending: list[str]) -> None:
    try:
        about = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(about.st_mode):
        if about.st_dev == device:
            pending.append(entry.path)
        return
    if about.st_nlink > 1:
        if about.st_ino in seen:
            return
        seen.add(about.st_ino)
    size.files += 1
    size.bytes += about.st_size
    size.allocated_bytes += about.st_blocks * 512


def is_empty(path: str, leave_out: Callable[[str], bool] = lambda _name: False) -> bool:
    """Whether there is no file at any depth; raises OSError where it cannot be read.

    leave_out tells which names in path itself do not count.
    """
    pending = [path]
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                if directory == path and leave_out(entry.name):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    return False
                pending.append(entry.path)
    return True
