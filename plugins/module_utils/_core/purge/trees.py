# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing a directory tree for good: no link is followed, nothing that is mounted in it is entered, any depth."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress

from ..errors import StackError
from ..filesystem import MountTable
from ..operation.durable_json import sync_directory

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def move_away(path: str, trash: str) -> bool:
    """Rename a directory to trash beside it, durably; whether it was there. Raises StackError.

    What stands under its name from then on is not the purge's any more.
    """
    try:
        if os.path.lexists(trash) or not os.path.lexists(path):
            return False
        os.rename(path, trash)
        sync_directory(os.path.dirname(path))
    except OSError as error:
        raise _cannot(path, error) from error
    return True


def remove_tree(path: str, keep_root: bool = False) -> bool:
    """Remove a directory with all that is in it; keep_root leaves the directory itself. Whether it was there.

    A link or a file of this name is left alone and no error. Raises StackError for what cannot be removed, with all
    else that comes before it gone: once more goes on from there.
    """
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return False
            mounted = MountTable.read().below(os.path.realpath(path))
            if mounted:
                raise StackError(f"{path} has something mounted at {mounted[0]}; unmount that first.")
            top = os.open(path, _DIRECTORY)
            try:
                _empty(top)
            finally:
                os.close(top)
            if not keep_root:
                os.rmdir(path)
            return True
    except OSError as error:
        raise _cannot(path, error) from error
    return False


def _empty(top: int) -> None:
    """Level by level: directories come up to the top before they go, so that a deep tree costs no more than a flat."""
    mount = _mount_of(top)
    names = os.listdir(top)
    while names:
        for name in names:
            if not _unlink(name, top):
                _flatten(top, name, mount)
        names = os.listdir(top)


def _flatten(top: int, name: str, mount: str) -> None:
    """Unlink the files of a directory, move its directories up, and remove it."""
    try:
        at = os.open(name, _DIRECTORY, dir_fd=top)
    except FileNotFoundError:
        return
    try:
        if _mount_of(at) != mount:
            raise OSError(errno.EBUSY, "something is mounted there", name)
        for child in os.listdir(at):
            if not _unlink(child, at):  # a rename, too, leaves what is mounted where it is
                os.rename(child, f".openmemory-purge-{secrets.token_hex(8)}", src_dir_fd=at, dst_dir_fd=top)
    finally:
        os.close(at)
    os.rmdir(name, dir_fd=top)


def _unlink(name: str, parent: int) -> bool:
    """Whether name is gone now; False for a directory, which is left."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _mount_of(descriptor: int) -> str:
    """The kernel's number of the mount that a descriptor lies on; a bind mount has one of its own."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
        return next((line for line in lines if line.startswith("mnt_id:")), "")


def _cannot(path: str, error: OSError) -> StackError:
    named = error.filename if isinstance(error.filename, str) and error.filename not in (path, "") else ""
    what = f" at {named}" if named else ""
    return StackError(f"{path} cannot be removed ({error.strerror}{what}); repair that, or use become: true.")
