# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores on the real engine: exact, with a way back, and killed at every phase.

All that is made is named omrest, and is removed before and after.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import back, kept, restore, swap
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.request import RestoreRequest

PROJECT = "omrest"
IMAGE = f"{PROJECT}/sleep"
VOLUMES = ("data", "db", "disk", "place")
PATHS = ("disk", "place")
LABELS = "com.docker.compose."
DAY = 86400.0


class Stack:
    """Two containers on four volumes: a managed one, one with a database, a path, and a path that is a mount point."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.client = docker.APIClient()
        self.engine = Engine.connect()
        self.state = directory / "state"
        self.password = directory / "password"
        self.snapshot = ""  # its id

    @property
    def request(self) -> RestoreRequest:
        where = str(self.directory / "repository"), str(self.password)
        return RestoreRequest(
            PROJECT,
            *where,
            snapshot=self.snapshot,
            state_dir=str(self.state),
            force=True,
            safety=False,
            wait_timeout=20,
        )

    @property
    def places(self) -> Places:
        return Places.of(PROJECT, str(self.state))

    def make(self) -> None:
        ensure_password(str(self.password))
        for name in VOLUMES:
            labels = {f"{LABELS}project": PROJECT, f"{LABELS}volume": name}
            options = {}
            if name in PATHS:
                self.root(name).mkdir()
                options = {"type": "none", "o": "bind", "device": str(self.root(name))}
            self.client.create_volume(f"{PROJECT}_{name}", "local", options, labels)
        subprocess.run(["mount", "--bind", self.root("disk"), self.root("disk")], check=True)
        shutil.copy("/bin/sleep", self.root("data") / "run")
        self.container("store", {"data": "/data"}, ["/data/run", "600"])
        self.container(
            "app",
            {"db": "/db", "disk": "/disk", "place": "/place"},
            ["/bin/sleep", "600"],
            "store:service_started:false",
        )
        self.fill("snapshot")

    def container(self, name: str, mounts: dict[str, str], command: list[str], depends: str = "") -> None:
        labels = {f"{LABELS}project": PROJECT, f"{LABELS}service": name, f"{LABELS}depends_on": depends}
        binds = [f"{PROJECT}_{volume}:{place}" for volume, place in mounts.items()]
        settings = self.client.create_host_config(binds=binds, network_mode="none")
        made = self.client.create_container(
            IMAGE, command, name=f"{PROJECT}-{name}", labels=labels, host_config=settings, stop_signal="SIGKILL"
        )
        self.client.start(made)

    def fill(self, text: str) -> None:
        """What the volumes hold: the same names with other contents, and names of its own."""
        for name in ("data", *PATHS):
            root = self.root(name)
            (root / "same").write_text(text)
            (root / text).mkdir(exist_ok=True)
            (root / text / "inside").write_text(text * 1000)
            os.setxattr(root, "user.is", text.encode())
            os.chown(root, 1000 + len(text), 1234)
        database = self.root("db") / "openmemory.db"
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS memories (id TEXT, text TEXT)")
            connection.execute("DELETE FROM memories")
            connection.execute("INSERT INTO memories VALUES ('1', ?)", (text,))
            connection.commit()

    def root(self, name: str) -> Path:
        if name in PATHS:
            return self.directory / name
        return Path(self.client.inspect_volume(f"{PROJECT}_{name}")["Mountpoint"])

    def backup(self) -> str:
        where = str(self.directory / "repository"), str(self.password)
        request = BackupRequest(PROJECT, *where, state_dir=str(self.state))
        return str(backup.run(request, self.engine, Progress())["snapshot_id"])

    def restore(self, **asked: Any) -> dict[str, Any]:
        found: dict[str, Any] = restore.run(replace(self.request, **asked), self.engine, Progress())
        return found

    def trees(self) -> dict[str, Any]:
        return {name: tree(self.root(name)) for name in VOLUMES}

    def running(self) -> list[str]:
        found = self.client.containers(filters={"label": f"{LABELS}project={PROJECT}", "status": "running"})
        return sorted(container["Names"][0].lstrip("/") for container in found)

    def left(self) -> list[str]:
        """Directories of restores beside the data."""
        roots = [self.root("data").parent, self.root("db").parent, self.root("disk"), self.directory]
        return [str(place) for root in roots for place in root.iterdir() if place.name.startswith(".openmemory-")]

    def forget_new(self) -> None:
        """Remove the volumes of restores with the prefix omrestlook_."""
        for name in VOLUMES:
            self.client.remove_volume(f"{PROJECT}look_{name}")
            shutil.rmtree(self.directory / f"{PROJECT}look_{name}", ignore_errors=True)

    def clean(self) -> None:
        for container in self.client.containers(all=True, filters={"name": f"^/{PROJECT}"}):
            self.client.remove_container(container["Id"], force=True)
        for volume in self.client.volumes()["Volumes"] or []:
            if volume["Name"].startswith(PROJECT):
                self.client.remove_volume(volume["Name"])
        while MountTable.read().is_point(str(self.root("disk"))):
            subprocess.run(["umount", self.root("disk")], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)


def tree(root: Path) -> dict[str, Any]:
    """Everything below and the root itself, without what restores keep: kind and mode, owner, contents, attributes."""
    found: dict[str, Any] = {}
    for place in [root, *sorted(root.rglob("*"))]:
        if swap.HIDDEN in str(place):
            continue
        about = place.lstat()
        attributes = {name: os.getxattr(place, name) for name in os.listxattr(place)}
        content = place.read_bytes() if place.is_file() else None
        found[str(place.relative_to(root))] = (about.st_mode, about.st_uid, about.st_gid, content, attributes)
    return found


@pytest.fixture(scope="module")
def image() -> Iterator[None]:
    """/bin/sleep of this machine and nothing else. Names are fixed, so two runs on one engine wait for each other."""
    client = docker.APIClient()
    listed = subprocess.run(["ldd", "/bin/sleep"], capture_output=True, text=True, check=True).stdout
    files = ["/bin/sleep", *(word for word in listed.split() if word.startswith("/"))]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as archive:
        for file in files:
            archive.add(file)
    with open(f"/var/tmp/{PROJECT}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client.import_image_from_data(stream.getvalue(), repository=IMAGE)
        yield
        client.remove_image(IMAGE, force=True)


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[tuple[Stack, dict[str, Any]]]:
    """A stack with a snapshot, and the trees in that."""
    stack = Stack(Path("/var/tmp") / PROJECT)
    stack.clean()
    stack.directory.mkdir()
    stack.make()
    stack.snapshot, trees = stack.backup(), stack.trees()
    yield stack, trees
    stack.clean()


@pytest.fixture
def stack(made: tuple[Stack, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The stack with other data than in its snapshot, and nothing of earlier restores."""
    monkeypatch.setattr(compose_health, "_STABLE_SECONDS", 0.3)  # these containers have no health check
    stack = made[0]
    for entry in kept.load(stack.places):
        assert kept.remove(entry.path) is None
    kept.save(stack.places, [])
    for name in VOLUMES:
        for place in stack.root(name).iterdir():
            if place.name != "run" and not place.name.startswith(swap.HIDDEN):
                shutil.rmtree(place) if place.is_dir() else place.unlink()
    stack.fill("live")
    assert stack.running() == ["omrest-app", "omrest-store"]
    return stack


