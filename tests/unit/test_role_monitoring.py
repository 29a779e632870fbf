# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role monitoring puts on a host, and what the hook of systemd makes of a unit that failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring import hook
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring import settings as core
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring.apprise import Target, read_targets
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import record_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places

ROLES = Path(__file__).resolve().parents[2] / "roles"
ROLE = ROLES / "monitoring"


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = DataLoader().load_from_file(str(path), trusted_as_template=True)
    return found


def templar(settings: dict[str, Any], role: Path = ROLE) -> Templar:
    variables = {
        **load(role / "defaults" / "main.yml"),
        **load(role / "vars" / "main.yml"),
        "ansible_managed": "managed",
    }
    return Templar(loader=DataLoader(), variables={**variables, **settings})


def value(name: str, **settings: Any) -> Any:
    engine = templar(settings)
    return engine.template(engine.available_variables[name])


def render(name: str, **settings: Any) -> str:
    return str(templar(settings).template(trust_as_template((ROLE / "templates" / f"{name}.j2").read_text())))


def test_the_settings_are_what_the_core_takes(tmp_path: Path) -> None:
    asked = {"backup": 26, "drill": "194.5"}
    told = value("monitoring__settings", monitoring_max_age=asked, monitoring_metrics_dir="")
    (tmp_path / "om.monitoring.json").write_text(json.dumps(told))
    found = core.load(str(tmp_path), "om")
    assert found is not None
    assert (found.max_age_s, found.notify_on) == ({"backup": 93600.0, "drill": 700200.0}, ("failure", "recovery"))
    assert (found.textfiles, found.targets_file) == (None, "")


def test_the_targets_are_what_the_core_reads(tmp_path: Path) -> None:
    urls = {"ops": "mailtos://a:b=c@h?to=x", "chat": "slack://A/B/C/#ops"}
    file = tmp_path / "om.apprise"
    file.touch(0o600)
    file.write_text(render("targets.apprise", monitoring_targets=urls, monitoring_project="om"))
    assert read_targets(str(file)) == [Target("chat", urls["chat"]), Target("ops", urls["ops"])]


def test_the_units() -> None:
    dropin = render("on_failure.conf", monitoring_project="om", monitoring_on_failure=["page-me.service"])
    assert dropin.endswith("[Unit]\nOnFailure=openmemory-stack-failed@om.service page-me.service\n")
    unit = render("openmemory-stack-failed.service", monitoring_project="om")
    assert "ExecStart=/usr/local/bin/openmemory-stack failed --project om\n" in unit
    assert value("monitoring__operations") == list(hook.OPERATIONS)


def test_the_purge_role_removes_all_that_this_role_writes() -> None:
    engine = templar({"purge_project": "om"}, ROLES / "purge")
    gone = set(engine.template(engine.available_variables["purge__monitoring"]))
    names = ("monitoring__settings_file", "monitoring__targets_file")
    written = {value(name, monitoring_project="om") for name in names}
    units = "/etc/systemd/system"
    written.add(f"{units}/{value('monitoring__hook_unit', monitoring_project='om')}")
    written |= {f"{units}/{hook.unit_of(operation, 'om')}.d" for operation in hook.OPERATIONS}
    assert gone == written


@pytest.mark.parametrize(
    ("settings", "beginning"),
    [
        ({}, ""),
        ({"monitoring_targets": {"ops": "json://user:secret@h/x"}}, ""),
        ({"monitoring_project": "Open Memory"}, "monitoring_project is 'Open Memory', which is no name"),
        ({"monitoring_metrics_dir": "metrics"}, "monitoring_metrics_dir is 'metrics'; give an absolute path"),
        ({"monitoring_max_age": {"backups": 26}}, "monitoring_max_age names backups; use backup, drill and check."),
        ({"monitoring_targets": {"the ops": "json://secret"}}, "monitoring_targets has the name 'the ops'; use"),
        ({"monitoring_targets": {"ops": "secret"}}, "monitoring_targets.ops is no URL of Apprise; give one such as"),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], beginning: str) -> None:
    problem = str(value("monitoring__problem", **settings)).strip()
    assert problem.startswith(beginning) if beginning else problem == ""
    assert "secret" not in problem
    assert "\n" not in problem


def shown(monkeypatch: pytest.MonkeyPatch, **units: dict[str, str]) -> None:
    """systemd says so of the units of these operations, and of no other."""
    found = {hook.unit_of(operation, "om"): about for operation, about in units.items()}
    monkeypatch.setattr(hook, "show", lambda unit: found.get(unit, {"ActiveState": "inactive"}))


FAILED = {"ActiveState": "failed", "Result": "signal", "ExecMainStatus": "9", "InvocationID": "1f"}


@pytest.mark.parametrize(
    ("about", "says"),
    [
        (FAILED, "a signal ended it (9)"),
        ({**FAILED, "Result": "oom-kill"}, "the kernel ended it for want of memory"),
        ({**FAILED, "Result": "exit-code", "ExecMainStatus": "203"}, "(exit-code, exit status 203)"),
        ({**FAILED, "Result": "exit-code", "ExecMainStatus": "4"}, "gave up: another operation was under way"),
    ],
)
def test_a_run_that_could_not_say_why_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, about: dict[str, str], says: str
) -> None:
    shown(monkeypatch, backup=about)
    places = Places.of("om", str(tmp_path))
    assert hook.run("om", str(tmp_path), str(tmp_path))["actions"] == ["backup: its failure was recorded"]
    failed = json.loads(Path(places.last).read_text())["backup_failed"]
    assert says in failed["message"]
    assert failed["invocation"] == "1f"
    again = hook.run("om", str(tmp_path), str(tmp_path))
    assert again["actions"] == ["backup: it failed, and had said so itself"]
    assert json.loads(Path(places.last).read_text())["backup_failed"] == failed


def test_what_the_run_said_itself_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, drill=FAILED)
    places = Places.of("om", str(tmp_path))
    said = {"created": "2026-11-26T04:00:00.001+00:00", "message": "Damaged.", "invocation": "1f"}
    record_last(places, "drill_failed", said)
    hook.run("om", str(tmp_path), str(tmp_path))
    assert json.loads(Path(places.last).read_text())["drill_failed"] == said


def test_nothing_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch)
    assert hook.run("om", str(tmp_path), str(tmp_path)) == {"changed": False, "actions": [], "warnings": []}
    assert hook.failed_units("om") == []
    shown(monkeypatch, check=FAILED)
    assert hook.failed_units("om") == ["openmemory-stack-check@om.service"]
