# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""While a dead conversion is not put right, no volume is made: the one that is missing would be empty."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._volume_options import refuse_unfinished


def left(tmp_path: Path, operation: str, dead: bool = True) -> str:
    places = Places.of("openmemory", str(tmp_path), str(tmp_path / "run"))
    Journal.begin(places, operation, "20261125t101112-abcdef").phase("swap")
    if dead:
        found = json.loads(Path(places.journal).read_text())
        Path(places.journal).write_text(json.dumps({**found, "pid_start": -1}))
    return str(tmp_path)


def test_a_conversion_that_died_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"openmemory has died in the phase swap; run openmemory-stack recover"):
        refuse_unfinished("openmemory", left(tmp_path, "convert"), "fail")


@pytest.mark.parametrize(
    ("operation", "dead", "on_drift"),
    [("convert", True, "convert"), ("convert", False, "fail"), ("backup", True, "fail")],
)
def test_all_else_goes_on(tmp_path: Path, operation: str, dead: bool, on_drift: str) -> None:
    refuse_unfinished("openmemory", left(tmp_path, operation, dead), on_drift)


def test_without_a_journal_nothing_is_refused(tmp_path: Path) -> None:
    refuse_unfinished("openmemory", str(tmp_path), "fail")
