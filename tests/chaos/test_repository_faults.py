# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults of a repository, really provoked, with the oldest restic that we take and a newer one: each ends in one
sentence that says what to do, leaves nothing half done, and never in a silent success."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.snapshots import snapshots_info
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.failures import LockedError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.manifest import Manifest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic

NAMES = ["manifest.json", "volumes"]
TAGS = ["openmemory-stack", "project=p"]
PASSWORD = "right"
DAMAGED = "is damaged: data in it is not what was written"
MISSING = "is damaged or vanished meanwhile: a file of it is missing"


@dataclass
class Case:
    """A repository with one snapshot, in a directory of the test's own."""

    home: Path
    command: str
    snapshot: str = ""

    @property
    def place(self) -> Path:
        return self.home / "repository"

    @property
    def staging(self) -> Path:
        return self.home / "staging"

    def repository(self, place: str | None = None, password: str = PASSWORD, patience_s: float = 30) -> Repository:
        file = self.home / f"password-{password}"
        file.touch(0o600)
        file.write_text(password)
        cache = str(self.home / "cache")
        return Repository(
            Restic(place or str(self.place), str(file), cache_dir=cache, command=self.command, patience_s=patience_s)
        )

    def commit(self, repository: Repository | None = None) -> str:
        return str((repository or self.repository()).commit(str(self.staging), NAMES, TAGS).snapshot_id)

    def restore(self, target: Path | None = None) -> None:
        self.repository().restore(self.snapshot, "/volumes/a", str(target or self.home / "target"))

    def packs(self) -> list[Path]:
        """The smallest first: it holds the trees."""
        found = [path for path in (self.place / "data").rglob("*") if len(path.name) == 64]
        return sorted(found, key=lambda path: path.stat().st_size)

    def locks(self) -> list[Path]:
        return [path for path in (self.place / "locks").iterdir() if len(path.name) == 64]  # others are being written

    def hold(self) -> subprocess.Popen[bytes]:
        """A backup that goes on until it is killed, and holds a lock."""
        own = {"RESTIC_REPOSITORY": str(self.place), "RESTIC_PASSWORD_FILE": str(self.home / f"password-{PASSWORD}")}
        process = subprocess.Popen(
            [self.command, "backup", "--no-cache", "--stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **own},
        )
        deadline = time.monotonic() + 30
        while not self.locks():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return process


@pytest.fixture(scope="module")
def templates() -> dict[str, Case]:
    return {}


@pytest.fixture
def case(
    tmp_path: Path, restic_command: str, templates: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
) -> Case:
    if restic_command not in templates:
        made = Case(tmp_path_factory.mktemp("omrepo"), restic_command)
        (made.staging / "volumes" / "a").mkdir(parents=True)
        (made.staging / "volumes" / "a" / "file").write_bytes(os.urandom(16_000_000))
        manifest = Manifest("p", "1", "2026-11-25T02:00:00Z", "here", "1", "single")
        (made.staging / "manifest.json").write_text(manifest.to_json())
        made.repository().init()
        made.snapshot = made.commit()
        templates[restic_command] = made
    template = templates[restic_command]
    shutil.copytree(template.home, tmp_path / "case")
    shutil.rmtree(tmp_path / "case" / "cache")
    return Case(tmp_path / "case", restic_command, template.snapshot)


@contextmanager
def fails(*parts: str, kind: type[StackError] = StackError) -> Iterator[None]:
    """The one sentence of an error has these parts, and nothing of restic's own talk around it."""
    with pytest.raises(kind) as raised:
        yield
    said = str(raised.value)
    for part in parts:
        assert part in said
    assert "\n" not in said
    assert "Fatal:" not in said
    assert re.search(r": [a-z][^:]*|; [a-z]", said)


@contextmanager
def small_disk(point: Path, megabytes: int) -> Iterator[Path]:
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "omrepo", point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_sound_repository_has_no_fault(case: Case) -> None:
    """Else the rest would prove nothing."""
    repository = case.repository()
    case.restore()
    assert (case.home / "target" / "file").read_bytes() == (case.staging / "volumes" / "a" / "file").read_bytes()
    assert repository.manifest(case.snapshot)["project"] == "p"
    assert repository.check(read_data=True) == []
    assert repository.unlock_stale() is False
    assert repository.resolve("latest", "p").id == case.snapshot


def test_what_was_given_is_wrong(case: Case) -> None:
    with fails("does not open the repository", "password-wrong"):
        case.repository(password="wrong").snapshots()
    with fails("holds no usable password"):
        case.repository(password="").snapshots()
    with fails("There is no repository at", "init"):
        case.repository(place=str(case.home / "nowhere")).snapshots()
    assert not case.repository(place=str(case.home / "nowhere")).exists()
    with fails("the directory is not empty"):
        case.repository(place=str(case.staging)).init()
    with fails("has no snapshot 0000"):
        case.repository().manifest("0" * 64)
    with fails("is missing"):
        case.repository().commit(str(case.staging), [*NAMES, "listing.jsonl"], TAGS)
    (case.home / "password-right").chmod(0o644)
    with fails("can be read by everybody", "0600"):
        Repository(Restic(str(case.place), str(case.home / "password-right"), command=case.command)).snapshots()


def test_a_back_end_out_of_reach(case: Case) -> None:
    for place in ("rest:http://127.0.0.1:1/", "sftp:root@127.0.0.1:/nowhere"):
        with fails("The back end of the repository", "cannot be reached"):
            case.repository(place=place, patience_s=2).snapshots()
    unreachable = case.repository(place="rest:http://127.0.0.1:1/", patience_s=1)
    unreachable.restic.environment = {"RESTIC_REST_USERNAME": "somebody", "RESTIC_REST_PASSWORD": "secret"}
    with pytest.raises(StackError) as error:
        unreachable.snapshots()
    assert "secret" not in str(error.value)


def test_no_room_in_the_repository(case: Case) -> None:
    with small_disk(case.home / "small", 8) as disk:
        repository = case.repository(place=str(disk / "repository"))
        repository.init()
        with fails("The disk", "full", str(disk)):
            case.commit(repository)
        assert repository.snapshots() == []
        assert not list((disk / "repository" / "locks").iterdir())


def test_no_room_for_a_restore(case: Case) -> None:
    with small_disk(case.home / "small", 8) as disk:
        with fails("The disk is full", str(disk / ".target.restoring")):
            case.restore(disk / "target")
        assert not list(disk.iterdir())


def test_no_room_for_the_cache_is_no_fault(case: Case) -> None:
    with small_disk(case.home / "cache", 1) as disk:
        (disk / "fill").write_bytes(bytes(1 << 20))
        assert [each.id for each in case.repository().snapshots()] == [case.snapshot]


def vanish(case: Case) -> None:
    """The repository goes while a backup writes into it: newer restic makes directories anew and would end well."""
    deadline = time.monotonic() + 30
    before = len(case.packs())
    while len(case.packs()) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    case.place.rename(case.home / "away")


def test_a_repository_that_vanishes_halfway(case: Case) -> None:
    (case.staging / "volumes" / "a" / "more").write_bytes(os.urandom(90_000_000))
    thief = threading.Thread(target=vanish, args=(case,))
    thief.start()
    with fails("vanished", str(case.place)):
        case.commit()
    thief.join()
    shutil.rmtree(case.place, ignore_errors=True)
    (case.home / "away").rename(case.place)
    assert [each.id for each in case.repository().snapshots()] == [case.snapshot]


def test_a_damaged_pack(case: Case) -> None:
    with case.packs()[-1].open("r+b") as pack:
        pack.seek(1000)
        pack.write(b"damage")
    with fails(DAMAGED, "check (read_data)"):
        case.restore()
    assert not (case.home / "target").exists()
    assert case.repository().check() == []
    assert case.packs()[-1].name in case.repository().check(read_data=True)[0]


def test_a_missing_pack(case: Case) -> None:
    case.packs()[-1].unlink()
    with fails(MISSING):
        case.restore()
    assert not (case.home / "target").exists()
    assert not (case.home / ".target.restoring").exists()
    assert len(case.repository().check()) == 1


def test_the_pack_with_the_manifest_is_missing(case: Case) -> None:
    case.packs()[0].unlink()
    with fails(MISSING, "/manifest.json"):
        case.repository().manifest(case.snapshot)


def cut(directory: Path) -> None:
    for path in directory.iterdir():
        os.truncate(path, 50)


def test_what_was_cut_off(case: Case) -> None:
    cut(case.place / "index")
    steps: tuple[Callable[[], object], ...] = (
        case.restore,
        case.commit,
        lambda: case.repository().manifest(case.snapshot),
    )
    for step in steps:
        with fails(DAMAGED):
            step()
    assert "index" in case.repository().check()[0]


def test_a_snapshot_that_was_cut_off_is_told(case: Case) -> None:
    cut(case.place / "snapshots")
    info = snapshots_info(case.repository(), None)
    assert info["snapshots"] == []
    assert info["repository"]["health"] == [f"snapshot {case.snapshot[:8]} is damaged and cannot be listed"]
    with fails("no snapshot of the stack p", f"Damaged there, and so not listed: {case.snapshot[:8]}"):
        case.repository().resolve("latest", "p")


def test_a_manifest_that_was_cut_off(case: Case) -> None:
    os.truncate(case.staging / "manifest.json", 60)
    snapshot = case.commit()
    with fails("The manifest of snapshot", "is cut off or damaged"):
        case.repository().manifest(snapshot)
    [newest] = snapshots_info(case.repository(), None, newest_only=True)["snapshots"]
    assert newest["manifest"] is None
    assert "is cut off" in newest["manifest_problem"]


def test_the_config_is_damaged(case: Case) -> None:
    os.truncate(case.place / "config", 20)
    with fails("its config file cannot be read"):
        case.repository().snapshots()


def test_an_unreadable_file_makes_no_snapshot(case: Case) -> None:
    """root reads everything, but not a file that a device error sits in: one whose reading the kernel refuses."""
    (case.staging / "volumes" / "a" / "bad").symlink_to("file")
    target = case.staging / "volumes" / "a" / "memory"
    target.touch()
    subprocess.run(["mount", "--bind", "/proc/self/mem", target], check=True)
    try:
        with fails("No snapshot was made", "volumes/a/memory"):
            case.commit()
    finally:
        subprocess.run(["umount", target], check=True)
    assert [each.id for each in case.repository().snapshots()] == [case.snapshot]


def stop_in_the_middle(case: Case, how: int) -> subprocess.Popen[bytes]:
    """A process that stores a snapshot gets a signal in the middle of that."""
    before = len(case.packs())
    own = {"COLLECTION": str(Path(__file__).parents[1]), "HOME": str(case.home)}
    process = subprocess.Popen(
        [sys.executable, "-c", STORE, case.place, case.home / f"password-{PASSWORD}", case.command, case.staging],
        env={**os.environ, **own},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while len(case.packs()) <= before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    process.wait()
    return process


STORE = """
import os, sys
sys.path.insert(0, os.environ["COLLECTION"])
import conftest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
place, password, command, staging = sys.argv[1:]
Repository(Restic(place, password, command=command)).commit(staging, ["volumes"], ["openmemory-stack", "project=p"])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_restic_does_not_outlive_us(case: Case, how: int) -> None:
    """It would go on reading staging, which the next run changes."""
    (case.staging / "volumes" / "a" / "more").write_bytes(os.urandom(200_000_000))
    assert stop_in_the_middle(case, how).returncode != 0
    deadline = time.monotonic() + 30
    while True:
        try:
            case.repository().unlock_stale()  # refuses while the process lives
            break
        except LockedError:
            assert time.monotonic() < deadline
    assert not case.locks()
    assert [each.id for each in case.repository().snapshots()] == [case.snapshot]


def test_a_lock_of_a_living_process(case: Case) -> None:
    repository = case.repository()
    holder = case.hold()
    try:
        with fails("is locked by the living process", str(holder.pid), "since 20", " UTC, so", kind=LockedError):
            repository.forget([case.snapshot], prune=True)
        with fails("is locked by the living process", str(holder.pid), "since 20", " UTC: ", kind=LockedError):
            repository.unlock_stale()
        with fails("is locked by the living process", str(holder.pid), kind=LockedError):
            repository.check()  # which is no damage
        assert len(repository.snapshots()) == 1  # reading needs no lock
        case.commit()  # nor does adding
    finally:
        holder.kill()
        holder.wait()


def test_a_lock_whose_process_dies_while_it_is_waited_for(case: Case) -> None:
    """As that of a run which was killed: its restic takes a moment to end, and leaves its lock."""
    repository, holder = case.repository(), case.hold()
    repository.restic.lock_wait_s = 15.0
    threading.Timer(1.5, holder.kill).start()
    reaper = threading.Thread(target=holder.wait)
    reaper.start()
    repository.forget([case.snapshot], prune=True)
    reaper.join()
    assert not case.locks()


def test_a_lock_of_a_dead_process(case: Case) -> None:
    steps: tuple[Callable[[], object], ...] = (
        lambda: case.repository().unlock_stale(),
        lambda: case.repository().check() or None,
        lambda: case.repository().forget([case.snapshot], prune=True),
    )
    for step in steps:
        holder = case.hold()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert case.locks()
        assert step() in (True, None)
        assert not case.locks()
    assert case.repository().snapshots() == []
