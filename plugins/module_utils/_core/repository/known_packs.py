# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a local repository still has the files of data that it had after the last backup of this host.

restic goes by its index and does not look: a backup into a repository that has lost some would end well, and leave out
what the lost ones held.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from ..errors import StackError
from ..operation.durable_json import read_json, write_json
from .failures import DamagedError, LockedError
from .known_snapshots import known_file
from .restic import Restic

_FORMAT = 1
_DIGITS = 16  # of the 64 of a name: enough to tell them apart


class KnownPacks:
    """Names are kept in restic's cache directory of this host; without one, or of a remote one, nothing is known."""

    def __init__(self, restic: Restic):
        self._local = restic.local_path
        self._path = known_file(self._local, restic.cache_dir, "packs")

    def refuse_lost(self, check: Callable[[], list[str]]) -> None:
        """Raise StackError where files are gone and restic misses them; another host may have pruned rightly.

        Costs a listing of the directory, and check, which is the repository's, only where one is gone. Others at work
        in the repository keep that out; the next run asks again.
        """
        lost = self.lost()
        if not lost:
            return
        try:
            problems = check()
        except LockedError:
            return
        except DamagedError:  # it is what restic needed for the check itself
            problems = ["it cannot be read"]
        if problems:
            more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            raise StackError(
                f"The repository {self._local} has lost data since the last backup ({lost[0]}…{more}; restic says: "
                f"{problems[0].rstrip('.')}), and a new snapshot would lack it, too: bring the file back, or move the "
                "repository away and back up into a new one; what is whole in the old one can be restored from there."
            )
        self.keep_anew()

    def lost(self) -> list[str]:
        """The beginnings of the names of those that are gone since keep()."""
        if self._path is None:
            return []
        with suppress(OSError, StackError, LookupError, TypeError):
            found = read_json(self._path)
            if found and found["format"] == _FORMAT:
                return sorted(set(found["packs"]) - set(self._present()))
        return []

    def keep(self) -> None:
        """Remember those that are there now, unless one is gone: that is still to be asked about."""
        if not self.lost():
            self.keep_anew()

    def keep_anew(self) -> None:
        """Remember those that are there now, as what is gone was not needed any more.

        What cannot be written only costs the knowledge.
        """
        if self._path is None:
            return
        with suppress(OSError, StackError):
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            write_json(self._path, {"format": _FORMAT, "packs": sorted(self._present())}, durable=False)

    def _present(self) -> Iterator[str]:
        data = os.path.join(str(self._local), "data")
        for directory in os.listdir(data):
            with suppress(NotADirectoryError):
                yield from (name[:_DIGITS] for name in os.listdir(os.path.join(data, directory)))
