# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What of a directory another host has, so that each pass sends only what may have changed since.

The rule of capture/mirror.py, for a copy that is not on this host: an entry is left out only if its inode, size, mtime
and ctime are those of when it was last sent, and both times are older than the start of a flush that was complete
before it was sent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from ..capture.durable import KNOWN, Flush
from ..capture.index import Signature, signature
from ..capture.passing import mounted
from ..errors import StackError
from ..filesystem import MountTable, real_path


@dataclass
class Batch:
    """One pass. paths are relative, "." the directory itself; those that are gone are among them, as they go there too.

    bytes: apparent size of the files in it, without those that are gone.
    """

    paths: list[str]
    bytes: int
    vouched: dict[str, Signature | None]
    files: int = 0


class Ledger:
    """source is a directory; excluded are names in it that are left out. Raises StackError as Mirror does."""

    def __init__(self, source: str, excluded: tuple[str, ...] = ()):
        mounts = MountTable.read()
        self.source = real_path(os.path.abspath(source), mounts)
        self.excluded = frozenset(excluded)
        self._careful = mounts.of(self.source).type not in KNOWN
        self._sent: dict[str, Signature | None] = {}
        self._flush: Flush | None = None
        for point in mounts.below(self.source):
            if os.path.relpath(point, self.source).split("/")[0] not in self.excluded:
                raise mounted(point)

    def batch(self, frozen: bool) -> Batch:
        """What has to be sent now. frozen: nothing writes, so no flush is needed, and nothing may vanish."""
        if not frozen:
            self._flush = Flush(self.source)
        found: dict[str, os.stat_result] = {}
        try:
            about = os.stat(self.source)
            found["."] = about
            self._scan(self.source, "", about.st_dev, found, frozen)
        except OSError as error:
            raise StackError(f"{error.filename or self.source} cannot be read ({error.strerror}).") from error
        anyway = frozen and self._careful
        paths = [path for path, one in found.items() if anyway or self._sent.get(path) != signature(one)]
        covers = self._flush.covers if self._flush is not None else lambda _about: False
        vouched = {path: signature(found[path]) if covers(found[path]) else None for path in paths}
        files = [found[path] for path in paths if stat.S_ISREG(found[path].st_mode)]
        return Batch([*self._gone(found), *paths], sum(one.st_size for one in files), vouched, len(files))

    def sent(self, batch: Batch, whole: bool) -> None:
        """A batch has been sent; whole: all of it arrived, but for what has vanished meanwhile.

        What is gone counts as there, since it may have come back right before it was to be removed; and nothing vouches
        for what was in it, which may come back with it.
        """
        self._sent.update(batch.vouched if whole else dict.fromkeys(batch.vouched))
        gone = tuple(f"{path}/" for path in batch.paths if path not in batch.vouched)
        if gone:
            self._sent.update({path: None for path in self._sent if f"{path}/".startswith(gone)})

    def _gone(self, found: Mapping[str, os.stat_result]) -> list[str]:
        """What is to be removed there; what was in a directory goes with it."""
        gone = []
        for path in self._sent.keys() - found.keys():
            above = found.get(os.path.dirname(path) or ".")
            if above is not None and stat.S_ISDIR(above.st_mode):
                gone.append(path)
        return gone

    def _scan(self, directory: str, inside: str, device: int, found: dict[str, os.stat_result], frozen: bool) -> None:
        try:
            listing = list(os.scandir(directory))
        except FileNotFoundError:
            if frozen:
                raise
            return
        for entry in listing:
            if not inside and entry.name in self.excluded:
                continue
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                if frozen:
                    raise
                continue
            path = f"{inside}{entry.name}"
            found[path] = about
            if stat.S_ISDIR(about.st_mode):
                if about.st_dev != device:
                    raise mounted(entry.path)
                self._scan(entry.path, f"{path}/", device, found, frozen)
