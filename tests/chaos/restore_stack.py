# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The light stack on this machine's engine with a snapshot, for restores, and its fixtures.

All that is made is named omrest, and is removed before and after.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from light_stack import IMAGE, LABELS, PATHS, PROJECT, VOLUMES, Stack, tree
from sleep_image import make_image

__all__ = ["IMAGE", "LABELS", "PATHS", "PROJECT", "VOLUMES", "Stack", "tree"]


@pytest.fixture(scope="module")
def image() -> Iterator[None]:
    """/bin/sleep of this machine and nothing else. Names are fixed, so two runs on one engine wait for each other."""
    client = docker.APIClient()
    with open(f"/var/tmp/{PROJECT}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["sh", "-c", make_image(IMAGE)], check=True, stdout=subprocess.DEVNULL)
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
    stack.afresh("live")
    assert stack.running() == ["omrest-app", "omrest-store"]
    return stack


@pytest.fixture
def snapshot(made: tuple[Stack, dict[str, Any]]) -> dict[str, Any]:
    """The trees of the snapshot."""
    return made[1]