@pytest.fixture
def snapshot(made: tuple[Stack, dict[str, Any]]) -> dict[str, Any]:
    """The trees of the snapshot."""
    return made[1]


def test_in_place_and_back_again(stack: Stack, snapshot: dict[str, Any]) -> None:
    live = stack.trees()
    result = stack.restore(safety=True)
    assert stack.trees() == snapshot
    assert result["stopped"] == ["omrest-store", "omrest-app"]
    assert stack.running() == ["omrest-app", "omrest-store"]
    assert result["safety_snapshot_id"]
    assert sorted(entry["volume"] for entry in result["kept"]) == [f"{PROJECT}_{name}" for name in VOLUMES]
    assert sorted(stack.left()) == sorted(entry["path"] for entry in result["kept"])
    almost_over = [
        replace(entry, created=entry.created - 6.9 * DAY, until=entry.until - 6.9 * DAY)
        for entry in kept.load(stack.places)
    ]
    kept.save(stack.places, almost_over)
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    assert stack.trees() == live
    # what was live until now is not thrown away with what was kept for it
    assert all(entry.until > time.time() + 6 * DAY for entry in kept.load(stack.places))
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    assert stack.trees() == snapshot
    stack.restore(snapshot=result["safety_snapshot_id"], safety=False, keep_days=0)
    assert stack.trees() == live
    assert len(stack.left()) == len(VOLUMES)  # of the first restore; those of the last had no time
    assert stack.left()[2].startswith(f"{stack.root('disk')}/.openmemory-stack-")
    stack.restore(snapshot=stack.backup(), target="new", new_prefix=f"{PROJECT}look_")
    assert sorted(place.name for place in (stack.directory / f"{PROJECT}look_disk").iterdir()) == ["live", "same"]
    stack.forget_new()


def test_check_mode_changes_nothing(stack: Stack) -> None:
    live, files = stack.trees(), sorted(stack.state.rglob("*"))
    result = restore.run(stack.request, stack.engine, Progress(), check_mode=True)
    assert result["changed"]
    assert [action.split()[0] for action in result["actions"]] == [*["restore"] * 4, "stop", "start"]
    assert (stack.trees(), sorted(stack.state.rglob("*")), stack.left()) == (live, files, [])


