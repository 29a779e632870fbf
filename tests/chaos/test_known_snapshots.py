# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of snapshots that this host knows is the one that restic would give, or is not used: real repositories."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.known_snapshots import KnownSnapshots
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot

TAGS = ["openmemory-stack", "project=p"]


class Home:
    """A repository with two snapshots, and a staging directory."""

    def __init__(self, path: Path, restic_command: str):
        self.path = path
        ensure_password(str(path / "password"))
        (path / "staging").mkdir()
        self.restic = Restic(
            str(path / "repository"), str(path / "password"), cache_dir=str(path / "cache"), command=restic_command
        )
        self.repository = Repository(self.restic)
        self.repository.init()
        for _number in range(2):
            self.commit()

    def commit(self) -> str:
        (self.path / "staging/file").write_text(str(len(list(self.snapshots.iterdir()))))
        return str(self.repository.commit(str(self.path / "staging"), ["file"], TAGS).snapshot_id)

    @property
    def snapshots(self) -> Path:
        return self.path / "repository/snapshots"

    def known(self) -> set[str] | None:
        return ids(KnownSnapshots(self.restic).all())

    def forget_what_is_known(self) -> None:
        shutil.rmtree(self.path / "cache/snapshots")


def ids(found: list[dict[str, Any]] | None) -> set[str] | None:
    return None if found is None else {each["id"] for each in found}


@pytest.fixture
def home(tmp_path: Path, restic_command: str) -> Home:
    return Home(tmp_path, restic_command)


def test_a_commit_is_known_as_restic_tells_it_but_for_its_time(home: Home) -> None:
    known = KnownSnapshots(home.restic)
    added = {each["id"]: each for each in known.all() or ()}
    assert known.all(exact=True) is None
    told = {each.id: each for each in home.repository.snapshots("p")}
    assert added.keys() == told.keys()
    for identity, one in added.items():
        found, real = Snapshot.of(one), told[identity]
        assert found.time_is_about
        assert not real.time_is_about
        assert replace(found, time=real.time, short_id=real.short_id, time_is_about=False) == real
        assert timedelta(0) <= real.time - found.time < timedelta(seconds=5)
    assert ids(known.all(exact=True)) == set(told)


def test_what_is_not_found_among_the_known_is_asked_for_and_told_with_its_time(home: Home) -> None:
    assert home.repository.resolve("latest", "p", ask=False).time_is_about
    listed = {each.id for each in home.repository.snapshots("p")}
    home.forget_what_is_known()
    home.commit()
    with pytest.raises(StackError, match="tag:none"):
        home.repository.resolve("tag:none", "p", ask=False)
    known = KnownSnapshots(home.restic).all(exact=True)  # so restic was asked
    assert len(known or ()) == len(listed) + 1
    assert not home.repository.resolve("latest", "p", ask=False).time_is_about


def test_a_commit_hides_no_snapshot_that_another_has_made(home: Home) -> None:
    cache, command = str(home.path / "elsewhere"), home.restic.command
    other = Repository(Restic(home.restic.repository, home.restic.password_file, cache_dir=cache, command=command))
    other_id = other.commit(str(home.path / "staging"), ["file"], TAGS).snapshot_id
    home.commit()
    assert home.known() is None
    assert other_id in {each.id for each in home.repository.snapshots("p")}


def test_by_its_time_a_snapshot_is_asked_for(home: Home) -> None:
    home.restic.password_file = str(home.path / "missing")
    assert home.repository.resolve("latest", "p", ask=False)
    with pytest.raises(StackError, match="password_file"):
        home.repository.resolve("2030-01-01 10:00", "p", ask=False)


def test_what_is_known_is_what_restic_says(home: Home) -> None:
    home.forget_what_is_known()
    assert home.known() is None
    asked = home.repository.resolve("latest", "p")
    assert home.known() == {path.name for path in home.snapshots.iterdir()}

    home.restic.password_file = str(home.path / "wrong")
    (home.path / "wrong").write_text("wrong\n")
    (home.path / "wrong").chmod(0o600)
    assert home.repository.resolve("latest", "p", ask=False) == asked  # so restic was not asked
    with pytest.raises(StackError, match="password"):
        home.repository.resolve("latest", "p")


def test_a_new_a_removed_and_a_damaged_snapshot_are_noticed(home: Home) -> None:
    first = home.repository.snapshots("p")[0]
    newest = home.commit()
    home.forget_what_is_known()
    assert home.known() is None
    assert home.repository.resolve("latest", "p", ask=False).id == newest

    home.repository.forget([newest])
    assert home.repository.resolve("latest", "p", ask=False).id != newest
    assert home.known() is not None

    damaged = home.snapshots / first.id
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert home.known() is None


def test_another_repository_at_the_same_place_is_another(home: Home) -> None:
    home.repository.snapshots("p")
    assert home.known() is not None
    shutil.rmtree(home.path / "repository")
    home.repository.init()
    assert home.known() is None
    with pytest.raises(StackError, match="has no snapshot"):
        home.repository.resolve("latest", "p", ask=False)
