# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that a container wrote, opened by root: never through a link, and never a pipe that would wait for ever."""

from __future__ import annotations

import errno
import os
import stat


def plain(path: str, flags: int) -> int:
    """The opener for open(): OSError where the path is a link, a pipe, a device or anything but a plain file.

    What is there is not opened before it is known to be one: opening a device alone can do harm.
    """
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "is not a plain file", path)
        return os.open(f"/proc/self/fd/{handle}", flags | os.O_CLOEXEC)
    finally:
        os.close(handle)


def plain_size(path: str) -> int | None:
    """Its bytes; None where there is no plain file at the path."""
    try:
        about = os.lstat(path)
    except OSError:
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None
