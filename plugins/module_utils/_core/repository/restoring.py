# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restoring out of a repository, beside the place where it shall be, then renamed there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress

from ..errors import StackError
from ..filesystem import MountTable
from .restic import Restic, as_message

_SPARSE_SINCE = (0, 15)
_PROGRESS_SINCE = (0, 17)
_GLOB = "\\*?["
Meanwhile = Callable[[str], AbstractContextManager[object]]


class Restoring:
    """The part of Repository that restores."""

    restic: Restic

    def restore(
        self,
        snapshot_id: str,
        path_in_snapshot: str,
        target: str,
        progress: Callable[[int, int], None] | None = None,
        verify: bool = False,
        total_bytes: int = 0,
    ) -> None:
        """What lies at path_in_snapshot ("/volumes/<key>", or a file or directory below) becomes target.

        target: an absolute path that is not there, or an empty directory. progress gets bytes done and in all
        (total_bytes where restic does not tell: before 0.17). verify: restic reads all back and compares. restic loses
        sockets, some metadata, and before 0.15 holes: repairing.repair() brings them back. StackError; nothing is left
        at target then.
        """
        self.restore_all(snapshot_id, {path_in_snapshot: target}, progress, verify, total_bytes)

    def restore_all(
        self,
        snapshot_id: str,
        targets: Mapping[str, str],
        progress: Callable[[int, int], None] | None = None,
        verify: bool = False,
        total_bytes: int = 0,
        meanwhile: Meanwhile = nullcontext,
    ) -> None:
        """Several paths {path in the snapshot: target} at once: one call of restic for each file system.

        meanwhile gets the directory into which restic restores (what a path becomes grows below it, under that path),
        and what it returns is entered for as long as restic works.
        """
        for path, target in targets.items():
            _check_target(target)
            if not path.startswith("/") or path == "/":
                raise StackError(f"{path} is no path inside a snapshot.")
        mounts = MountTable.read()
        groups: dict[str, dict[str, str]] = {}
        for path, target in targets.items():
            point = mounts.of(os.path.realpath(os.path.dirname(target))).point
            groups.setdefault(point, {})[path] = target
        done = 0
        for group in groups.values():
            done += self._restore_group(snapshot_id, group, progress, verify, total_bytes, done, meanwhile)

    def _restore_group(
        self,
        snapshot_id: str,
        targets: Mapping[str, str],
        progress: Callable[[int, int], None] | None,
        verify: bool,
        total: int,
        before: int,
        meanwhile: Meanwhile,
    ) -> int:
        version = self.restic.version()
        scratch = scratch_of(next(iter(targets.values())))
        remove_tree(scratch)
        arguments = ["restore", "--json", "--target", scratch]
        for path in targets:
            arguments += ["--include", as_pattern(path)]
        if version >= _SPARSE_SINCE:
            arguments.append("--sparse")
        if verify:
            arguments.append("--verify")
        reached = 0

        def tell(amount: int, of: int) -> None:
            nonlocal reached
            reached = max(reached, amount)
            if progress:
                progress(before + reached, total or of)

        def hear(line: str) -> None:
            message = as_message(line) or {}
            if message.get("message_type") in ("status", "summary"):
                tell(message.get("bytes_restored", 0), message.get("total_bytes", 0))

        def tick(pid: int) -> None:
            tell(_written_by(pid), total)

        try:
            os.mkdir(scratch, mode=0o700)
            with meanwhile(scratch):
                self.restic.call(
                    *arguments,
                    snapshot_id,
                    doing=f"restore from the snapshot {snapshot_id[:8]}",
                    on_line=hear,
                    on_tick=tick if version < _PROGRESS_SINCE else None,
                )
            for path, target in targets.items():
                found = scratch + path
                if not os.path.lexists(found):
                    raise StackError(f"The snapshot {snapshot_id[:8]} holds no {path}: see what it holds with list.")
                os.rename(found, target)
        except OSError as error:
            raise StackError(
                f"Restoring into {error.filename or scratch} failed ({error.strerror}); make room or repair the disk, "
                "then run it again."
            ) from error
        finally:
            remove_tree(scratch)
        return reached


def scratch_of(target: str) -> str:
    """The directory beside target that a restore into it uses meanwhile (left over only where the host died)."""
    place, name = os.path.split(target.rstrip("/"))
    return os.path.join(place, f".{name}.restoring")


def as_pattern(path: str) -> str:
    """The path as a pattern of restic that matches only itself and what is below."""
    return "".join("\\" + letter if letter in _GLOB else letter for letter in path)


def remove_tree(path: str) -> None:
    """Remove a directory of ours and all in it, if it is there."""
    if os.path.lexists(path):
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise StackError(f"{path} cannot be removed ({error.strerror}): remove it, then run it again.") from error


def _check_target(target: str) -> None:
    if not os.path.isabs(target):
        raise StackError(f"target {target} is no absolute path: give the whole path.")
    if not os.path.isdir(os.path.dirname(target.rstrip("/"))):
        raise StackError(f"The directory {os.path.dirname(target.rstrip('/'))} is missing: make it first.")
    if os.path.lexists(target) and (not os.path.isdir(target) or os.path.islink(target) or os.listdir(target)):
        raise StackError(f"target {target} is not empty: give a new or an empty directory.")


def _written_by(pid: int) -> int:
    """Bytes that a process wrote so far, as the kernel counts its write calls."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/io", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0
