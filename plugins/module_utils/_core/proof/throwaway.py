# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Throw-away containers: a stack's own images and settings on copies of its data, apart from the stack.

They have no port, no restart, no label of Compose (it would take them for its own), and either no network at all or an
internal one of theirs. Each name is in the journal before the thing is made, so that whoever finds the journal of a run
that died can remove it; each also carries a label, so that it is found without a journal.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..project_secrets import Mask, mask_of

LABEL = "openmemory.stack.throwaway"
_PREFIX = "openmemory-throwaway"
# Docker 20.10 answers no name from outside of an internal network, not even with no: Neo4j's start waits 10 s for it.
_DNS_OPTIONS = ("timeout:1", "attempts:2")
_KEPT_CONFIG = ("Cmd", "Entrypoint", "WorkingDir", "User", "StopSignal", "StopTimeout", "Healthcheck")
_KEPT_HOST_CONFIG = (
    "CapAdd", "CapDrop", "SecurityOpt", "GroupAdd", "UsernsMode", "ReadonlyRootfs", "Tmpfs", "Init", "Runtime",
    "Memory", "MemorySwap", "MemoryReservation", "NanoCpus", "CpuShares", "CpuPeriod", "CpuQuota", "CpusetCpus",
    "PidsLimit", "Ulimits", "ShmSize", "MaskedPaths", "ReadonlyPaths",
)  # fmt: skip


class Ledger(Protocol):
    """What is needed of a journal (operation/journal.py)."""

    def add(self, key: str, *items: Any) -> None: ...
    def drop(self, key: str, *items: Any) -> None: ...


@dataclass(frozen=True)
class Changes:
    """How a throw-away differs from the container that it is made after.

    binds are {path in the container: directory of this host}. environment adds or replaces variables, drop takes some
    away. command and entrypoint replace those of the container; an empty entrypoint is none.
    """

    binds: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    drop: Sequence[str] = ()
    command: Sequence[str] | None = None
    entrypoint: Sequence[str] | None = None
    health: bool = False
    aliases: Sequence[str] = ()


class Throwaway:
    """The throw-away containers of one operation; use it as a context manager, and all are gone after it."""

    def __init__(self, engine: Engine, journal: Ledger | None, project: str):
        self._engine = engine
        self._journal = journal
        self._project = project
        self._token = uuid.uuid4().hex[:8]
        self._containers: list[str] = []
        self._masks: dict[str, Mask] = {}  # by container: its log may tell what its environment holds
        self._network: str | None = None

    def __enter__(self) -> Throwaway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.remove()
        except StackError:
            if error is None:  # else what went wrong first is told; the journal still names what is left
                raise

    def network(self) -> str:
        """The name of the network of these containers: internal, so that nothing outside of it is reached."""
        if self._network is None:
            name = f"{_PREFIX}-{self._project}-{self._token}"
            self._note("networks", name)
            self._network = name
            self._engine.create_network(name, internal=True, labels={LABEL: self._project})
        return self._network

    def create(self, like: Mapping[str, Any], purpose: str, changes: Changes, networked: bool = False) -> str:
        """Create a container after an inspected one and return its name. Nothing runs yet.

        purpose is a word for its name. networked puts it into network() under the aliases, else it has none.
        """
        name = f"{_PREFIX}-{self._project}-{purpose}-{self._token}"
        body = _body(like, changes, self._project)
        if networked:
            network = self.network()
            body["HostConfig"]["NetworkMode"] = network
            body["HostConfig"]["DnsOptions"] = list(_DNS_OPTIONS)
            body["NetworkingConfig"] = {"EndpointsConfig": {network: {"Aliases": list(changes.aliases)}}}
        else:
            body["Hostname"] = "localhost"  # without a network no other resolves, and Neo4j ends at once
        self._note("containers", name)
        self._containers.append(name)
        self._masks[name] = mask_of([{"Config": body}])
        self._engine.create_container(name, body)
        return name

    def start(self, like: Mapping[str, Any], purpose: str, changes: Changes, networked: bool = False) -> str:
        """create() and start it; returns its name."""
        name = self.create(like, purpose, changes, networked)
        self._engine.start(name)
        return name

    def run(self, like: Mapping[str, Any], purpose: str, changes: Changes, timeout: float) -> str:
        """Run a container to its end (timeout in seconds) and return its log. StackError with its last lines."""
        name = self.start(like, purpose, changes)
        deadline = time.monotonic() + timeout
        while True:
            state = self._engine.inspect_container(name)["State"]
            if not state["Running"] and state["Status"] != "created":
                break
            if time.monotonic() > deadline:
                raise StackError(f"{purpose} was not done within {timeout:.0f} s; {self.last_lines(name)}")
            time.sleep(0.1)
        if state["ExitCode"] != 0:
            raise StackError(f"{purpose} ended with code {state['ExitCode']}; {self.last_lines(name)}")
        return self._engine.logs(name, tail=1000)

    def inspect(self, name: str) -> dict[str, Any]:
        return self._engine.inspect_container(name)

    def stop(self, name: str, seconds: int | None = None) -> None:
        """Stop a container cleanly; seconds before it is killed, None for its own grace."""
        self._engine.stop(name, seconds)

    def last_lines(self, name: str, count: int = 8) -> str:
        """The end of a container's log as the end of a sentence; never raises."""
        try:
            text = self._masks.get(name, Mask(()))(self._engine.logs(name, tail=200))
            lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        except StackError as error:
            return f"its log cannot be read ({error})."
        if not lines:
            return "it wrote no log."
        return "its last lines:\n" + "\n".join(f"  {line[:300]}" for line in telling(lines, count))

    def remove(self) -> None:
        """Remove all of them with their anonymous volumes, then the network. Raises StackError after trying each."""
        failures: list[str] = []
        for name in list(reversed(self._containers)):
            if self._gone(failures, self._engine.remove_container, name):
                self._containers.remove(name)
                self._forget("containers", name)
        if self._network is not None and self._gone(failures, self._engine.remove_network, self._network):
            self._forget("networks", self._network)
            self._network = None
        if failures:
            raise StackError(f"A throw-away container is left: {' '.join(failures)} The next run removes it.")

    @staticmethod
    def _gone(failures: list[str], remove: Any, name: str) -> bool:
        try:
            with suppress(NotFoundError):
                remove(name)
        except StackError as error:
            failures.append(str(error))
            return False
        return True

    def _note(self, what: str, name: str) -> None:
        if self._journal is not None:
            self._journal.add(f"throwaway.{what}", name)

    def _forget(self, what: str, name: str) -> None:
        if self._journal is not None:
            self._journal.drop(f"throwaway.{what}", name)


