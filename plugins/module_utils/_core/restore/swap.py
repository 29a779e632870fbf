# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The swap by rename: live data goes aside, restored data takes its place, and every step can be taken back.

What has happened is read from the disk, never from memory: each rename either was done or was not, so that a run that
finds what a dead one left can go back from any point, as often as it likes.
"""

from __future__ import annotations

import base64
import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import StackError
from ..hidden import is_hidden
from ..operation.durable_json import sync_directory

_LOST = "lost+found"


@dataclass(frozen=True)
class Root:
    """Owner, mode, extended attributes (values in base64; ACLs are among them) and mtime in ns of a directory."""

    uid: int
    gid: int
    mode: int
    xattrs: Mapping[str, str]
    mtime_ns: int

    @classmethod
    def read(cls, path: str) -> Root:
        about = os.stat(path)
        xattrs = {}
        for name in os.listxattr(path):
            with suppress(OSError):  # removed meanwhile, or not ours to read
                xattrs[name] = base64.b64encode(os.getxattr(path, name)).decode()
        return cls(about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode), xattrs, about.st_mtime_ns)

    def apply(self, path: str) -> None:
        """Make the directory so; raises OSError."""
        os.chown(path, self.uid, self.gid)
        os.chmod(path, self.mode)  # after chown, which clears the set-id bits
        for name in os.listxattr(path):
            if name not in self.xattrs:
                os.removexattr(path, name)
        for name, value in self.xattrs.items():
            os.setxattr(path, name, base64.b64decode(value))
        about = os.stat(path)
        os.utime(path, ns=(about.st_atime_ns, self.mtime_ns))


@dataclass(frozen=True)
class Move:
    """One name: live goes to old (if there was one, had_live), then new goes to live (if there is one, has_new)."""

    live: str
    new: str
    old: str
    had_live: bool
    has_new: bool


@dataclass(frozen=True)
class Swap:
    """The moves of one volume. beside is our directory on the same file system that holds new and old data.

    root is the volume's directory. before and after are set where that directory itself stays, as a mount point must.
    created says that this operation made the Docker volume.
    """

    volume: str
    key: str
    root: str
    beside: str
    moves: Sequence[Move] = ()
    before: Root | None = None
    after: Root | None = None
    created: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Swap:
        """From as_json; raises StackError for what is no swap."""
        try:
            roots = {name: Root(**found[name]) if found[name] else None for name in ("before", "after")}
            return cls(**{**found, "moves": [Move(**move) for move in found["moves"]], **roots})
        except (KeyError, TypeError) as error:
            raise StackError(f"The record of a restore is damaged ({error}); look at it before you go on.") from error

    @property
    def keeps_old(self) -> bool:
        """Whether old data is (or will be) kept."""
        return any(move.had_live for move in self.moves)

    def forward(self) -> None:
        """Swap the new data in. Raises StackError at the first step that fails; back() undoes those before it."""
        try:
            self._refuse_links()
            for move in self.moves:
                if move.had_live:
                    _rename(move.live, move.old)
            for move in self.moves:
                if move.has_new:
                    _rename(move.new, move.live)
            if self.after is not None:
                self.after.apply(self.root)
            self._sync()
        except OSError as error:
            raise StackError(
                f"The data of the volume {self.volume} could not be swapped in ({error.filename}: {error.strerror}); "
                "what was moved goes back."
            ) from error

    def lived(self) -> bool:
        """Whether new data has been live, so that clients may have written to it. Not to be asked after back()."""
        return any(move.has_new and not os.path.lexists(move.new) for move in self.moves)

    def turned(self) -> Swap:
        """After back(), what was taken out in the part of the old data, so that it can be kept and swapped in again."""
        moves = [
            Move(move.live, move.old, move.new, os.path.lexists(move.new), os.path.lexists(move.live))
            for move in self.moves
        ]
        if self.before is not None and moves:
            old, new = os.path.dirname(moves[0].new), os.path.dirname(moves[0].old)
            known = {move.old for move in moves}
            names = sorted(os.listdir(new)) if os.path.isdir(new) else []  # somebody may have removed it since
            paths = [(name, os.path.join(new, name)) for name in names]
            moves += [
                Move(os.path.join(self.root, name), os.path.join(old, name), path, True, False)
                for name, path in paths
                if path not in known
            ]
        return replace(self, moves=moves, before=self.after, after=self.before, created=False)

    def back(self) -> bool:
        """Bring the old data back from whatever point was reached; the new data is in beside again. Idempotent.

        What was made beside the new data since, as a journal of a database, goes with it.
        Returns whether anything had to be moved; raises StackError where a rename fails.
        """
        moved = False
        try:
            self._refuse_links()
            for path, place in self._made_since():  # first: only as long as new data is live is it known whose they are
                if self.lived():
                    _rename(path, place)
                else:
                    _set_aside(path, self.beside)
                moved = True
            for move in reversed(self.moves):
                moved = self._back(move) or moved
            if self.before is not None and os.path.isdir(self.root):
                self.before.apply(self.root)
            self._sync()
        except OSError as error:
            raise StackError(
                f"The old data of the volume {self.volume} could not be brought back ({error.filename}: "
                f"{error.strerror}); it is in {self.beside}, nothing of it is lost."
            ) from error
        return moved

    def _made_since(self) -> list[tuple[str, str]]:
        """(live, place in the new data) of names that the new data did not have; none once the old data is back."""
        out = [move for move in self.moves if move.had_live and os.path.lexists(move.old)]
        if not out and (any(move.had_live for move in self.moves) or not self.lived()):
            return []
        found = [
            (move.live, move.new)
            for move in self.moves
            if not move.has_new and os.path.lexists(move.live) and (not move.had_live or move in out)
        ]
        if self.before is not None:  # the directory itself has stayed
            known = {os.path.basename(move.live) for move in self.moves}
            new = os.path.dirname(self.moves[0].new)
            found += [
                (os.path.join(self.root, name), os.path.join(new, name))
                for name in sorted(os.listdir(self.root))
                if name not in known and name != _LOST and not is_hidden(name)
            ]
        return found

    def _back(self, move: Move) -> bool:
        moved = False
        came_in = move.has_new and not os.path.lexists(move.new)
        went_out = move.had_live and os.path.lexists(move.old)
        if came_in and os.path.lexists(move.live) and (went_out or not move.had_live):
            _rename(move.live, move.new)
            moved = True
        elif went_out and os.path.lexists(move.live):
            _set_aside(move.live, self.beside)  # neither old nor new: somebody made it in between
        if went_out:
            _rename(move.old, move.live)
            moved = True
        return moved

    def _refuse_links(self) -> None:
        """A link that a container put in place of a directory would lead a rename out of the volume.

        Ours lie in the volume, too, where that is a mount point.
        """
        for path, top in ((path, top) for move in self.moves for path, top in self._paths(move)):
            above = os.path.dirname(path)
            while len(above) > len(top):
                if os.path.islink(above):
                    raise OSError(errno.ELOOP, "is a link by now", above)
                above = os.path.dirname(above)

    def _paths(self, move: Move) -> list[tuple[str, str]]:
        """The paths of a move, each with the directory that no container can replace."""
        safe = self.root if self.before is not None else os.path.dirname(self.beside)
        return [(move.live, self.root), (move.new, safe), (move.old, safe)]

    def _sync(self) -> None:
        """The renames are on disk when this returns."""
        places = {os.path.dirname(path) for move in self.moves for path in (move.live, move.new, move.old)}
        for path in sorted({*places, self.root} if self.after or self.before else places):
            if os.path.isdir(path):
                sync_directory(path)


def in_root_moves(root: str, new: str, old: str) -> list[Move]:
    """The moves of a directory that stays, name by name: all that is in it goes to old, all of new comes in.

    Names of ours stay where they are, and the file system's own in the root of a mount.
    """
    going = {name for name in os.listdir(root) if not is_hidden(name) and name != _LOST}
    coming = {name for name in os.listdir(new) if name != _LOST}
    return [
        Move(os.path.join(root, name), os.path.join(new, name), os.path.join(old, name), name in going, name in coming)
        for name in sorted(going | coming)
    ]


def _rename(source: str, target: str) -> None:
    """Rename that never replaces anything."""
    if os.path.lexists(target):
        raise FileExistsError(17, "is there already", target)
    os.rename(source, target)


def _set_aside(path: str, beside: str) -> None:
    with suppress(OSError):
        os.rmdir(path)  # an empty directory, such as the engine makes
        return
    number = 0
    while os.path.lexists(os.path.join(beside, f"stray-{number}")):
        number += 1
    _rename(path, os.path.join(beside, f"stray-{number}"))


@dataclass
class Record:
    """What a restore writes into the journal under "restore", so that undo() needs nothing else.

    stage: fetching, swapping, accepted, taken back. created are Docker volumes that it makes, directories those for
    volumes with a path; beside are our own directories, also of volumes that are not swapped yet; until is when the old
    data may go (seconds since 1970). state is the stack's state directory, where kept.json is. lived are the
    directories beside of the swaps, where new data of any of them was live when the way back began; what is in them is
    then kept for keep_seconds, at least a day.
    """

    id: str
    snapshot: str
    state: str
    stage: str = "fetching"
    swaps: list[Swap] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    until: float = 0.0
    lived: list[str] = field(default_factory=list)
    keep_seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "swaps": [swap.as_json() for swap in self.swaps]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Record:
        try:
            return cls(**{**found, "swaps": [Swap.from_json(swap) for swap in found["swaps"]]})
        except (KeyError, TypeError) as error:
            raise StackError(f"The record of a restore is damaged ({error}); look at it before you go on.") from error
