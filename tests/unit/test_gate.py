# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version gate: which image may open which snapshot, and what tells a version."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.gate import (
    problem_between,
    snapshot_version,
    version_of,
    version_problem,
    version_warning,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.manifest import Manifest


@pytest.mark.parametrize(
    ("kind", "snapshot", "target", "reason"),
    [
        ("qdrant", "1.18.0", "1.18.0", None),
        ("qdrant", "1.18.2", "1.18.0", None),
        ("qdrant", "v1.18.0", "v1.19.4", None),
        ("qdrant", "1.18.0", "1.20.0", "one minor version at a time"),
        ("qdrant", "1.18.0", "1.17.9", "it is older"),
        ("qdrant", "1.18.0", "2.0.0", "one minor version at a time"),
        ("qdrant", "1.9.0", "1.10.0", None),
        ("qdrant", "1.18.0", "latest", None),
        ("qdrant", None, "1.18.0", None),
        ("neo4j", "5.26.30", "5.26.30", None),
        ("neo4j", "5.26.30", "5.26.5", None),
        ("neo4j", "5.10.0", "5.26.30", None),
        ("neo4j", "5.26.30", "5.25.1", "it is older"),
        ("neo4j", "5.26.30", "2025.10.1", None),
        ("neo4j", "5.25.1", "2025.10.1", "upgraded to 5.26 before"),
        ("neo4j", "2025.01.0", "2026.03.0", None),
        ("neo4j", "2025.10.1", "2025.01.0", "it is older"),
        ("neo4j", "2025.10.1", "5.26.30", "it is older"),
        ("neo4j", "4.4.40", "5.26.30", None),
        ("neo4j", "4.4.40", "5.25.0", "to 5.26 only"),
        ("neo4j", "4.4.40", "2025.10.1", "to 5.26 only"),
        ("neo4j", "4.3.0", "5.26.30", "to 5.26 only"),
        ("neo4j", "4.4.40", "4.4.44", None),
        ("neo4j", "5", "5.26.30", None),
        ("sqlite", "1.0", "1.0", None),
        ("sqlite", "1.0", "1.1", None),
        ("sqlite", "1.1", "1.0", "it is older"),
        ("sqlite", "1.10", "1.9", "it is older"),
        ("sqlite", "1.1.5", "1.1", None),
        ("files", "2", "1", None),
        (None, "2", "1", None),
    ],
)
def test_the_gate(kind: str | None, snapshot: str | None, target: str, reason: str | None) -> None:
    found = problem_between(kind, snapshot, target)
    assert (found is None) == (reason is None)
    if reason is not None:
        assert f"{snapshot}, and" in str(found)
        assert reason in str(found)


def image(tags: list[str], env: list[str] | None = None, labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"RepoTags": tags, "Config": {"Env": env, "Labels": labels}}


LABEL = "org.opencontainers.image.version"


@pytest.mark.parametrize(
    ("kind", "target", "reference", "version"),
    [
        ("qdrant", "qdrant/qdrant:v1.20.0", None, "1.20.0"),
        ("qdrant", "registry.example:5000/qdrant/qdrant:v1.20.0-unprivileged@sha256:00", None, "1.20.0"),
        ("qdrant", "qdrant/qdrant", None, None),
        ("qdrant", "registry.example:5000/qdrant/qdrant", None, None),
        ("qdrant", "qdrant/qdrant:latest", None, None),
        ("neo4j", "neo4j:5.26.30-community-ubi9", None, "5.26.30"),
        ("neo4j", "neo4j:2025.10-enterprise", None, "2025.10"),
        ("sqlite", "mem0/openmemory-mcp:4f2a91c", None, None),
        ("qdrant", image([]), "qdrant/qdrant:v1.19.1", "1.19.1"),
        ("qdrant", image(["own/name:v1.19.1"]), None, "1.19.1"),
        ("neo4j", image([], ["NEO4J_TARBALL=neo4j-community-5.26.0-unix.tar.gz"]), "neo4j:latest", "5.26.0"),
        ("sqlite", image([], ["OPENMEMORY_VERSION=1.1"]), None, "1.1"),
        ("qdrant", image([], None, {LABEL: "v1.19.1"}), None, "v1.19.1"),
        ("neo4j", image([], [], {LABEL: "24.04", "org.opencontainers.image.ref.name": "ubuntu"}), None, None),
        ("qdrant", image([], None, None), None, None),
    ],
)
def test_what_tells_a_version(kind: str, target: Any, reference: str | None, version: str | None) -> None:
    assert version_of(kind, target, reference) == version


def manifest(**images: dict[str, Any]) -> Manifest:
    volumes = {
        "q": {"store": "qdrant", "store_version": "1.18.0"},
        "n": {"store": "neo4j", "store_version": None},
        "m": {"store": "sqlite", "store_version": "3.40.1"},
        "logs": {"store": "files", "store_version": None},
    }
    return Manifest("p", "id", "2026-11-25T00:00:00+00:00", "host", "0.1.0", "single", volumes=volumes, images=images)


def test_the_images_of_the_snapshot_tell_its_versions_and_qdrants_files_do_as_well() -> None:
    full = manifest(
        qdrant={"reference": "qdrant/qdrant:v1.19.0", "version": None},
        graph={"reference": "own/neo4j:latest", "version": "5.26.30"},
        openmemory={"reference": "mem0/openmemory-mcp:1.1", "version": "3.11"},
        ui={"reference": "mem0/openmemory-ui:9.9", "version": None},
    )
    assert {key: snapshot_version(full, key) for key in full.volumes} == {
        "q": "1.19.0",
        "n": "5.26.30",
        "m": "1.1",
        "logs": None,
    }
    bare = manifest()
    assert {key: snapshot_version(bare, key) for key in bare.volumes} == {
        "q": "1.18.0",
        "n": None,
        "m": None,
        "logs": None,
    }


def test_a_problem_and_a_warning_never_come_together() -> None:
    snapshot = manifest(app={"reference": "mem0/openmemory-mcp:1.1"})
    assert version_problem(snapshot, "m", "mem0/openmemory-mcp:1.0") == (
        "The snapshot was written by OpenMemory 1.1, and OpenMemory 1.0 cannot take it over: it is older, and a "
        "database is not taken back a version."
    )
    assert version_warning(snapshot, "m", "mem0/openmemory-mcp:1.0") is None
    assert version_problem(snapshot, "m", "mem0/openmemory-mcp:latest") is None
    assert "does not say its version of OpenMemory" in str(version_warning(snapshot, "m", "mem0/openmemory-mcp:latest"))
    assert "the snapshot does not say which version of Neo4j" in str(version_warning(snapshot, "n", "neo4j:5.26.30"))
    assert version_warning(snapshot, "logs", "neo4j:5.26.30") is None
