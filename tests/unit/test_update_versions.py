# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which versions a store has to run on its way, which are refused, and where the images of steps are looked for."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import services
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.services import Image, Service
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.versions import (
    Way,
    step_references,
    way_between,
)


@pytest.mark.parametrize(
    ("kind", "now", "wanted", "steps"),
    [
        ("qdrant", "v1.18.0", "v1.18.3", []),
        ("qdrant", "v1.18.0", "v1.19.0", []),
        ("qdrant", "v1.18.2", "v1.20.0", ["1.19"]),
        ("qdrant", "v1.17.0", "v1.20.0", ["1.18", "1.19"]),
        ("qdrant", "v1.20.0", "v1.20", []),
        ("qdrant", "1.20.0", "latest", []),
        ("neo4j", "5.10.0", "5.26.30", []),
        ("neo4j", "5.26.30", "2025.10.1", []),
        ("neo4j", "5.10.0", "2025.10.1", ["5.26"]),
        ("neo4j", "2025.01.0", "2026.02.0", []),
        ("neo4j", "4.4.1", "4.4.40", []),
        ("sqlite", "1.0", "1.1", []),
        ("sqlite", "1.0", "2.0", []),
        ("files", "1", "9", []),
        (None, "2", "1", []),
    ],
)
def test_ways(kind: str | None, now: str, wanted: str, steps: list[str]) -> None:
    way = way_between(kind, now, wanted)
    assert (list(way.steps), way.problem) == (steps, None)


@pytest.mark.parametrize(
    ("kind", "now", "wanted", "steps", "says"),
    [
        ("qdrant", "v1.20.0", "v1.19.9", [], "not taken back to v1.19.9"),
        ("qdrant", "v1.20.1", "v1.20.0", [], "not taken back"),
        ("qdrant", "v1.20.0", "v2.0.0", [], "another major version"),
        ("neo4j", "2025.01.0", "5.26.30", [], "not taken back"),
        ("neo4j", "4.4.40", "5.26.30", [], "neo4j-admin database migrate"),
        ("neo4j", "4.4.40", "2025.10.1", ["5.26"], "migrated to 5.26"),
        ("neo4j", "4.3.1", "2025.10.1", ["4.4", "5.26"], "migrated to 5.26"),
        ("sqlite", "1.1", "1.0", [], "OpenMemory 1.1 runs"),
    ],
)
def test_where_there_is_no_way(kind: str, now: str, wanted: str, steps: list[str], says: str) -> None:
    way = way_between(kind, now, wanted)
    assert (list(way.steps), says in str(way.problem)) == (steps, True)


@pytest.mark.parametrize(
    ("kind", "wanted", "step", "first"),
    [
        ("qdrant", "qdrant/qdrant:v1.20.0", "1.19", "qdrant/qdrant:v1.19"),
        (
            "qdrant",
            "host:5000/qdrant/qdrant:v1.20.0-unprivileged",
            "1.19",
            "host:5000/qdrant/qdrant:v1.19-unprivileged",
        ),
        ("qdrant", "qdrant/qdrant:1.20.0", "1.19", "qdrant/qdrant:1.19"),
        ("qdrant", "qdrant/qdrant:latest", "1.19", "qdrant/qdrant:v1.19"),
        ("qdrant", "qdrant/qdrant:v1.20.0@sha256:" + "0" * 64, "1.19", "qdrant/qdrant:v1.19"),
        ("neo4j", "neo4j:2025.10.1-community", "5.26", "neo4j:5.26-community"),
        ("neo4j", "neo4j", "5.26", "neo4j:5.26"),
    ],
)
def test_where_the_image_of_a_step_is_looked_for(kind: str, wanted: str, step: str, first: str) -> None:
    found = step_references(kind, wanted, step)
    assert found == [first, first.replace(f":{first.rpartition(':')[2]}", f":{_with_patch(first, step)}")]


def _with_patch(reference: str, step: str) -> str:
    return reference.rpartition(":")[2].replace(step, f"{step}.0")


def service(way: Way, kind: str = "qdrant", newer: bool | None = True, version: str | None = "1.18.0") -> Service:
    before, after = Image("q:v1.18.0", "sha256:1", None, version), Image("q:v1.20.0", "sha256:2", None, "1.20.0")
    return Service("store", kind, before, after, newer, way)


