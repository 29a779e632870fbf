# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory tree and its copy: made while the tree lives, made exact while it is frozen.

The rule: an entry may be skipped only if its inode, size, mtime and ctime are those of when it was last read, AND both
times are older (2 s) than the start of a flush that was complete before it was read. A store through a shared mmap to a
page that is dirty already moves no time; the flush makes pages clean, so that any later store moves them. A live pass
flushes each file that it reads where the copy is on the same file system, which would else be written out as well.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import StackError
from ..filesystem import MountTable, real_path
from ..sizes import measure
from . import index
from .durable import EACH, KNOWN, Flush
from .extents import TELLING
from .index import Directory
from .passing import Pass, PassReport, Rules, mounted
from .tree import Place, differences, open_directory, opened, remove, shown

__all__ = ["Mirror", "PassReport", "needed"]

_MEASURE_S = 600.0


class Mirror:
    """source is copied to target (made if it is missing); index_file keeps what is known from one run to the next.

    clone shares blocks instead of copying (FICLONE); compare reads in the frozen pass also what the rule would skip, as
    does a source on a file system for which the rule is not known to hold. excluded are names in the source's own
    directory that are left out. on_bytes gets the bytes of each step of copying.
    """

    def __init__(
        self,
        source: str,
        target: str,
        index_file: str,
        *,
        clone: bool = False,
        compare: bool = False,
        excluded: Sequence[str] = (),
        on_bytes: Callable[[int], None] | None = None,
    ):
        self._mounts = MountTable.read()
        self.source = real_path(os.path.abspath(source), self._mounts)
        self.target = os.path.abspath(target)
        self._index_file = index_file
        self._trash = f"{index_file}.removed"
        filesystem = self._mounts.of(self.source).type
        self._clone, self._ranges = clone, filesystem in TELLING
        self._compare = compare or filesystem not in KNOWN
        self._each = filesystem in EACH
        self._excluded = frozenset(excluded)
        self._on_bytes = on_bytes
        self._root: Directory | None = None
        self._bond: index.Bond | None = None
        self._flush: Flush | None = None

    def is_warm(self) -> bool:
        """Whether there is a copy of an earlier run, so that a pass reads only what has changed since.

        Also where nothing of it is vouched for: a database may be all that is in a volume, and always be written.
        """
        self._prepare()
        return self._root is not None and (self._root.is_known() or self._root.has_read())

    def flush(self) -> None:
        """Load the index, look through the copy, and write all dirty pages out: before a freeze that no pass precedes.

        What had just changed when it was read the last time is compared.

        Raises StackError for a source that is no directory or has something mounted inside.
        """
        self._prepare()
        self._flush = Flush(self.source)
        self._pass(frozen=False, budget=None, settle=True)

    def live_pass(self) -> PassReport:
        """Flush, then copy what may have changed while others write; what vanishes or changes is left to later.

        Raises StackError naming a file that cannot be read or written for another reason.
        """
        self._prepare()
        self._flush = Flush(self.source, self._beside())
        self._pass(frozen=False, budget=None, settle=True)
        return self._pass(frozen=False, budget=None)

    def frozen_pass(self, budget: float | None = None) -> PassReport:
        """Make the copy exact, while nothing writes to the source. budget: seconds after which it gives up.

        Raises StackError naming a file that could not be read, or that changed while it was read.
        """
        self._prepare()
        return self._pass(frozen=True, budget=budget)

    def verify(self) -> list[str]:
        """The relative paths at which copy and source differ in any byte or metadata; only while nothing writes."""
        return differences(self.source, self.target, tuple(self._excluded))

    def save(self) -> None:
        """Write the index and free what was removed, outside of the freeze; true after a failed pass too."""
        if self._root is None or self._bond is None:
            return
        try:
            index.save(self._index_file, self._bond, self._root, time.time_ns())
            self._empty_trash()
        except OSError as error:
            raise StackError(f"{self._index_file} could not be written: {error.strerror}.") from None

    def _prepare(self) -> None:
        if self._root is not None:
            return
        for point in self._mounts.below(self.source):
            if os.path.relpath(point, self.source).split("/")[0] not in self._excluded:
                raise mounted(point)
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self._index_file)), mode=0o700, exist_ok=True)
            os.makedirs(self.target, mode=0o700, exist_ok=True)
            self._empty_trash()
            os.mkdir(self._trash, 0o700)
            self._bond = index.Bond.of(self.source, self.target)
            self._root = index.load(self._index_file, self._bond, self.target)
            # From here on the copy changes: until save(), no index may vouch for it, whatever happens to us.
            with suppress(FileNotFoundError):
                os.unlink(self._index_file)
        except OSError as error:
            raise self._cannot(error) from None

    def _beside(self) -> str:
        """A directory of ours on the source's file system; "" without one, or where no file is flushed by itself."""
        ours = os.path.dirname(os.path.abspath(self._index_file))
        near = self._bond is not None and os.stat(ours).st_dev == self._bond.device
        return ours if near and self._each else ""

    def _empty_trash(self) -> None:
        with (
            opened(open_directory(os.path.dirname(os.path.abspath(self._trash)))) as above,
            suppress(FileNotFoundError),
        ):
            remove(os.path.basename(self._trash), above)

    def _pass(self, frozen: bool, budget: float | None, settle: bool = False) -> PassReport:
        begun = time.monotonic()
        if self._root is None or self._bond is None:
            raise StackError(
                f"The copy of {self.source} is not open; this is a mistake in openmemory.stack, report it."
            )
        one = Pass(
            Rules(
                source=self.source,
                device=self._bond.device,
                clone=self._clone,
                ranges=self._ranges,
                compare=self._compare and frozen,
                frozen=frozen,
                flush=self._flush,
                deadline=float("inf") if budget is None else begun + budget,
                trash=self._trash if frozen else "",
                excluded=self._excluded,
                on_bytes=self._on_bytes,
            )
        )
        top = Place(self.target)
        collected = gc.isenabled()
        gc.disable()  # a pass makes no cycles, and looking for some takes a third of its time
        try:
            one.settle(top, self._root) if settle else one.run(top, self._root)
        except OSError as error:
            raise self._cannot(error) from None
        except RecursionError:
            raise StackError(f"{self.source} holds directories that are nested too deeply to be copied.") from None
        finally:
            top.close()
            if collected:
                gc.enable()
        one.report.seconds = time.monotonic() - begun
        return one.report

    def _cannot(self, error: OSError) -> StackError:
        where = "" if error.filename in (None, self.source) else f" ({shown(str(error.filename))})"
        return StackError(f"{shown(self.source)} could not be copied to {shown(self.target)}: {error.strerror}{where}.")


def needed(source: str) -> tuple[int, int]:
    """(allocated bytes, apparent bytes) of the tree: what its copy takes on disk, and would without holes."""
    size = measure(source, time.monotonic() + _MEASURE_S)
    return size.allocated_bytes, size.bytes
