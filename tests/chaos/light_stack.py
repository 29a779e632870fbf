# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small stack on a real engine, here or on a host of the lab: it needs the core and the Docker SDK, and no pytest.

All that is made is named omrest.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
from ansible_collections.openmemory.stack.plugins.module_utils._core import hidden
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept, restore
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.request import RestoreRequest

PROJECT = "omrest"
IMAGE = f"{PROJECT}/sleep"
VOLUMES = ("data", "db", "disk", "place")
PATHS = ("disk", "place")
LABELS = "com.docker.compose."


class Stack:
    """Two containers on four volumes: a managed one, one with a database, a path, and a path that is a mount point."""

    def __init__(self, directory: Path, policies: Mapping[str, str] | None = None):
        """policies: of restarting, by container, where the engine is to start them when it comes back."""
        self.directory = directory
        self.policies = dict(policies or {})
        self.client = docker.APIClient()
        self.engine = Engine.connect()
        self.state = directory / "state"
        self.password = directory / "password"
        self.snapshot = ""  # its id

    @property
    def repository(self) -> Path:
        return self.directory / "repository"

    @property
    def request(self) -> RestoreRequest:
        where = str(self.repository), str(self.password)
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
        self.mount()
        shutil.copy("/bin/sleep", self.root("data") / "run")
        self.container("store", {"data": "/data"}, ["/data/run", "86400"])
        self.container(
            "app",
            {"db": "/db", "disk": "/disk", "place": "/place"},
            ["/bin/sleep", "86400"],
            "store:service_started:false",
        )
        self.fill("snapshot")

    def mount(self) -> None:
        """Make a mount point of the volume disk."""
        subprocess.run(["mount", "--bind", self.root("disk"), self.root("disk")], check=True)

    def container(self, name: str, mounts: dict[str, str], command: list[str], depends: str = "") -> None:
        labels = {f"{LABELS}project": PROJECT, f"{LABELS}service": name, f"{LABELS}depends_on": depends}
        binds = [f"{PROJECT}_{volume}:{place}" for volume, place in mounts.items()]
        policy = {"Name": self.policies.get(name, "no")}
        settings = self.client.create_host_config(binds=binds, network_mode="none", restart_policy=policy)
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

    def afresh(self, text: str) -> None:
        """Other data than there was, and nothing of earlier restores."""
        for entry in kept.load(self.places):
            assert kept.remove(entry.path) is None
        kept.save(self.places, [])
        for name in VOLUMES:
            for place in self.root(name).iterdir():
                if place.name != "run" and not place.name.startswith(hidden.HIDDEN):
                    shutil.rmtree(place) if place.is_dir() else place.unlink()
        self.fill(text)

    def root(self, name: str) -> Path:
        if name in PATHS:
            return self.directory / name
        return Path(self.client.inspect_volume(f"{PROJECT}_{name}")["Mountpoint"])

    def backup(self, progress: Progress | None = None, **asked: Any) -> str:
        where = str(self.repository), str(self.password)
        request = BackupRequest(PROJECT, *where, **{"state_dir": str(self.state), **asked})
        return str(backup.run(request, self.engine, progress or Progress())["snapshot_id"])

    def restore(self, progress: Progress | None = None, **asked: Any) -> dict[str, Any]:
        found: dict[str, Any] = restore.run(replace(self.request, **asked), self.engine, progress or Progress())
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
        if hidden.HIDDEN in str(place.relative_to(root)):
            continue
        about = place.lstat()
        attributes = {name: os.getxattr(place, name) for name in os.listxattr(place)}
        content = place.read_bytes() if place.is_file() else None
        found[str(place.relative_to(root))] = (about.st_mode, about.st_uid, about.st_gid, content, attributes)
    return found
