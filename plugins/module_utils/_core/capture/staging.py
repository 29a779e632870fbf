# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Staging: the copy that restic reads, kept from one backup to the next so that the next pre-copy is a delta.

The live tree is never what restic reads: it skips by timestamps, which a store through a shared mmap does not move.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import StackError
from ..filesystem import covers, existing_ancestor
from ..sizes import Size, measure
from .durable import KNOWN, can_clone

MANIFEST = "manifest.json"
LISTING = "listing.jsonl"
VOLUMES = "volumes"
EXPORT = "export"
_INDEX = ".index"
_RESTING = ".resting"
_OURS = ".openmemory-stack"
_MEASURE_SECONDS = 600.0


class Staging:
    """A staging directory, 0700. Everything in it is ours and can be made anew."""

    def __init__(self, root: str):
        self.root = root

    @property
    def manifest(self) -> str:
        return os.path.join(self.root, MANIFEST)

    @property
    def listing(self) -> str:
        return os.path.join(self.root, LISTING)

    @property
    def export(self) -> str:
        return os.path.join(self.root, EXPORT)

    @property
    def volumes(self) -> str:
        return os.path.join(self.root, VOLUMES)

    def volume(self, key: str) -> str:
        """The directory that becomes the volume's tree."""
        return os.path.join(self.volumes, key)

    @property
    def _resting(self) -> str:
        """Copies of volumes that this run does not ask for; restic gets all that is among the volumes."""
        return os.path.join(self.root, _RESTING)

    def index(self, key: str) -> str:
        return os.path.join(self.root, _INDEX, f"{key}.json")

    def targets(self) -> list[str]:
        """What goes into a snapshot, relative to root."""
        found = [MANIFEST, LISTING, VOLUMES, EXPORT]
        return [name for name in found if os.path.lexists(os.path.join(self.root, name))]

    def prepare(self, keys: Sequence[str], whole: bool = True) -> None:
        """Make the directories, with only these volumes' copies among the volumes.

        whole: these are all that the project has, so other copies are removed; else they rest beside until their turn.
        """
        for path in (self.root, self.volumes, os.path.join(self.root, _INDEX), self._resting):
            os.makedirs(path, mode=0o700, exist_ok=True)
            _require_ours(path)
        for name in os.listdir(self._resting):
            if name in keys and not os.path.lexists(self.volume(name)):
                os.rename(os.path.join(self._resting, name), self.volume(name))
            elif name in keys:
                self._remove_resting(name)
            elif whole:
                self.forget(name)
        for name in os.listdir(self.volumes):
            if name in keys:
                continue
            if whole:
                self.forget(name)
            else:
                self._remove_resting(name)
                os.rename(self.volume(name), os.path.join(self._resting, name))
        self.announce()
        shutil.rmtree(self.export, ignore_errors=True)

    def announce(self) -> None:
        """Empty what tells of the copy, or make it: whoever looks for the names first finds them, and nothing old."""
        _require_ours(self.root)
        for path in (self.manifest, self.listing):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))

    def forget(self, key: str) -> None:
        """Remove a volume's copy; its index first, so that it never vouches for what is gone."""
        if os.path.lexists(self.index(key)):
            os.unlink(self.index(key))
        self._remove_resting(key)
        if os.path.lexists(self.volume(key)):
            shutil.rmtree(self.volume(key))

    def size(self, key: str) -> Size:
        """What the copy of a volume holds already."""
        try:
            return measure(self.volume(key), time.monotonic() + _MEASURE_SECONDS)
        except FileNotFoundError:
            return Size()

    def discard(self, keys: Sequence[str]) -> None:
        """Remove the copies of these volumes, and the whole directory unless others rest in it."""
        if os.path.isdir(self._resting) and os.listdir(self._resting):
            for key in keys:
                self.forget(key)
        elif os.path.lexists(self.root):
            shutil.rmtree(self.root)

    def _remove_resting(self, key: str) -> None:
        if os.path.lexists(os.path.join(self._resting, key)):
            shutil.rmtree(os.path.join(self._resting, key))


def _require_ours(path: str) -> None:
    about = os.lstat(path)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o022:
        raise StackError(f"staging_dir {path} is not a directory that only we can write to; name another one.")


def staging_root(
    asked: str | None,
    default: str,
    project: str,
    paths: Iterable[str],
    shares: Callable[[str, str], bool] = can_clone,
) -> str:
    """Where staging lies: asked, or default, or beside the volumes where only that lets them share blocks.

    default is used unless all of paths (the volumes' directories) lie on one other XFS or btrfs: then it is a hidden
    directory in their common parent. shares tells whether two directories can share blocks. Raises StackError for one
    that lies inside a volume.
    """
    volumes = list(paths)
    for path in volumes:
        if asked and covers(path, os.path.realpath(asked)):
            raise StackError(f"staging_dir {asked} lies inside the volume at {path}; name a directory outside of it.")
    if asked:
        return os.path.join(asked, project, "staging")
    parent = os.path.commonpath(volumes) if volumes else "/"
    if parent in volumes:
        parent = os.path.dirname(parent)
    devices = {os.stat(path).st_dev for path in (*volumes, parent)}
    if len(devices) != 1 or os.stat(existing_ancestor(default)).st_dev in devices:
        return default
    beside = os.path.join(parent, _OURS, project, "staging")
    try:
        return beside if shares(volumes[0], parent) else default
    except OSError:
        return default


def rule_holds(filesystem: str) -> bool:
    """Whether the rule of capture.mirror is known to hold on this type of file system."""
    return filesystem in KNOWN