def test_steps_are_refused_with_their_list_where_they_shall_not_be_taken() -> None:
    one = service(Way(["1.19"]))
    assert services.judge([one], "auto") == []
    with pytest.raises(
        StackError, match=r"services\.store\.image is q:v1\.20\.0, and Qdrant 1\.18\.0 runs.*1\.19, then"
    ):
        services.judge([one], "refuse")


def test_what_is_by_hand_is_told_with_its_steps() -> None:
    with pytest.raises(StackError, match=r"by hand: to 5\.26, then to 1\.20\.0\."):
        services.judge([service(Way(["5.26"], "by hand"), "neo4j")], "auto")


def test_what_is_not_newer_is_not_judged() -> None:
    assert services.judge([service(Way(problem="never"), newer=False)], "refuse") == []


def test_a_version_that_nobody_knows_is_warned_of() -> None:
    (said,) = services.judge([service(Way(), version=None)], "auto")
    assert "q:v1.18.0 does not say its version of Qdrant" in said


def test_the_second_name_of_a_step_is_tried_and_none_is_an_error() -> None:
    asked = []

    def only_full(reference: str) -> None:
        asked.append(reference)
        if not reference.endswith(".0"):
            raise StackError("manifest unknown")

    assert services.with_steps(service(Way(["1.19"])), only_full).steps == ("q:v1.19.0",)
    assert asked == ["q:v1.19", "q:v1.19.0"]

    def none(_reference: str) -> None:
        raise StackError("manifest unknown")

    with pytest.raises(StackError, match=r"has to run 1\.19 before that, .* neither q:v1\.19 nor q:v1\.19\.0"):
        services.with_steps(service(Way(["1.19"])), none)


class FakeEngine:
    """Images by reference and by id, and what the registry has."""

    def __init__(self, images: dict[str, str], registry: dict[str, str]):
        self.images = images
        self.registry = registry

    def inspect_image(self, name: str) -> dict[str, Any]:
        identity = self.images.get(name, name)
        if not identity.startswith("sha256:"):
            raise NotFoundError("no such image")
        return {"Id": identity, "RepoDigests": [f"q@sha256:d-{identity[7:]}"], "RepoTags": [], "Config": {}}

    def registry_digest(self, name: str) -> str:
        if name not in self.registry:
            raise StackError("the registry is away")
        return self.registry[name]


def find(engine: FakeEngine, reference: str, ask_registry: bool) -> tuple[Service, list[str]]:
    about = {
        "Name": "/om-q-1",
        "Image": "sha256:1",
        "Config": {"Image": "q:v1", "Labels": {"com.docker.compose.service": "q"}, "Env": []},
    }
    config = {"services": {"q": {"image": reference}, "built": {"build": "."}, "absent": {"image": "x:1"}}}
    fake: Any = engine
    (found,), warnings = services.find_services(fake, config, [about], ask_registry)
    return found, warnings


@pytest.mark.parametrize(
    ("images", "registry", "reference", "ask", "newer", "digest"),
    [
        ({"q:v1": "sha256:1"}, {}, "q:v1", False, False, "sha256:d-1"),
        ({"q:v1": "sha256:2"}, {}, "q:v1", False, True, "sha256:d-2"),
        ({"q:v1": "sha256:1"}, {"q:v1": "sha256:d-1"}, "q:v1", True, False, "sha256:d-1"),
        ({"q:v1": "sha256:1"}, {"q:v1": "sha256:d-9"}, "q:v1", True, True, "sha256:d-9"),
        ({}, {"q:v2": "sha256:d-2"}, "q:v2", True, True, "sha256:d-2"),
        ({"q:v1": "sha256:1"}, {}, "q:v1", True, None, "sha256:d-1"),
        ({"q:v2": "sha256:2"}, {}, "q:v2", True, True, "sha256:d-2"),
    ],
)
def test_what_is_newer(
    images: dict[str, str], registry: dict[str, str], reference: str, ask: bool, newer: bool | None, digest: str
) -> None:
    found, warnings = find(FakeEngine(images, registry), reference, ask)
    assert (found.newer, found.after.digest, found.before.digest) == (newer, digest, "sha256:d-1")
    assert bool(warnings) == (ask and reference not in registry)