def telling(lines: Sequence[str], count: int) -> list[str]:
    """The last lines of a log without the frames of traces, which push the reason out of sight."""
    frames = ("at ", "... ", "File ")
    said = [line for line in lines if not line.lstrip().startswith(frames)]
    return list((said or lines)[-count:])


def _body(like: Mapping[str, Any], changes: Changes, project: str) -> dict[str, Any]:
    config, host = like["Config"], like["HostConfig"]
    body: dict[str, Any] = {key: config[key] for key in _KEPT_CONFIG if config.get(key) is not None}
    pairs = dict(line.partition("=")[::2] for line in config.get("Env") or [])
    pairs = {name: value for name, value in pairs.items() if name not in changes.drop}
    pairs.update(changes.environment)
    body["Image"] = like["Image"]  # by id: its tag may have moved on
    body["Env"] = [f"{name}={value}" for name, value in pairs.items()]
    body["Labels"] = {LABEL: project}
    if changes.command is not None:
        body["Cmd"] = list(changes.command)
    if changes.entrypoint is not None:
        body["Entrypoint"] = list(changes.entrypoint)
    if not changes.health:
        body["Healthcheck"] = {"Test": ["NONE"]}
    kept = {key: host[key] for key in _KEPT_HOST_CONFIG if host.get(key) not in (None, [], "", {})}
    body["HostConfig"] = {
        **kept,
        # read-only files such as a configuration come along; directories may be data, and are not touched
        "Mounts": [*_files(like, changes.binds), *map(_bind, changes.binds.items())],
        "NetworkMode": "none",
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
    }
    return body


def _bind(pair: tuple[str, str]) -> dict[str, Any]:
    return {"Type": "bind", "Target": pair[0], "Source": pair[1]}


def _files(like: Mapping[str, Any], binds: Mapping[str, str]) -> list[dict[str, Any]]:
    mounts = [mount for mount in like.get("Mounts") or [] if mount.get("Type") == "bind"]
    return [
        {"Type": "bind", "Target": mount["Destination"], "Source": mount["Source"], "ReadOnly": True}
        for mount in mounts
        if mount["Destination"] not in binds and os.path.isfile(mount["Source"])
    ]
