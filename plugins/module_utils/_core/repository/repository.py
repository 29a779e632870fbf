# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The repository of a stack's snapshots: restic's, with what a stack asks of it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import StackError
from .choosing import choose, moment_of
from .failures import LockedError, NoRepositoryError
from .known_packs import KnownPacks
from .known_snapshots import KnownSnapshots
from .manifest import Manifest
from .restic import EXIT_INCOMPLETE, Output, Restic, as_message
from .restoring import Restoring
from .snapshot import OURS, Snapshot, parse_time

_SHOWN_FILES = 5
_UNREADABLE = re.compile(r"(?:could not load snapshot |failed to load snapshot )(\w+)")
_NOT_REMOVED = re.compile(r"unable to remove \W*snapshot|Remove\(<snapshot/\w+>\) failed")


@dataclass(frozen=True)
class Commit:
    """What a commit did: snapshot_id (64 hex digits), bytes that restic looked at and bytes that it added (compressed
    where restic tells, 0.17 and later), files in all, those that the snapshot before did not have so, seconds."""

    snapshot_id: str
    bytes_read: int
    bytes_stored: int
    files: int
    files_changed: int
    seconds: float


class Repository(Restoring):
    """Each method that asks restic costs 0.5 to 0.8 s for the key alone (scrypt), so few calls are made."""

    def __init__(self, restic: Restic):
        self.restic = restic
        self.unreadable: list[str] = []  # ids of snapshots that the last snapshots() found damaged

    def exists(self) -> bool:
        """Whether there is a repository. A local one is only looked at; StackError where a remote one cannot be
        asked, or a local one has lost all data of its snapshots: restic goes by its index, and would end well.
        """
        local = self.restic.local_path
        if local:
            data = os.path.join(local, "data")
            if _entries(os.path.join(local, "snapshots")) and not any(
                _entries(os.path.join(data, name)) for name in _entries(data)
            ):
                raise StackError(
                    f"The repository {local} has snapshots, but {data} has none of their data: mount or bring back "
                    "what was there, or give another repository."
                )
            return os.path.isfile(os.path.join(local, "config"))
        try:
            self.open()
        except NoRepositoryError:
            return False
        return True

    def open(self) -> None:
        """Whether the password opens the repository: StackError with the reason where not."""
        self.restic.call("cat", "config", "--no-lock", doing="open the repository")

    def identity(self) -> str:
        """The repository's own id, which it keeps wherever it is moved to; StackError as for open()."""
        said = self.restic.call("cat", "config", "--no-lock", doing="open the repository")
        return str(said.json()["id"])

    def init(self) -> None:
        """Make it. A directory that holds something else is refused. One to copy into (Restic.source) cuts files as
        its source does, so that what is copied is found again there.
        """
        local = self.restic.local_path
        if local and os.path.isdir(local) and os.listdir(local):
            raise StackError(
                f"No repository is made in {local}: the directory is not empty. Give an empty or a new directory, or "
                "the right one of an existing repository."
            )
        if local:
            try:
                os.makedirs(local, mode=0o700, exist_ok=True)
            except OSError as error:
                raise StackError(f"The repository's directory {local} cannot be made ({error.strerror}).") from error
        like = ["--copy-chunker-params"] if self.restic.source else []
        self.restic.call("init", *like, doing="make a repository")

    def snapshots(self, project: str | None = None, tags: Sequence[str] = ()) -> list[Snapshot]:
        """Our snapshots, oldest first: of one project or of all, with all of these tags."""
        said = self.restic.call("snapshots", "--json", "--no-lock", doing="read the list of snapshots")
        self.unreadable = [match.group(1)[:8] for line in said.errors for match in [_UNREADABLE.search(line)] if match]
        told = said.json() or []
        KnownSnapshots(self.restic).keep(told)
        return _ours(told, [*([f"project={project}"] if project else []), *tags])

    def resolve(self, text: str, project: str | None, ask: bool = True, volumes: Sequence[str] = ()) -> Snapshot:
        """The snapshot meant: a full or short id, "latest", "tag:NAME", or a time ("2026-11-25 02:00", this host's time
        zone unless it names one: the newest not later). Only an id finds a safety snapshot. StackError lists what
        there is.

        ask: also where this host knows the list, so that a wrong password is told at once. volumes: which are wanted of
        it, as in the project or as Compose names them; () for all.
        """
        known = None if ask else KnownSnapshots(self.restic).all(exact=moment_of(text.strip()) is not None)
        same = text, project, self.restic.shown, socket.gethostname(), volumes
        if known is not None:
            with suppress(StackError):  # which would show times that are not those of the list
                return choose(_ours(known, []), *same)
        snapshots = self.snapshots()
        try:
            return choose(snapshots, *same)
        except StackError as error:
            if not self.unreadable:
                raise
            raise StackError(f"{error} Damaged there, and so not listed: {', '.join(self.unreadable)}.") from error

    def commit(
        self,
        staging: str,
        names: Sequence[str],
        tags: Sequence[str],
        parent: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        gate: str | None = None,
        on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
        instant: float | None = None,
    ) -> Commit:
        """Store names (relative to the directory staging) as a snapshot with tags.

        parent: id of the snapshot to compare with; None lets restic take its newest of the same host and paths.
        progress gets bytes done and in all. gate: a pipe that restic waits for, see CommitAhead; on_start gets restic.
        instant: what the snapshot says that its time is (seconds since 1970), else when restic began.
        A file that could not be read is a StackError, and that snapshot is forgotten again.
        """
        for name in names:
            if not os.path.lexists(os.path.join(staging, name)):  # restic would go on without it, and end well
                raise StackError(f"{staging}/{name} is missing: nothing was stored.")
        for tag in tags:
            if "," in tag or not tag:
                raise StackError(f"tags has {tag!r}: a tag may not be empty nor hold a comma.")
        arguments = ["backup", "--json"]
        for tag in tags:
            arguments += ["--tag", tag]
        if parent:
            arguments += ["--parent", parent]
        if gate:
            arguments += ["--exclude-file", gate]
        begun = datetime.now(timezone.utc).astimezone()
        if instant is not None:
            begun = datetime.fromtimestamp(instant, timezone.utc)
            arguments += ["--time", f"{begun:%Y-%m-%d %H:%M:%S.%f}"]
        summary: dict[str, Any] = {}

        def hear(line: str) -> None:
            message = as_message(line) or {}
            if message.get("message_type") == "summary":
                summary.update(message)
            elif message.get("message_type") == "status" and progress:
                progress(message.get("bytes_done", 0), message.get("total_bytes", 0))

        before = self._identity()
        output = self.restic.call(
            *arguments,
            "--",
            *names,
            doing="store the snapshot",
            cwd=staging,
            allowed=(0, EXIT_INCOMPLETE),
            on_line=hear,
            on_start=on_start,
        )
        short = str(summary.get("snapshot_id", ""))
        if output.code == EXIT_INCOMPLETE:
            raise self._incomplete(output, short)
        if not short:
            raise StackError(f"restic stored no snapshot in {self.restic.shown} and did not say why: back up again.")
        if self._identity() != before:  # newer restic makes missing directories anew, and ends well in the ruins
            raise StackError(
                f"The repository {self.restic.shown} vanished while the snapshot was stored: make it available again, "
                "and back up again."
            )
        full = self._full_id(short)
        made = {"id": full, "time": begun.isoformat(), "tags": list(tags), "hostname": socket.gethostname()}
        KnownSnapshots(self.restic).add({**made, "paths": [os.path.join(staging, name) for name in names]})
        return Commit(
            snapshot_id=full,
            bytes_read=summary.get("total_bytes_processed", 0),
            bytes_stored=summary.get("data_added_packed", summary.get("data_added", 0)),
            files=summary.get("total_files_processed", 0),
            files_changed=summary.get("files_new", 0) + summary.get("files_changed", 0),
            seconds=summary.get("total_duration", 0.0),
        )

    def _identity(self) -> tuple[int, int] | None:
        """What tells a local repository from another, or from none, at the same place."""
        local = self.restic.local_path
        with suppress(OSError):
            if local:
                about = os.stat(os.path.join(local, "config"))
                return about.st_dev, about.st_ino
        return None

    def _incomplete(self, output: Output, snapshot_id: str) -> StackError:
        items = sorted({str(each["item"]) for each in output.messages() if each.get("message_type") == "error"})
        note = ""
        if snapshot_id:
            try:
                self.forget([snapshot_id])
            except StackError as error:
                note = f" The incomplete snapshot {snapshot_id} could not be removed: {error}"
        named = ", ".join(items[:_SHOWN_FILES]) or "restic did not say which"
        more = f" and {len(items) - _SHOWN_FILES} more" if len(items) > _SHOWN_FILES else ""
        return StackError(f"No snapshot was made: files could not be read ({named}{more}).{note}")

    def _full_id(self, snapshot_id: str) -> str:
        """restic 0.14 names a new snapshot by 8 digits. A local repository's own list tells the rest without a call."""
        if len(snapshot_id) == 64:
            return snapshot_id
        local = self.restic.local_path
        if local:
            with suppress(OSError):
                found = [name for name in os.listdir(os.path.join(local, "snapshots")) if name.startswith(snapshot_id)]
                if len(found) == 1:
                    return found[0]
        said = self.restic.call("snapshots", "--json", "--no-lock", snapshot_id, doing="read the new snapshot").json()
        return str(said[0]["id"])

    def dump(self, snapshot_id: str, path: str) -> bytes:
        """The contents of one small file of a snapshot."""
        said = self.restic.call(
            "dump", "--no-lock", snapshot_id, path, doing=f"read {path} of the snapshot {snapshot_id[:8]}"
        )
        return "\n".join([*said.lines, ""]).encode("utf-8", "surrogateescape")

    def manifest(self, snapshot_id: str) -> dict[str, Any]:
        """The manifest, validated; StackError where it is damaged or cut off."""
        return Manifest.from_json(self.manifest_text(snapshot_id), snapshot_id).to_dict()

    def manifest_text(self, snapshot_id: str) -> str:
        """The manifest as it was written, also what only a newer version understands."""
        return self.dump(snapshot_id, "/manifest.json").decode("utf-8", "replace")

    def forget(self, ids: Sequence[str], prune: bool = False) -> None:
        """Remove snapshots; prune also removes the data that nothing needs any more (takes long, locks everybody
        out).
        """
        if ids:
            packs = KnownPacks(self.restic)
            are_whole = prune and not packs.lost()
            extra = ["--prune"] if prune else []
            output = self.restic.call("forget", *extra, *ids, doing="remove snapshots")
            if any(_NOT_REMOVED.search(line) for line in output.errors):  # newer restic ends well all the same
                raise self.restic.failure(output, "remove snapshots")
            if are_whole:  # what is gone now was not needed any more
                packs.keep_anew()

    def check(self, read_data: bool | str = False) -> list[str]:
        """What is wrong in the repository, a line each; [] where nothing is. read_data: True reads all data again, a
        text such as "10%" or "1/5" that part; without it only that everything is there."""
        extra = []
        if read_data:
            extra = ["--read-data"] if read_data is True else [f"--read-data-subset={read_data}"]
        output = self.restic.call("check", *extra, doing="check the repository", allowed=(0, 1))
        if output.code == 0:
            return []
        problems = [line for line in output.errors if _is_problem(line)]
        problems = [line for line in problems if not line.startswith("Fatal:")] or problems
        if not problems:
            raise self.restic.failure(output, "check the repository")
        return problems

    def stats(self) -> dict[str, Any]:
        """size_bytes (on disk where local, of the stored data where remote) and snapshots, all projects."""
        local = self.restic.local_path
        if local:
            return {"size_bytes": _size_of(local), "snapshots": len(_entries(os.path.join(local, "snapshots")))}
        said = self.restic.call("stats", "--json", "--no-lock", "--mode", "raw-data", doing="ask for the size").json()
        return {"size_bytes": said["total_size"], "snapshots": said.get("snapshots_count", 0)}

    def unlock_stale(self) -> bool:
        """Remove locks of dead processes of this host (restic's own unlock decides); whether there was one.

        LockedError names host, process and since when of one that lives.
        """
        before = self._locks()
        if not before:
            return False
        self.restic.call("unlock", doing="remove locks of dead processes", unlock=False)
        left = self._locks()
        for lock_id in left:
            found = self.restic.call("cat", "lock", "--no-lock", lock_id, doing="read a lock", unlock=False).json()
            since = parse_time(found["time"]).astimezone(timezone.utc)
            raise LockedError(
                f"The repository {self.restic.shown} is locked by the living process {found['pid']} on the host "
                f"{found['hostname']} since {since:%Y-%m-%d %H:%M:%S} UTC: wait until it has ended."
            )
        return True

    def _locks(self) -> list[str]:
        said = self.restic.call("list", "locks", "--no-lock", doing="read the locks", unlock=False)
        return [line.strip() for line in said.lines if len(line.strip()) == 64]


def _ours(told: Sequence[Mapping[str, Any]], tags: Sequence[str]) -> list[Snapshot]:
    wanted = {OURS, *tags}
    found = [Snapshot.of(each) for each in told if wanted <= set(each.get("tags") or ())]
    return sorted(found, key=lambda each: each.time)


def _is_problem(line: str) -> bool:
    message = as_message(line)
    if message is not None:
        return message.get("message_type") == "error"
    told = (
        "using temporary cache",
        "create exclusive lock",
        "load indexes",
        "check ",
        "read ",
        "Fatal: repository contains",
    )
    advice = ("The repository ", "Damaged pack files can", "restic repair", "[")
    return bool(line.strip()) and not line.startswith((*told, *advice)) and "returned error, retrying" not in line


def _entries(directory: str) -> list[str]:
    with suppress(OSError):
        return os.listdir(directory)
    return []


def _size_of(directory: str) -> int:
    total = 0
    for place, _names, files in os.walk(directory):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