def test_one_database_without_the_stale_files_beside_it(stack: Stack, snapshot: dict[str, Any]) -> None:
    root = stack.root("db")
    (root / "openmemory.db-wal").write_bytes(b"stale")
    (root / "openmemory.db-journal").write_bytes(b"stale")
    (root / "other").write_text("stays")
    others = {name: found for name, found in stack.trees().items() if name != "db"}
    stack.restore(volumes=["db"], path="openmemory.db")
    assert sorted(place.name for place in root.iterdir()) == ["openmemory.db", "other"]
    assert tree(root)["openmemory.db"] == snapshot["db"]["openmemory.db"]
    assert {name: found for name, found in stack.trees().items() if name != "db"} == others
    back.run(PROJECT, str(stack.state), stack.engine, Progress())
    assert (root / "openmemory.db-wal").read_bytes() == b"stale"


def test_into_new_volumes_nothing_stops(stack: Stack, snapshot: dict[str, Any]) -> None:
    live = stack.trees()
    result = stack.restore(target="new", new_prefix=f"{PROJECT}look_", force=False)
    paths = {key: Path(about["path"]) for key, about in result["volumes"].items()}
    try:
        assert {key: tree(path) for key, path in paths.items()} == snapshot
        assert (stack.trees(), result["stopped"], result["kept"], stack.left()) == (live, [], [], [])
        about = stack.client.inspect_volume(f"{PROJECT}look_place")
        assert about["Labels"] == {f"{LABELS}project": f"{PROJECT}look", f"{LABELS}volume": "place"}
        assert about["Options"]["device"] == str(paths["place"]) == f"{stack.directory}/{PROJECT}look_place"
    finally:
        stack.forget_new()


def test_what_does_not_start_is_taken_back(stack: Stack) -> None:
    """The container runs a program of its volume, which the snapshot has not as an executable file."""
    live = stack.trees()
    (stack.root("data") / "run").chmod(0o600)
    broken = stack.backup()
    (stack.root("data") / "run").chmod(0o755)
    with pytest.raises(
        StackError, match=r"(?s)permission denied.* taken back: the data is as it was before, and omrest-"
    ):
        stack.restore(snapshot=broken)
    assert (stack.trees(), stack.running(), stack.left()) == (live, ["omrest-app", "omrest-store"], [])
    assert Journal.load(stack.places) is None


PHASES = ("fetch", "check", "freeze", "stop", "swap", "start", "health", "finish")  # freeze: of the safety capture


def at_phase(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def arm(patch: pytest.MonkeyPatch) -> None:
        phase = Journal.phase

        def killing(self: Journal, now: str) -> None:
            phase(self, now)
            if now == name:
                os.kill(os.getpid(), signal.SIGKILL)

        patch.setattr(Journal, "phase", killing)

    return arm


def at_rename(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    def arm(patch: pytest.MonkeyPatch) -> None:
        done: list[str] = []

        def killing(source: str, target: str) -> None:
            rename(source, target)
            done.append(target)
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        rename = swap._rename
        patch.setattr(swap, "_rename", killing)

    return arm


def when_accepted(patch: pytest.MonkeyPatch) -> None:
    note = Journal.note

    def killing(self: Journal, key: str, value: Any) -> None:
        note(self, key, value)
        if key == "restore" and value["stage"] == "accepted":
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(Journal, "note", killing)


KILLS = [
    *(pytest.param(at_phase(name), name == "freeze", "live", id=f"phase-{name}") for name in PHASES),
    *(pytest.param(at_rename(number), False, "live", id=f"rename-{number}") for number in (1, 4, 7)),
    pytest.param(when_accepted, False, "snapshot", id="accepted"),
]


@pytest.mark.parametrize(("arm", "safety", "end"), KILLS)
def test_killed_and_recovered(
    stack: Stack, snapshot: dict[str, Any], arm: Callable[[pytest.MonkeyPatch], None], safety: bool, end: str
) -> None:
    wanted = snapshot if end == "snapshot" else stack.trees()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            arm(pytest.MonkeyPatch())
            restore.run(replace(stack.request, safety=safety), Engine.connect(), Progress())
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    said = recover(stack.engine, stack.places)
    assert said[-1].startswith("Ended the restore that died in the phase ")
    assert (stack.trees(), stack.running()) == (wanted, ["omrest-app", "omrest-store"])
    assert len(stack.left()) == (len(VOLUMES) if end == "snapshot" else 0)
    assert sorted(entry.path for entry in kept.load(stack.places)) == sorted(stack.left())
    assert recover(stack.engine, stack.places) == []
