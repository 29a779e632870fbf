# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small Compose project on the real engine that can be updated: all that is made is named omupd.

OpenMemory's part is an image that only sleeps, under a name by which it is known, with a database on a managed volume;
beside it a service of no known kind on a directory and on a mount point.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_cli import Connection
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_project import Project
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_request import Request
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import update
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.request import UpdateRequest
from restore_stack import tree
from sleep_image import make_image

PROJECT = "omupd"
APP, OTHER = f"{PROJECT}/openmemory", f"{PROJECT}/other"
BOTH = {"app": f"{APP}:1.0", "other": f"{OTHER}:1.0"}
NEW = {"app": f"{APP}:1.1", "other": f"{OTHER}:1.1"}
FILE = "docker-compose.yml"


class Updated:
    """The project in a directory of its own; images are those that its next deployment or update asks for."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.client = docker.APIClient()
        self.engine = Engine.connect()
        self.state = directory / "state"

    @property
    def places(self) -> Places:
        return Places.of(PROJECT, str(self.state))

    def compose(self, images: dict[str, str]) -> dict[str, Any]:
        common = {"command": ["/bin/sleep", "900"], "stop_signal": "SIGKILL", "network_mode": "none"}
        place = {"type": "none", "o": "bind", "device": str(self.directory / "place")}
        disk = {**place, "device": str(self.directory / "disk")}
        return {
            "services": {
                "app": {
                    **common,
                    "image": images["app"],
                    "environment": {"DATABASE_URL": "sqlite:////data/openmemory.db", "SECRET": "${SECRET}"},
                    "volumes": ["data:/data"],
                    "depends_on": ["other"],
                },
                "other": {
                    **common,
                    "image": images["other"],
                    "volumes": ["place:/place", "disk:/disk", f"{self.directory}/host:/host"],
                },
            },
            "volumes": {"data": {}, "place": {"driver_opts": place}, "disk": {"driver_opts": disk}},
        }

    def wanted(self, images: dict[str, str]) -> Request:
        file = {"name": FILE, "content": json.dumps(self.compose({**BOTH, **images}))}
        return Request(
            PROJECT,
            str(self.directory / "src"),
            Connection("unix:///var/run/docker.sock"),
            str(self.directory),
            [file],
            secrets={"SECRET": "kept-in-dotenv"},
            pull="never",
            wait_timeout=20,
        )

    def request(self, images: dict[str, str], **asked: Any) -> UpdateRequest:
        return UpdateRequest(self.wanted(images), **{"snapshot": "none", "state_dir": str(self.state), **asked})

    def update(self, images: dict[str, str], check_mode: bool = False, **asked: Any) -> dict[str, Any]:
        found: dict[str, Any] = update.run(self.request(images, **asked), self.engine, Progress(), check_mode)
        return found

    def deploy(self, **images: str) -> None:
        Project(self.wanted(images), lambda: self.engine).present()

    def make(self) -> None:
        for name in ("place", "disk", "state", "host"):
            (self.directory / name).mkdir(parents=True)
        subprocess.run(["mount", "--bind", self.directory / "disk", self.directory / "disk"], check=True)
        ensure_password(str(self.directory / "password"))
        self.deploy()
        for name in ("place", "disk"):
            (self.root(name) / "same").write_text("before")
            (self.root(name) / "inside").mkdir()
            (self.root(name) / "inside" / "one").write_text("before" * 100)
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("CREATE TABLE memories (id TEXT, text TEXT)")
            connection.execute("INSERT INTO memories VALUES ('1', 'before')")
            connection.commit()

    @property
    def database(self) -> Path:
        return self.root("data") / "openmemory.db"

    def root(self, name: str) -> Path:
        if name == "data":
            return Path(self.client.inspect_volume(f"{PROJECT}_data")["Mountpoint"])
        return self.directory / name

    def trees(self) -> dict[str, Any]:
        return {name: tree(self.root(name)) for name in ("data", "place", "disk")}

    def files(self) -> dict[str, bytes]:
        """The project's own files, without the record of the last start, which has the containers' ids."""
        names = (FILE, ".env")
        return {name: (self.directory / "src" / name).read_bytes() for name in names}

    def image(self, reference: str) -> str:
        return str(self.engine.inspect_image(reference)["Id"])

    def running(self) -> dict[str, str]:
        """{service: reference of its image}, of containers that run."""
        return {service: str(about["Config"]["Image"]) for service, about in self.inspected("running").items()}

    def ids(self) -> dict[str, tuple[str, str]]:
        return {name: (about["Id"], about["State"]["StartedAt"]) for name, about in self.inspected().items()}

    def inspected(self, status: str | None = None) -> dict[str, Any]:
        filters = {"label": f"com.docker.compose.project={PROJECT}", **({"status": status} if status else {})}
        found = []
        for one in self.client.containers(all=True, filters=filters):
            with suppress(docker.errors.NotFound):  # removed since it was listed
                found.append(self.client.inspect_container(one["Id"]))
        return {about["Config"]["Labels"]["com.docker.compose.service"]: about for about in found}

    def left(self) -> list[str]:
        """Our directories beside the data."""
        roots = [self.root("data").parent, self.directory, self.root("disk")]
        return sorted(str(one) for root in roots for one in root.iterdir() if one.name.startswith(".openmemory-"))

    def forget(self) -> None:
        """Nothing of what earlier updates kept is left."""
        for entry in kept.load(self.places):
            assert kept.remove(entry.path) is None
        kept.save(self.places, [])

    def clean(self) -> None:
        for container in self.client.containers(all=True):
            if any(PROJECT in name for name in container["Names"] or ()):
                self.client.remove_container(container["Id"], force=True)
        for volume in self.client.volumes()["Volumes"] or []:
            if volume["Name"].startswith(PROJECT):
                self.client.remove_volume(volume["Name"])
        while MountTable.read().is_point(str(self.directory / "disk")):
            subprocess.run(["umount", self.directory / "disk"], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def alone() -> Iterator[None]:
    """Names are fixed, so two runs on one engine wait for each other."""
    with open(f"/var/tmp/{PROJECT}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def images() -> Iterator[None]:
    """Three versions of each image that differ in a label only."""
    client = docker.APIClient()
    with alone():
        base = f"{PROJECT}/base:1"
        subprocess.run(["sh", "-c", make_image(base)], check=True, stdout=subprocess.DEVNULL)
        for name in (APP, OTHER):
            for tag in ("1.0", "1.1", "2.0"):
                text = f"FROM {base}\nLABEL version={tag}\n"
                make = ["docker", "build", "--quiet", "--tag", f"{name}:{tag}", "-"]
                subprocess.run(make, input=text.encode(), check=True, stdout=subprocess.DEVNULL)
        yield
        for found in client.images():
            for tag in found["RepoTags"] or ():
                if tag.startswith(f"{PROJECT}/"):
                    client.remove_image(tag, force=True)


@pytest.fixture(scope="module")
def deployed(images: None) -> Iterator[Updated]:
    stack = Updated(Path("/var/tmp") / PROJECT)
    stack.clean()
    stack.make()
    yield stack
    stack.clean()


@pytest.fixture
def home(deployed: Updated, monkeypatch: pytest.MonkeyPatch) -> Updated:
    """The project at 1.0 with its first data, and nothing kept of earlier updates."""
    monkeypatch.setattr(compose_health, "_STABLE_SECONDS", 0.1)  # these containers have no health check
    recover(deployed.engine, deployed.places)
    deployed.forget()
    deployed.deploy()
    with closing(sqlite3.connect(deployed.database)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(memories)")]
        if "hash" in columns:
            connection.execute("ALTER TABLE memories DROP COLUMN hash")
        connection.execute("DELETE FROM memories WHERE id <> '1'")
        connection.commit()
    for name in ("place", "disk"):
        (deployed.root(name) / "written").unlink(missing_ok=True)
    assert deployed.left() == []
    assert deployed.running() == BOTH
    return deployed


def write(stack: Updated, identity: str = "2") -> None:
    """What a client wrote to the new version: a memory, and a file beside."""
    with closing(sqlite3.connect(stack.database)) as connection:
        connection.execute("INSERT INTO memories (id, text) VALUES (?, 'since')", (identity,))
        connection.commit()
    (stack.root("disk") / "written").write_text("since")


def migrate(stack: Updated) -> None:
    """What a new version does to the database at its start."""
    with closing(sqlite3.connect(stack.database)) as connection:
        connection.execute("ALTER TABLE memories ADD COLUMN hash TEXT")
        connection.commit()


def memories_in(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return sorted(row[0] for row in connection.execute("SELECT id FROM memories"))


def compose_processes() -> list[str]:
    """Compose commands of this project that run now."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"compose" in words and PROJECT.encode() in words:
            found.append(pid)
    return found
