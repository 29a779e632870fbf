# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small file systems that a test really fills, and the small stack of restores on such."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror, PassReport
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from loop_device import attach
from restore_stack import PROJECT, Stack

FILLER = ".openmemory-stack-20000101t000000-000000"  # in the root of a volume this is none of its data
BULK = 3 << 20  # bytes in each volume that is fetched into a small disk
KEEPS = {"lock", "last.json", "kept.json", "manifests", "staging", FILLER}  # in the state directory, between runs
BY_CHANCE = re.compile(
    r"(data/[0-9a-f]{2}/)?[0-9a-f]{64}(-tmp-[0-9]+)?|[0-9a-f]{2}/tmp-[0-9]+|<index/[0-9a-f]+>"  # restic's files
    r"|[0-9]{8}t[0-9]{6}-[0-9a-f]{6}|\b[0-9a-f]{8}\b"  # operations and snapshots
)
Hook = tuple[str, str]  # "journal" or "progress", and the phase; or "window"


class Disk:
    """An ext4 of its own in memory; nothing else is on it at first."""

    def __init__(self, place: Path, megabytes: int):
        self.place = place
        image = Path("/dev/shm") / f"{PROJECT}-{place.name}.image"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal", image], check=True)
        device = attach(image)
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", device, place], check=True)
        subprocess.run(["losetup", "--detach", device], check=True)  # as soon as nothing is mounted from it
        image.unlink()
        (place / "lost+found").rmdir()

    def fill(self, leave: int = 0) -> None:
        """Take all of it, but for so many bytes."""
        (self.place / FILLER).mkdir(exist_ok=True)
        for step in (1 << 20, 1 << 16, 4096, 4096, 4096):  # another file also takes what the first cannot
            with suppress(OSError), tempfile.NamedTemporaryFile(dir=self.place / FILLER, delete=False) as file:
                while self._free() >= leave + step:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)

    def empty(self) -> None:
        shutil.rmtree(self.place / FILLER, ignore_errors=True)

    def _free(self) -> int:
        figures = os.statvfs(self.place)
        return figures.f_bavail * figures.f_frsize


class SmallStack(Stack):
    """The stack with each of its directories on a small disk of its own."""

    def __init__(self, directory: Path):
        super().__init__(directory)
        self.disks: dict[str, Disk] = {}

    @property
    def repository(self) -> Path:
        return self.directory / "repository" / "own"  # a directory that can vanish, as its disk's root cannot

    def make(self) -> None:
        self.disks["place"] = Disk(self.directory, 32)  # the volume place is a directory on it
        for name, megabytes in (("state", 400), ("repository", 400), ("staging", 400)):
            self.disks[name] = Disk(self.directory / name, megabytes)
        self.disks["cache"] = Disk(self.state / "cache", 64)  # or restic would free some of the state's disk again
        super().make()

    def mount(self) -> None:
        self.disks["disk"] = Disk(self.root("disk"), 32)

    def bulk(self, seed: int = 0) -> None:
        """Data that does not fit into what is left of a disk; the same for the same seed."""
        for name in ("disk", "place"):
            (self.root(name) / "bulk").write_bytes(random.Random(f"{name} {seed}").randbytes(BULK))

    def left(self) -> list[str]:
        return [path for path in super().left() if Path(path).name != FILLER]

    def clean(self) -> None:
        super().clean()
        for point in [*reversed(MountTable.read().below(str(self.directory))), str(self.directory)]:
            if MountTable.read().is_point(point):
                subprocess.run(["umount", point], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def assert_untouched(self, live: dict[str, Any]) -> None:
        """All as before: data, containers, nothing beside the volumes but what is listed, nothing in the state."""
        now = self.trees()
        wrong = [
            f"{key}/{name}"
            for key in live
            for name in {*live[key], *now[key]}
            if live[key].get(name) != now[key].get(name)
        ]
        assert not wrong, wrong
        assert self.running() == [f"{PROJECT}-app", f"{PROJECT}-store"]
        assert sorted(self.left()) == sorted(entry.path for entry in kept.load(self.places))
        assert Journal.load(self.places) is None
        found = {path.name for path in Path(self.places.state).iterdir() if path.is_file() or any(path.iterdir())}
        assert found <= KEEPS, found

    def assert_restores(self, wanted: dict[str, Any], **asked: Any) -> None:
        """The next good run does all of it."""
        self.restore(**asked)
        self.assert_untouched(wanted)


def sentence(work: Callable[[], object], *words: str) -> str:
    """The one sentence that work ends in, with these words; what is named by chance is made alike."""
    with pytest.raises(StackError) as raised:
        work()
    said = str(raised.value)
    for word in words:
        assert word in said, said
    for talk in ("\n", "Traceback", "Fatal:", "[Errno"):
        assert talk not in said, said
    assert said.endswith("."), said
    return BY_CHANCE.sub("ID", said)


@contextmanager
def happening(hook: Hook, act: Callable[[], object]) -> Iterator[Progress]:
    """Meanwhile a phase begins with act: right before the journal has it, or when the progress tells it; or the copy
    does while all is frozen.
    """
    kind, phase = hook

    def listen(told: dict[str, Any]) -> None:
        if kind == "progress" and told["phase"] == phase:
            act()

    def note(journal: Journal, values: dict[str, Any]) -> None:
        if kind == "journal" and phase in (values.get("phase"), (values.get("restore") or {}).get("stage")):
            act()
        notes(journal, values)

    def copy(mirror: Mirror, budget: float | None = None) -> PassReport:
        if kind == "window":
            act()
        return frozen_pass(mirror, budget)

    notes, frozen_pass = Journal.notes, Mirror.frozen_pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "notes", note)
        patch.setattr(Mirror, "frozen_pass", copy)
        yield Progress(listener=listen)


def on_small_disks(image: None) -> Iterator[tuple[SmallStack, dict[str, Any]]]:
    """For a fixture "made": the stack with a snapshot, in which a WAL waits beside the database, and its trees then."""
    stack = SmallStack(Path("/var/tmp") / PROJECT)
    stack.clean()
    stack.directory.mkdir()
    stack.make()
    stack.bulk()
    with closing(sqlite3.connect(stack.root("db") / "openmemory.db", isolation_level=None)) as client:
        client.execute("PRAGMA journal_mode=wal")
        client.execute("INSERT INTO memories VALUES ('2', 'in the WAL')")
        stack.snapshot, trees = stack.backup(), stack.trees()
    yield stack, trees
    stack.clean()


@pytest.fixture
def small(stack: SmallStack) -> Iterator[SmallStack]:
    """The stack with other data than in its snapshot; its disks have room again afterwards."""
    yield stack
    for disk in stack.disks.values():
        disk.empty()
