# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Conversions of the small stack: how they are asked for, and all back in its place afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.convert import convert
from ansible_collections.openmemory.stack.plugins.module_utils._core.convert.request import ConvertRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import parse_volumes
from restore_stack import PATHS, PROJECT, VOLUMES, Stack, tree

BOTH = ["omrest-app", "omrest-store"]


def request(stack: Stack, **places: str | None) -> ConvertRequest:
    """The volumes of this name on these paths, None for Docker's own place; the others as they are."""
    entries = []
    for name in VOLUMES:
        path = places[name] if name in places else (str(stack.root(name)) if name in PATHS else None)
        entries.append({"name": f"{PROJECT}_{name}", **({"path": path} if path else {})})
    return ConvertRequest(PROJECT, parse_volumes(entries, PROJECT), str(stack.state), wait_timeout=20)


def run(stack: Stack, **places: str | None) -> dict[str, Any]:
    found: dict[str, Any] = convert.run(request(stack, **places), stack.engine, Progress())
    return found


def contents(root: Path | str) -> dict[str, Any]:
    return tree(Path(root))


def ids(stack: Stack) -> dict[str, str]:
    return {name: stack.client.inspect_container(name)["Id"] for name in BOTH}


@pytest.fixture
def home(stack: Stack) -> Iterator[Stack]:
    """The stack, and its volumes back in their places afterwards."""
    yield stack
    recover(stack.engine, stack.places)
    for entry in kept.load(stack.places):
        assert kept.remove(entry.path) is None
    kept.save(stack.places, [])
    run(stack, data=None, db=None, disk=str(stack.directory / "disk"), place=str(stack.directory / "place"))
    for entry in kept.load(stack.places):
        assert kept.remove(entry.path) is None
    kept.save(stack.places, [])


def left(stack: Stack) -> list[str]:
    root = stack.engine.info()["DockerRootDir"]
    places = [root, stack.directory, stack.directory / "disk"]
    return sorted(name for place in places for name in os.listdir(place) if name.startswith(".openmemory-stack"))
