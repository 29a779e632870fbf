# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a commit is begun like the last one, and when not; what restic makes of it is in tests/chaos/test_head_start."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import head_start
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.staging import Staging
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.ahead import CommitAhead

KEYS = ["data", "db"]
TAGS = ["openmemory-stack", "way=two_pass", "project=p"]


class FakeRepository:
    def __init__(self, place: Path):
        self.place = place
        self.restic = self
        self.local_path: str | None = str(place)
        self.cache_dir = str(place.with_name("cache"))

    def exists(self) -> bool:
        assert self.local_path, "restic would be asked, which takes a second"
        return self.place.exists()


class Scene:
    """What a backup of two volumes has left, two-pass, on a repository in a directory."""

    def __init__(self, home: Path):
        self.home = home
        self.repository = FakeRepository(home / "repository")
        self.repository.place.mkdir()
        self.places = Places.of("p", str(home / "state"), str(home / "run"))
        self.request = BackupRequest("p", str(self.repository.place), str(home / "password"))
        self.staging = Staging(str(home / "staging"))
        self.staging.prepare(KEYS)
        for key in KEYS:
            Path(self.staging.index(key)).write_text("{}")
        Path(self.staging.manifest).write_text("the last one's")
        head_start.remember(self.request, self.places, self.staging, TAGS, "two_pass", KEYS)

    def begun(self) -> CommitAhead | None:
        repository: Any = self.repository
        return head_start.like_the_last(self.request, self.places, repository, Progress(), ExitStack())


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(CommitAhead, "__enter__", lambda self: self)
    monkeypatch.setattr(CommitAhead, "__exit__", lambda self, *_error: None)
    return Scene(tmp_path)


def test_it_is_for_what_the_last_one_committed(scene: Scene) -> None:
    begun = scene.begun()
    assert begun
    names = ["manifest.json", "listing.jsonl", "volumes"]
    assert begun.is_for(scene.staging.root, names, TAGS)
    assert not begun.is_for(scene.staging.root, names, [*TAGS, "other"])
    assert not begun.is_for(scene.staging.root, [*names, "export"], TAGS)
    assert not begun.is_for(str(scene.home), names, TAGS)
    assert Path(scene.staging.manifest).read_text() == "", "the manifest of the copy before could be stored"


def ask(**changes: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.request = replace(scene.request, **changes)

    return change


def far(scene: Scene) -> None:
    scene.repository.local_path = None


REASONS: dict[str, Callable[[Scene], Any]] = {
    "no record": lambda scene: Path(scene.places.committed).unlink(),
    "a damaged record": lambda scene: Path(scene.places.committed).write_text("{"),
    "a record of another version": lambda scene: Path(scene.places.committed).write_text('{"names": []}'),
    "something to recover": lambda scene: Path(scene.places.journal).write_text("{}"),
    "no repository": lambda scene: scene.repository.place.rmdir(),
    "a far repository": far,
    "a record of no sense": lambda scene: Path(scene.places.committed).write_text("[1]"),
    "other tags": ask(tags=["nightly"]),
    "fewer volumes": ask(volumes=[{"name": "data"}]),
    "another way": ask(capture="single"),
    "another staging": ask(staging_dir="/elsewhere"),
    "a full check comes before the commit": ask(verify="full"),
    "an export comes before the commit": ask(export=True),
    "an export that lies there": lambda scene: Path(scene.staging.export).mkdir(),
    "a whole copy comes before the commit": lambda scene: Path(scene.staging.index("db")).unlink(),
    "no staging": lambda scene: shutil.rmtree(scene.staging.root),
    "staging of others": lambda scene: Path(scene.staging.root).chmod(0o777),
    "no volumes in staging": lambda scene: Path(scene.staging.volumes).rmdir(),
    "a link in the manifest's place": lambda scene: (
        Path(scene.staging.manifest).unlink(), Path(scene.staging.manifest).symlink_to(scene.home / "password")
    ),
}  # fmt: skip


def test_a_full_disk_is_no_reason_to_fail(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: CommitAhead) -> CommitAhead:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CommitAhead, "__enter__", fail)
    assert scene.begun() is None


@pytest.mark.parametrize("reason", REASONS)
def test_none_is_begun(scene: Scene, reason: str) -> None:
    (scene.home / "password").write_text("secret")
    REASONS[reason](scene)
    assert scene.begun() is None
    assert (scene.home / "password").read_text() == "secret"
