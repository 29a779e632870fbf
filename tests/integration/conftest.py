# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The real engine of this machine. All that the tests make is named omtest, and is removed before and after each."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from sleep_image import make_image

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE = "omtest/sleep"
PREFIX = "omtest"


class Lab:
    """What a test does to Docker behind the modules' back, and how it runs them as a user would."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.client = docker.APIClient()

    def ansible(self, module: str, *flags: str, **options: Any) -> dict[str, Any]:
        """Run a module through Ansible on this machine and return its result."""
        command = ["ansible", "localhost", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
        command += ["-m", module, "-a", json.dumps(options), *flags]
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        )
        assert " => " in run.stdout, run.stdout + run.stderr
        result: dict[str, Any] = json.loads(run.stdout[run.stdout.index(" => ") + 4 :])
        return result

    def container(
        self, name: str, mounts: dict[str, str], image: str = IMAGE, start: bool = False, env: tuple[str, ...] = ()
    ) -> str:
        """A container that mounts volumes ({name: destination}); it sleeps if it is started."""
        binds = [f"{volume}:{destination}" for volume, destination in mounts.items()]
        made = self.client.create_container(
            image, ["/bin/sleep", "600"], name=f"{PREFIX}-{name}", environment=list(env),
            host_config=self.client.create_host_config(binds=binds, network_mode="none"),
        )  # fmt: skip
        if start:
            self.client.start(made)
        return str(made["Id"])

    def put(self, container: str, directory: str, name: str, content: bytes) -> None:
        """Write a file inside the container, so that it lands where Docker mounts the volume."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        assert self.client.put_archive(container, directory, stream.getvalue())

    def volume(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.inspect_volume(name)
        return found

    def names(self) -> list[str]:
        return sorted(v["Name"] for v in self.client.volumes()["Volumes"] or [] if v["Name"].startswith(PREFIX))

    def clean(self) -> None:
        """Remove what carries the prefix, also what a run that was killed left."""
        for container in self.client.containers(all=True, filters={"name": f"^/{PREFIX}"}):
            self.client.remove_container(container["Id"], force=True)
        for name in self.names():
            self.client.remove_volume(name)
        for network in self.client.networks(names=[f"{PREFIX}_default"]):
            self.client.remove_network(network["Id"])


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """Names are fixed, so two runs on one engine wait for each other."""
    with open("/var/tmp/omtest.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def image(alone: None) -> Iterator[str]:
    """An image with /bin/sleep of this machine and nothing else, under the names that the stores' images have."""
    client = docker.APIClient()
    subprocess.run(["sh", "-c", make_image(IMAGE)], check=True, stdout=subprocess.DEVNULL)
    names = [f"{PREFIX}/{store}" for store in ("qdrant", "neo4j", "openmemory-mcp")]
    for name in names:
        client.tag(IMAGE, name)
    yield IMAGE
    for name in [*names, IMAGE]:
        client.remove_image(name, force=True)


@pytest.fixture
def lab(image: str) -> Iterator[Lab]:
    directory = Path("/var/tmp") / PREFIX  # not /tmp, which may be of another file system type
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    made = Lab(directory)
    made.clean()
    yield made
    made.clean()
    shutil.rmtree(directory)


@pytest.fixture
def engine() -> Engine:
    return Engine.connect()
