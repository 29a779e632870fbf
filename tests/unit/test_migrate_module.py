# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The adapters of a migration: what the module says of a failure, and when the role closes the target's door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import departure
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.departure_undo import (
    COMMITTING,
    KEY,
    MOVING,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.departure_undo import (
    RETIRED as SOURCE_RETIRED,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.modules import stack_migrate

ROLE = Path(__file__).resolve().parents[2] / "roles/migrate"
OPTIONS = {"compose_project": "om", "operation": "20261125t021500-5f0c2a", "target": "new", "address": "192.0.2.7"}
RETIRED = {"target": "new", "address": "192.0.2.7", "at": "2026-11-25T02:15:07+00:00"}


@pytest.mark.parametrize(
    ("stage", "doubt"), [(MOVING, False), (COMMITTING, True), (SOURCE_RETIRED, False), (None, False)]
)
def test_a_failure_says_whether_it_is_one_in_doubt(
    stage: str | None,
    doubt: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the journal, whatever the error was: the door of the target must not be closed before it was asked."""

    def fail(*_about: Any) -> dict[str, Any]:
        if stage is not None:
            places = Places.of("om", str(tmp_path), str(tmp_path / "run"))
            Journal.begin(places, "migrate", OPTIONS["operation"]).note(KEY, {"stage": stage})
        raise StackError("Nobody knows.")

    monkeypatch.setattr(departure, "run", fail)
    monkeypatch.setattr(stack_migrate, "connect", lambda _module: "engine")
    with patch_module_args({**OPTIONS, "state_dir": str(tmp_path)}), pytest.raises(SystemExit):
        stack_migrate.main()
    found = json.loads(capsys.readouterr().out)
    assert (found["failed"], found["msg"], found["in_doubt"]) == (True, "Nobody knows.", doubt)


def value(name: str, **source: Any) -> Any:
    """One of the role's variables, with what the source has registered."""
    own = DataLoader().load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
    names = {"migrate_project": "om", "migrate_source": "old", "migrate_target": "new"}
    hosts = {**names, "hostvars": {"old": source, "new": {}}}
    engine = Templar(loader=DataLoader(), variables={**own, **hosts})
    return engine.template(engine.available_variables[name])


PREPARED = {"operation": OPTIONS["operation"], "retired": None}


@pytest.mark.parametrize(
    ("source", "settled"),
    [
        ({"migrate_prepared": PREPARED, "migrate_result": {"retired": RETIRED}}, True),
        ({"migrate_prepared": {"operation": None, "retired": RETIRED}, "migrate_result": {"skipped": True}}, True),
        ({"migrate_prepared": PREPARED, "migrate_result": {"failed": True, "in_doubt": False}}, True),
        ({"migrate_prepared": PREPARED, "migrate_result": {"failed": True, "in_doubt": True}}, False),
        ({"migrate_prepared": PREPARED, "migrate_result": {"failed": True, "msg": "MODULE FAILURE"}}, False),
        ({"migrate_prepared": PREPARED, "migrate_result": {"unreachable": True}}, False),
        ({"migrate_prepared": PREPARED}, False),
    ],
)
def test_the_door_is_closed_only_when_the_source_will_not_ask_any_more(source: dict[str, Any], settled: bool) -> None:
    """A source in doubt stays frozen until it has been answered, and asks with the key of its migration."""
    assert value("migrate__settled", **source) is settled


def test_the_source_leads_to_where_it_has_gone() -> None:
    assert value("migrate__problem", migrate_prepared=PREPARED) == ""
    elsewhere = {**PREPARED, "retired": {**RETIRED, "target": "third"}}
    assert "was moved from old to third already" in value("migrate__problem", migrate_prepared=elsewhere)
