# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths in a tree that may be hostile: no link in it, in place of a name or of a directory above, leads out of it."""

from __future__ import annotations

import errno
import os
from types import TracebackType

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LEAF = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # a pipe is not waited for


class Inside:
    """The tree at root, an absolute path whose directory is ours; root itself may be a file. Use it with with."""

    def __init__(self, root: str):
        above, self._name = os.path.split(root.rstrip("/"))
        self._above = os.open(above, _DIRECTORY)
        self._last: tuple[str, int] | None = None  # the directory of the last path, as the next one is often in it too

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close_last()
        os.close(self._above)

    def place(self, path: str) -> str:
        """An absolute path of what lies at path (relative to root, "" for root itself), good until the next call.

        Only calls that do not follow a link in the last name may be used with it. Raises OSError where a directory
        above is missing or is none, and ValueError for a path that is not plain.
        """
        if not is_plain(path):
            raise ValueError(f"{path!r} is not a path inside a tree")
        parent, name = os.path.split(path)
        return f"/proc/self/fd/{self._directory(parent) if path else self._above}/{name if path else self._name}"

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of what lies at path, which is no link. Raises OSError and ValueError as place() does."""
        return os.open(self.place(path), flags | _LEAF)

    def _directory(self, path: str) -> int:
        if self._last is None or self._last[0] != path:
            self._close_last()
            at = os.open(self._name, _DIRECTORY, dir_fd=self._above)
            for part in path.split("/") if path else []:
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=at)
                finally:
                    os.close(at)
                at = below
            self._last = path, at
        return self._last[1]

    def _close_last(self) -> None:
        if self._last is not None:
            os.close(self._last[1])
            self._last = None


def is_plain(path: str) -> bool:
    """Whether a path is relative and goes only down; "" is the root of the tree."""
    return not path or not {"", ".", ".."} & set(path.split("/"))


def changed(path: str) -> OSError:
    """The error for a name that became something else while it was worked on."""
    return OSError(errno.ESTALE, "became something else meanwhile", path)
