# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole backups in which something breaks: each ends in one sentence, with all as before, and the next one is good."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import passing
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.safety import backup_request
from restore_stack import PROJECT
from small_disks import SmallStack, happening, on_small_disks, sentence

FULL = "No space left on device"
MIB = 1 << 20
made = pytest.fixture(scope="module")(on_small_disks)


@pytest.fixture(autouse=True)
def _new_data(small: SmallStack) -> None:
    """Data that no snapshot has yet."""
    small.bulk(seed=time.monotonic_ns())


def snapshots(small: SmallStack) -> list[str]:
    repository = backup.open_repository(backup_request(small.request), small.places)
    return [each.id for each in repository.snapshots(PROJECT)]


def assert_backs_up(small: SmallStack, before: list[str], **asked: Any) -> None:
    """The next good run does all of it, and what it makes is whole."""
    live = small.trees()
    made = small.backup(**asked)
    assert snapshots(small) == [*before, made]
    repository = backup.open_repository(backup_request(small.request), small.places)
    assert repository.check(read_data=True) == []
    small.fill("later")
    small.restore(snapshot=made)
    small.assert_untouched(live)


JOURNAL = ("journal.json cannot be written", FULL, "free space")
STEPS = {
    # where: (the disk, when, what is said)
    "the copy": ("staging", ("journal", "copy"), (FULL,)),
    "the copy in the window": ("staging", ("window", ""), (FULL,)),
    "the manifest": ("staging", ("journal", "check"), (FULL,)),
    "the export": ("staging", ("journal", "export"), (FULL,)),
    "the scratch of the export": ("state", ("progress", "export"), (FULL,)),
    "the repository": ("repository", ("progress", "repository"), ("The disk", "full", "make room")),
    "the snapshot": ("repository", ("journal", "commit"), ("The disk", "full", "make room")),
    "the journal at the beginning": ("state", ("progress", "plan"), JOURNAL),
    "the journal at the copy": ("state", ("journal", "copy"), JOURNAL),
    "the journal at the freeze": ("state", ("journal", "freeze"), JOURNAL),
    "the journal in the window": ("state", ("window", ""), JOURNAL),
    "the journal at the check": ("state", ("journal", "check"), JOURNAL),
    "the journal at the commit": ("state", ("journal", "commit"), JOURNAL),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_disk_is_full(small: SmallStack, step: str) -> None:
    """Really, from one step on: that run and each after it fails, until there is room again."""
    name, hook, words = STEPS[step]
    asked = {"staging_dir": str(small.disks["staging"].place), "export": "export" in step}
    disk, live, before = small.disks[name], small.trees(), snapshots(small)
    with happening(hook, disk.fill) as progress:
        sentence(lambda: small.backup(progress, **asked), *words)
    small.assert_untouched(live)
    again = []
    for _run in range(2):
        disk.fill()
        again.append(sentence(lambda: small.backup(**asked)))
        small.assert_untouched(live)
    assert again[0] == again[1]
    disk.empty()
    assert snapshots(small) == before
    assert_backs_up(small, before, **asked)


def test_the_runtime_directory_is_full(small: SmallStack) -> None:
    """Where the guard of the freeze writes: nothing is paused without it."""
    live, before, place = small.trees(), snapshots(small), Path(small.places.runtime)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=0700", PROJECT, place], check=True)
    try:
        (place / "filler").write_bytes(bytes(4096))
        said = [sentence(small.backup, FULL) for _run in "12"]
        assert said[0] == said[1]
        small.assert_untouched(live)
    finally:
        subprocess.run(["umount", place], check=True)
    assert_backs_up(small, before)


def test_a_wrong_password(small: SmallStack) -> None:
    live, before, right = small.trees(), snapshots(small), small.password.read_text()
    small.password.write_text("wrong")
    try:
        said = [sentence(small.backup, "does not open the repository", "give the file that was used") for _run in "12"]
        assert said[0] == said[1]
        small.assert_untouched(live)
    finally:
        small.password.write_text(right)
    assert_backs_up(small, before)


def cut(directory: Path) -> None:
    for path in directory.iterdir():
        os.truncate(path, 50)


def empty(directory: Path) -> None:
    """As where the disk of a directory is not mounted."""
    shutil.rmtree(directory)
    directory.mkdir()


BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a truncated index": (lambda place: cut(place / "index"), ("is damaged: data in it", "with check")),
    "a truncated config": (lambda place: os.truncate(place / "config", 20), ("config file cannot be read", "copy")),
    "a truncated key": (lambda place: cut(place / "keys"), ("repository",)),
    "a deleted pack": (
        lambda place: next(place.glob("data/*/*")).unlink(),
        ("has lost data since the last backup", "bring the file back, or move the repository away"),
    ),
    "no data": (lambda place: shutil.rmtree(place / "data"), ("none of their data", "mount or bring back")),
    "empty data": (lambda place: empty(place / "data"), ("none of their data", "mount or bring back")),
    "no config": (lambda place: (place / "config").unlink(), ("No repository is made in", "not empty")),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_repository_is_broken(small: SmallStack, fault: str) -> None:
    harm, words = BROKEN[fault]
    live, before, spare = small.trees(), snapshots(small), small.disks["staging"].place / "spare"
    shutil.copytree(small.repository, spare)
    for place in small.state.glob("cache/*"):  # what is in restic's own needs no reading
        if place.is_dir() and place.name != "packs":
            shutil.rmtree(place)
    try:
        harm(small.repository)
        said = [sentence(small.backup, *words, str(small.repository)) for _run in "12"]
        assert said[0] == said[1]
        small.assert_untouched(live)
    finally:
        shutil.rmtree(small.repository)
        shutil.copytree(spare, small.repository)
        shutil.rmtree(spare)
    assert_backs_up(small, before)


@contextmanager
def stolen(repository: Path) -> Iterator[None]:
    """It vanishes when the first data has come into it, and comes back at the end."""
    over, away = threading.Event(), repository.with_name("away")
    packs = len(list(repository.glob("data/*/*")))

    def steal() -> None:
        while not over.is_set() and len(list(repository.glob("data/*/*"))) <= packs:
            time.sleep(0.001)
        repository.rename(away)

    thief = threading.Thread(target=steal)
    thief.start()
    try:
        yield
    finally:
        over.set()
        thief.join()
        shutil.rmtree(repository, ignore_errors=True)
        away.rename(repository)


def test_the_repository_vanishes_halfway_through_the_commit(small: SmallStack) -> None:
    (small.root("data") / "much").write_bytes(os.urandom(32 * MIB))
    live, before, said = small.trees(), snapshots(small), []
    for _run in "12":
        with stolen(small.repository):
            said.append(sentence(small.backup, "vanished", str(small.repository), "again"))
            small.assert_untouched(live)
    assert said[0] == said[1]
    assert_backs_up(small, before)


@contextmanager
def growing(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file that the host appends to while it is read: no pause of a container stops that."""
    place.write_bytes(os.urandom(MIB))
    really, own = passing.copy_data, place.stat().st_ino

    def copy(ours: int, *given: Any) -> int:
        done: int = really(ours, *given)
        if os.fstat(ours).st_ino == own:
            with place.open("ab") as file:
                file.write(b"more")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(passing, "copy_data", copy)
        yield


@pytest.mark.parametrize("way", ["single", "two_pass"])
def test_a_file_changes_its_size_while_it_is_read(small: SmallStack, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, place = snapshots(small), small.root("data") / "log"
    with growing(place, monkeypatch):
        said = [sentence(lambda: small.backup(capture=way), f"log in {place.parent} changed while") for _run in "12"]
        assert said[0] == said[1]
    small.assert_untouched(small.trees())
    assert snapshots(small) == before
    assert_backs_up(small, before, capture=way)


def test_a_container_refuses_to_pause(small: SmallStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two: the first one has to run again."""
    live, before, pause = small.trees(), snapshots(small), Engine.pause
    identity = small.client.inspect_container(f"{PROJECT}-store")["Id"]

    def refuse(engine: Engine, container: str) -> None:
        if container == identity:
            raise StackError(f"Docker refuses to pause {container[:12]}: freezer is not there.")
        pause(engine, container)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "pause", refuse)
        said = [sentence(small.backup, "freezer is not there") for _run in "12"]
        assert said[0] == said[1]
        small.assert_untouched(live)
    assert_backs_up(small, before)
