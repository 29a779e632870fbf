# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The three real stores and the service that writes to them, as a Compose project on this machine's own engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof import ask

REPOSITORY = Path(__file__).resolve().parents[2]
MEMORIES = REPOSITORY / "tests/images/memories.py"
MOUNTS = {
    "openmemory_data": ("openmemory-mcp", "/usr/src/openmemory/data"),
    "qdrant_storage": ("qdrant", "/qdrant/storage"),
    "neo4j_data": ("neo4j", "/data"),
    "neo4j_logs": ("neo4j", "/logs"),
}
READY_SECONDS = 120
PASSWORD = "chaos-password"


def images() -> dict[str, str]:
    """The reference images' tags on this engine by the name of the service; they are built if missing."""
    build = [sys.executable, str(REPOSITORY / "tests/images/build.py")]
    lines = subprocess.run(build, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.splitlines()
    tags = dict(line.split() for line in lines if " omlab/" in line)
    names = {"openmemory-mcp": "mem0/openmemory-mcp:1.0", "qdrant": "qdrant/qdrant:", "neo4j": "neo4j:"}
    return {
        service: next(tag for reference, tag in tags.items() if reference.startswith(name))
        for service, name in names.items()
    }


class LiveStack:
    """One project. With places ({volume: host directory}) its volumes are path-backed, else Docker's own."""

    def __init__(
        self,
        project: str,
        directory: Path,
        port: int,
        places: Mapping[str, Path] | None = None,
    ):
        self.project = project
        self.directory = directory
        self.port = port
        self.log = directory / "acknowledged.jsonl"
        self.places = dict(places or {})
        directory.mkdir(parents=True, exist_ok=True)
        for place in self.places.values():
            place.mkdir(parents=True, exist_ok=True)
        (directory / "docker-compose.yml").write_text(json.dumps(self._compose()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Start everything and wait until a request reaches every store."""
        self.compose("up", "--detach", "--quiet-pull")
        end = time.monotonic() + READY_SECONDS
        while not self._answers():
            assert time.monotonic() < end, self.compose("logs", "--tail", "30", check=False)
            time.sleep(0.5)

    def down(self) -> None:
        """Remove containers, volumes and the data in host directories; also what a killed run left."""
        self.compose("down", "--volumes", "--timeout", "1", check=False)
        for place in self.places.values():
            shutil.rmtree(place, ignore_errors=True)

    def compose(self, *arguments: str, check: bool = True) -> str:
        command = ["docker", "compose", "--project-name", self.project, *arguments]
        done = subprocess.run(
            command, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert not check or not done.returncode, done.stdout + done.stderr
        return done.stdout + done.stderr

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).split()[0]

    def inspect(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = Engine.connect().inspect_container(self.container(service))
        return found

    def graph(self, password: str | None = None) -> ask.Neo4j:
        """The running Neo4j with its container's password, or another one."""
        found = ask.neo4j(self.inspect("neo4j"), password)
        assert found is not None, "Neo4j does not run"
        return found

    def change_password(self, old: str, new: str) -> None:
        """In Neo4j itself, as its user would; its container's settings stay."""
        statement = "ALTER CURRENT USER SET PASSWORD FROM $old TO $new"
        self.graph(old).run(statement, {"old": old, "new": new}, "system")

    def write(self, count: int, workers: int = 8) -> None:
        self._memories("write", "--count", str(count), "--workers", str(workers))

    def writer(self, seconds: float, pause: float, workers: int = 4) -> subprocess.Popen[bytes]:
        """Memories added all the time, each logged when it was acknowledged; it ends by itself.

        Without a pause (in seconds) of its workers between two the stores take all that a processor has.
        """
        options = ["--seconds", str(seconds), "--pause", str(pause), "--workers", str(workers), "--tolerate"]
        return subprocess.Popen(self._command("write", *options), stdout=subprocess.DEVNULL)

    def read(self) -> dict[str, Any]:
        """What every store holds beside what was acknowledged."""
        done = subprocess.run(self._command("read"), capture_output=True, text=True, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def stores(self) -> dict[str, dict[str, str]]:
        """{store: {id: text}}, as the service reads them from each store."""
        with urllib.request.urlopen(f"{self.url}/api/v1/stores/?user_id=demo", timeout=120) as answer:
            found: dict[str, dict[str, str]] = json.load(answer)
        return found

    def acknowledged(self, size: int | None = None) -> dict[str, str]:
        """{id: text} of the log, or of its first size bytes; a last line that is cut short does not count."""
        text = self.log.read_bytes()[:size].decode() if self.log.exists() else ""
        entries = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return {entry["id"]: entry["text"] for entry in entries}

    def _answers(self) -> bool:
        try:
            return "sqlite" in self.stores()  # a failing store is reported with status 200
        except (OSError, ValueError):
            return False

    def _memories(self, *arguments: str) -> None:
        subprocess.run(self._command(*arguments), check=True, stdout=subprocess.DEVNULL)

    def _command(self, verb: str, *arguments: str) -> Sequence[str]:
        return [sys.executable, str(MEMORIES), verb, "--url", self.url, "--log", str(self.log), *arguments]

    def _compose(self) -> dict[str, Any]:
        tags = images()
        services: dict[str, dict[str, Any]] = {
            name: {"image": tag, "volumes": [], "stop_grace_period": "20s"} for name, tag in tags.items()
        }
        for volume, (service, place) in MOUNTS.items():
            services[service]["volumes"].append(f"{volume}:{place}")
        services["neo4j"]["environment"] = {"NEO4J_AUTH": f"neo4j/{PASSWORD}"}
        services["openmemory-mcp"].update(
            environment={
                "GOOGLE_API_KEY": "test",
                "NEO4J_PASSWORD": PASSWORD,
                "DATABASE_URL": "sqlite:////usr/src/openmemory/data/openmemory.db",
            },
            ports=[f"127.0.0.1:{self.port}:8765"],
            depends_on=["qdrant", "neo4j"],
        )
        return {"services": services, "volumes": {name: self._volume(name) for name in MOUNTS}}

    def _volume(self, name: str) -> dict[str, Any]:
        if name not in self.places:
            return {}
        options = {"type": "none", "o": "bind", "device": str(self.places[name])}
        return {"driver": "local", "driver_opts": options}
