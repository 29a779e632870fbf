# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that was broken into, with all that it knows: its login at restic's REST server (append-only) and the password
of the repository. It cannot make a good snapshot go, neither there nor through the prune of another machine.
"""

from __future__ import annotations

import base64
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.prune import prune
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from remote_servers import REST_LOGIN, rest

NOW = datetime.now(UTC)
LATER = NOW + timedelta(minutes=5)  # the prune after the attack
GOOD_DAYS = (80, 50, 20, 10, 1)


@dataclass
class Place:
    """A repository with good snapshots: as the host sees it, and the directory as the machine that prunes has it."""

    home: Path
    url: str
    command: str

    @property
    def directory(self) -> Path:
        return self.home / "server" / "data" / self.url.strip("/").rsplit("/", maxsplit=1)[-1]

    def host(self) -> Repository:
        cache = str(self.home / "cache")
        return Repository(Restic(self.url, str(self.home / "password"), REST_LOGIN, cache, command=self.command))

    def add(self, days_ago: float, tags: str = "verified=quick") -> None:
        (self.home / "staging" / "file").write_bytes(os.urandom(100_000))
        local = (datetime.now(UTC) - timedelta(days=days_ago)).astimezone()
        words = ["--time", f"{local:%Y-%m-%d %H:%M:%S}", "--tag", f"openmemory-stack,project=p,{tags}", "staging"]
        self.host().restic.call("backup", *words, doing="add", cwd=str(self.home))

    def request(self, keep: Keep) -> prune.PruneRequest:
        password, state = str(self.home / "password"), str(self.home / "pruner")
        return prune.PruneRequest(str(self.directory), password, keep, state_dir=state)

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.directory.rglob("*") if path.is_file() and path.parent.name != "locks")
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    home = tmp_path_factory.mktemp("omappend")
    (home / "password").touch(0o600)
    (home / "password").write_text("right")
    with rest(home / "server") as port:
        yield home, port


@pytest.fixture
def place(server: tuple[Path, int], restic_command: str, tmp_path: Path) -> Place:
    home, port = server
    found = Place(home, f"rest:http://127.0.0.1:{port}/{tmp_path.name}/", restic_command)
    shutil.rmtree(home / "staging", ignore_errors=True)
    shutil.rmtree(home / "pruner", ignore_errors=True)
    (home / "staging").mkdir()
    found.host().init()
    for days in GOOD_DAYS:
        found.add(days)
    return found


def test_nothing_can_be_deleted(place: Place) -> None:
    before = place.files()
    host = place.host()
    ids = [each.id for each in host.snapshots()]
    for prune_too in (False, True):
        with pytest.raises(StackError, match="refuses us"):  # newer restic itself would end well
            host.forget(ids[:1], prune=prune_too)
    for words in (["prune", "--max-unused", "0"], ["key", "remove", next(iter(place.directory.glob("keys/*"))).name]):
        with pytest.raises(StackError):
            host.restic.call(*words, doing="destroy")
    assert place.files() | before == place.files()  # nothing is gone, nothing is another
    assert [each.id for each in place.host().snapshots()] == ids
    assert place.host().check(read_data=True) == []


def test_nothing_can_be_overwritten(place: Place) -> None:
    """By hand, without restic: every file of the repository."""
    before = place.files()
    login = base64.b64encode(":".join(REST_LOGIN.values()).encode()).decode()
    base = place.url.removeprefix("rest:")
    for name in before:
        path = name if not name.startswith("data/") else f"data/{name.split('/')[-1]}"
        for method, body in (("DELETE", None), ("POST", b"destroyed")):
            asked = urllib.request.Request(f"{base}{path}", body, {"Authorization": f"Basic {login}"}, method=method)
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(asked, timeout=10)
            assert error.value.code == 403, (method, path)
    assert place.files() == before


def test_false_times_make_nothing_good_go(place: Place) -> None:
    """Snapshots of the future, of the past and of today, more than any count keeps, all said to be the best."""
    keep = Keep(within="30d", last=2, daily=2)
    first = prune.run(place.request(keep), now=NOW)
    good = [each["id"] for each in first["kept"]]
    assert len(good) == 4  # of 80 days one goes; of 50 it is the last good one before the window
    for days in (-36500, -3650, -400, -31, -2, 0, 0, 0, 15, 49, 51, 9000):
        place.add(days, "verified=full")
    words = ["forget", "--dry-run", "--json", "--group-by", "", "--keep-last", "5", "--keep-yearly", "3"]
    theirs = place.host().restic.call(*words, doing="ask").json()[0]["remove"]
    assert set(good) <= {each["id"] for each in theirs}  # counting would have removed them all
    found = prune.run(place.request(keep), now=LATER)
    assert set(good) <= {each["id"] for each in found["kept"]}
    assert len(found["false_times"]) == 5
    assert "made after they had arrived" in found["warnings"][0]
    assert set(good) <= {each.id for each in place.host().snapshots()}
    assert place.host().check(read_data=True) == []
    for days in range(1, 29):  # and it goes on
        found = prune.run(place.request(keep), check_mode=True, now=LATER + timedelta(days=days))
        assert set(good) <= {each["id"] for each in found["kept"]}


def test_check_mode_lists_exactly_what_goes(place: Place) -> None:
    keep = Keep(within="15d")
    before = place.files()
    predicted = prune.run(place.request(keep), check_mode=True, now=NOW)
    assert place.files() == before
    assert not (place.home / "pruner" / "prune").exists()
    done = prune.run(place.request(keep), now=NOW)
    assert [each["id"] for each in done["removed"]] == [each["id"] for each in predicted["removed"]]
    assert [each.id for each in place.host().snapshots()] == [each["id"] for each in predicted["kept"]]
    assert len(done["removed"]) == 2
    assert not prune.run(place.request(keep), now=LATER)["changed"]


def test_a_damaged_repository_is_left_as_it_is(place: Place) -> None:
    next(iter(place.directory.glob("data/*/*"))).unlink()
    before = place.files()
    with pytest.raises(StackError, match="is damaged"):
        prune.run(place.request(Keep(within="15d")), now=NOW)
    assert place.files() == before
