# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the command says of a stack that was moved to another host: where it is, and that nothing is missed here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import show, verbs
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.settings import Settings
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.retired import Retirement

LAST = {"created": "2020-01-02T03:04:05+00:00", "snapshot_id": "5f0c2a9be1", "freeze_s": 0.1, "verify": "quick"}


@pytest.mark.parametrize("moved", [False, True])
def test_a_stack_that_was_moved_away_misses_no_backup(moved: bool, tmp_path: Path) -> None:
    settings = Settings(project="om", state_dir=str(tmp_path / "state"), config_dir=str(tmp_path))
    places = Places.of("om", settings.state_dir)
    Path(places.state, "last.json").write_text(json.dumps({"backup": LAST}))
    if moved:
        Retirement("1", "om", "memory-2", "192.0.2.7", at="2026-11-26T02:31:00+00:00").write(places)
    told = verbs.status({"max_age": 26.0}, settings, Progress())
    assert len(told.result["attention"]) == (0 if moved else 1), told.result["attention"]  # it is too old
    assert ("to memory-2; what is here is old, and stopped" in told.text) is moved
    assert (told.result["retired"] or {}).get("target") == ("memory-2" if moved else None)


def test_nor_one_that_never_was() -> None:
    found = {"unfinished": None, "last": {}, "retired": {"target": "memory-2"}}
    assert show.attention(found, {}, datetime.now(UTC)) == []
    assert show.attention({**found, "retired": None}, {}, datetime.now(UTC)) != []
