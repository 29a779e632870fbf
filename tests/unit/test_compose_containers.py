# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How healthy a container is, where the engine's list alone does not tell."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_containers import health_now
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError


class Engine:
    """Answers about one container, and only where it is asked for."""

    def __init__(self, state: dict[str, Any] | None):
        self.state = state

    def inspect_container(self, name: str) -> dict[str, Any]:
        if self.state is None:
            raise NotFoundError(f"No such container: {name}")
        return {"State": self.state}


@pytest.mark.parametrize(
    ("status", "state", "health"),
    [
        ("Up 9 minutes (healthy)", None, "healthy"),
        ("Up 1 second (health: starting)", None, "starting"),
        ("Up 9 minutes", None, "none"),
        ("Up 9 minutes (unhealthy)", {"Health": {"Status": "unhealthy", "FailingStreak": 3}}, "unhealthy"),
        (
            "Up 9 minutes (unhealthy)",
            {"Health": {"Status": "unhealthy", "FailingStreak": 0}},
            "starting",
        ),  # it was paused
        ("Up 9 minutes (unhealthy)", {"Health": {"Status": "unhealthy"}}, "unhealthy"),
        ("Up 9 minutes (unhealthy)", None, "unhealthy"),  # gone meanwhile
    ],
)
def test_health_now(status: str, state: dict[str, Any] | None, health: str) -> None:
    engine: Any = Engine(state)
    assert health_now(engine, {"Id": "1", "Status": status}) == health
