# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Throw-away containers: what they take over, what they must not, and that their names are noted before they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.throwaway import (
    LABEL,
    Changes,
    Throwaway,
    telling,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.trial import changes_for
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.volume_keys import StoreContainer


class Recorder:
    """The engine and the journal in one, so that the order of what happens to both can be seen."""

    def __init__(self, broken: str = ""):
        self.broken = broken
        self.events: list[str] = []
        self.bodies: dict[str, dict[str, Any]] = {}
        self.noted: list[str] = []

    def add(self, key: str, *items: Any) -> None:
        self.events.append(f"note {key}")
        self.noted += items

    def drop(self, key: str, *items: Any) -> None:
        self.noted = [one for one in self.noted if one not in items]

    def create_container(self, name: str, body: dict[str, Any]) -> str:
        assert name in self.noted
        self._do("create", name)
        self.bodies[name] = body
        return name

    def create_network(self, name: str, internal: bool, labels: dict[str, str]) -> str:
        assert name in self.noted
        assert (internal, labels) == (True, {LABEL: "om"})
        self._do("network", name)
        return name

    def start(self, name: str) -> None:
        self._do("start", name)

    def remove_container(self, name: str) -> None:
        self._do("remove", name)
        if name not in self.bodies:
            raise NotFoundError(name)

    def remove_network(self, name: str) -> None:
        self._do("remove network", name)

    def _do(self, what: str, name: str) -> None:
        self.events.append(what)
        if what == self.broken:
            raise StackError(f"{what} is broken.")


def throwaways(recorder: Any) -> Throwaway:
    return Throwaway(recorder, recorder, "om")


def like(tmp_path: Path) -> dict[str, Any]:
    config = tmp_path / "production.yaml"
    config.write_text("")
    return {
        "Image": "sha256:1",
        "Config": {
            "Image": "qdrant/qdrant:latest",
            "Env": ["A=1", "QDRANT__SERVICE__API_KEY=secret=1", "EMPTY="],
            "Cmd": ["./entrypoint.sh"],
            "Entrypoint": None,
            "User": "1000",
            "WorkingDir": "/qdrant",
            "Healthcheck": {"Test": ["CMD", "true"]},
            "Labels": {"com.docker.compose.project": "om"},
            "ExposedPorts": {"6333/tcp": {}},
        },
        "HostConfig": {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 1 << 30,
            "Init": True,
            "RestartPolicy": {"Name": "unless-stopped"},
            "PortBindings": {"6333/tcp": [{"HostPort": "6333"}]},
            "NetworkMode": "om_default",
            "Binds": ["om_q:/qdrant/storage"],
        },
        "Mounts": [
            {"Type": "volume", "Name": "om_q", "Destination": "/qdrant/storage"},
            {"Type": "bind", "Source": str(config), "Destination": "/qdrant/config/production.yaml"},
            {"Type": "bind", "Source": str(tmp_path), "Destination": "/qdrant/live"},
        ],
    }


def test_settings_come_along_and_the_stack_is_not_touched(tmp_path: Path) -> None:
    recorder, inspected = Recorder(), like(tmp_path)
    store = StoreContainer(inspected, "qdrant", "q", "/qdrant/storage", "/qdrant/storage")
    with throwaways(recorder) as throwaway:
        name = throwaway.start(inspected, "probe", changes_for(store, "/copy"))
    assert recorder.bodies[name] == {
        "Image": "sha256:1",
        "Env": ["A=1", "EMPTY=", "QDRANT__SERVICE__ENABLE_TLS=false"],
        "Cmd": ["./entrypoint.sh"],
        "User": "1000",
        "WorkingDir": "/qdrant",
        "Hostname": "localhost",
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {LABEL: "om"},
        "HostConfig": {
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Memory": 1 << 30,
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
            "NetworkMode": "none",
            "Mounts": [
                {
                    "Type": "bind",
                    "Target": "/qdrant/config/production.yaml",
                    "Source": str(tmp_path / "production.yaml"),
                    "ReadOnly": True,
                },
                {"Type": "bind", "Target": "/qdrant/storage", "Source": "/copy"},
            ],
        },
    }
    assert recorder.events == ["note throwaway.containers", "create", "start", "remove"]
    assert recorder.noted == []


def test_a_network_of_their_own(tmp_path: Path) -> None:
    recorder, changes = Recorder(), Changes({}, health=True, aliases=["qdrant"])
    with throwaways(recorder) as throwaway:
        name = throwaway.create(like(tmp_path), "drill", changes, networked=True)
        network = throwaway.network()
        body = recorder.bodies[name]
        assert body["HostConfig"]["NetworkMode"] == network
        assert body["HostConfig"]["DnsOptions"] == ["timeout:1", "attempts:2"]  # no name from outside is ever answered
        assert body["NetworkingConfig"] == {"EndpointsConfig": {network: {"Aliases": ["qdrant"]}}}
        assert body["Healthcheck"] == {"Test": ["CMD", "true"]}
        assert "Hostname" not in body
    assert recorder.events == [
        "note throwaway.networks",
        "network",
        "note throwaway.containers",
        "create",
        "remove",
        "remove network",
    ]
    assert recorder.noted == []


@pytest.mark.parametrize("broken", ["create", "start"])
def test_what_fails_is_removed(tmp_path: Path, broken: str) -> None:
    recorder = Recorder(broken)
    with (
        pytest.raises(StackError, match=f"{broken} is broken"),
        throwaways(recorder) as throwaway,
    ):
        throwaway.start(like(tmp_path), "probe", Changes({}))
    assert recorder.events[-1] == "remove"
    assert recorder.noted == []


def test_what_cannot_be_removed_stays_noted_and_is_said(tmp_path: Path) -> None:
    recorder = Recorder("remove")
    throwaway = throwaways(recorder)
    with pytest.raises(StackError, match="A throw-away container is left"), throwaway:
        throwaway.start(like(tmp_path), "probe", Changes({}))
    assert len(recorder.noted) == 1
    with pytest.raises(StackError, match="first"), throwaway:
        raise StackError("first")


def test_neo4js_login_plugins_and_certificates_stay_away() -> None:
    env = ["NEO4J_AUTH=neo4j/secret-word", "NEO4J_PLUGINS=[]", "NEO4J_dbms_ssl_policy_bolt_enabled=true", "A=1"]
    inspected = {"Name": "/n", "Config": {"Env": env, "Image": "neo4j"}, "Mounts": []}
    changes = changes_for(StoreContainer(inspected, "neo4j", "n", "/data", "/data"), "/copy", {"/out": "/o"})
    assert changes.binds == {"/data": "/copy", "/out": "/o"}
    assert changes.environment["NEO4J_AUTH"] == "none"
    assert {"NEO4J_PLUGINS", "NEO4J_dbms_ssl_policy_bolt_enabled"} <= set(changes.drop)


def test_the_reason_is_not_pushed_out_of_sight_by_frames() -> None:
    assert telling(["a", "Caused by: b", "\tat x.y", "... 3 more"], 2) == ["a", "Caused by: b"]
    assert telling(["at x"], 2) == ["at x"]


def test_a_log_does_not_tell_the_secrets_of_its_environment(tmp_path: Path) -> None:
    class Talking(Recorder):
        def logs(self, name: str, tail: int = 20) -> str:
            return f"{name[:4]}: started with the key secret=1\n"

    throwaway = throwaways(Talking())
    name = throwaway.create(like(tmp_path), "probe", Changes({}))
    assert throwaway.last_lines(name) == "its last lines:\n  open: started with the key ********"
