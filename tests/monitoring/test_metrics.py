# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metrics as Prometheus's own tool reads them; the alert rules and the dashboard ask for nothing else."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import main as command
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import PartlyDoneError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring import metrics
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring import settings as monitoring_settings
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring.settings import MonitoringSettings, load
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring.watch import Watch, watched
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import (
    read_last,
    record_last,
    record_repository,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.retired import Retirement
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.checking import check_and_record
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.failures import Failure, error_of

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "monitoring" / "files"
NAME = re.compile(r"\bopenmemory_stack_\w+")
ODD = 'back\\slash "quoted"\nnew line'
LAST = {
    "backup": {
        "created": "2026-11-26T02:31:00+00:00",
        "finished": "2026-11-26T02:31:04.250+00:00",
        "seconds": 12.5,
        "snapshot_id": "5f0c2a9b",
        "freeze_s": 0.214,
        "bytes_read": 1536,
        "bytes_stored": 512,
        "warnings": ["look"],
        "volumes": {
            "data": {"store": "sqlite", "allocated_bytes": 2048, "check": {"level": "quick", "ok": True}},
            ODD: {"store": "files", "allocated_bytes": 1, "check": {"level": "none", "ok": None}},
        },
    },
    "backup_failed": {"created": "2026-11-25T02:31:04+00:00", "message": "No room."},
    "drill": {"created": "2026-11-22T04:00:00+00:00", "memories": 40, "seconds": 30.1},
    "drill_failed": {"created": "2026-11-23T04:00:00.001+00:00", "message": "Damaged.", "seconds": 3},
    "recovered": {"created": "2026-11-23T04:00:00+00:00", "message": "Put right."},
    "repositories": {
        "/var/backups/om": {"newest": "2026-11-26T02:31:00+00:00", "size_bytes": 4096, "snapshots": 3},
        "s3:https://s3.example.com/b": {"checked": "2026-11-22T05:00:00+00:00", "problems": ["pack 1", "pack 2"]},
        "rest:https://b.example.com/": {"checked": "2026-11-22T05:00:00+00:00", "problems": []},
    },
}
NEWEST = "2026-11-26T02:31:00+00:00"
TOLD = {"ops": {"delivered": True}, "hook": {"delivered": False}, "new": {}}


def promtool(*words: str, text: str = "") -> str:
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return f"{done.stdout}{done.stderr}"


def rendered(last: dict[str, Any] | None = None) -> str:
    settings = MonitoringSettings(max_age_s={"backup": 93600.0})
    return str(metrics.render("om", "/var/lib/openmemory-stack/om", LAST if last is None else last, settings, TOLD))


def samples(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_promtool_has_nothing_to_say_of_them() -> None:
    assert promtool("check", "metrics", text=rendered()) == ""


def test_every_metric_has_help_and_type_and_is_written() -> None:
    text = rendered({**LAST, "check": LAST["drill"], "recover": LAST["drill"]})
    written = {NAME.findall(name)[0] for name in samples(text)}
    assert written == set(metrics.NAMES)
    for name in metrics.NAMES:
        assert f"\n# TYPE {name} gauge\n" in f"\n{text}"
        assert re.search(rf"^# HELP {name} [A-Z].*\.$", text, re.MULTILINE)


def test_what_they_say() -> None:
    found = samples(rendered())
    of = {"backup": 'project="om",operation="backup"', "drill": 'project="om",operation="drill"'}
    ours = "openmemory_stack_"
    assert found[f"{ours}last_run_success{{{of['backup']}}}"] == 1  # it failed before, and not since
    assert found[f"{ours}last_run_timestamp_seconds{{{of['backup']}}}"] == 1795660264.25
    assert found[f"{ours}last_run_duration_seconds{{{of['backup']}}}"] == 12.5
    assert found[f"{ours}last_run_success{{{of['drill']}}}"] == 0
    assert found[f"{ours}last_run_duration_seconds{{{of['drill']}}}"] == 3
    assert found[f"{ours}last_success_timestamp_seconds{{{of['drill']}}}"] == 1795320000
    assert found[f'{ours}backup_instant_timestamp_seconds{{project="om"}}'] == 1795660260
    assert found[f'{ours}volume_check_success{{project="om",volume="data",store="sqlite"}}'] == 1
    assert found[f'{ours}repository_healthy{{project="om",repository="s3:https://s3.example.com/b"}}'] == 0
    assert found[f'{ours}repository_problems{{project="om",repository="s3:https://s3.example.com/b"}}'] == 2
    assert found[f'{ours}repository_healthy{{project="om",repository="rest:https://b.example.com/"}}'] == 1
    assert found[f'{ours}notification_success{{project="om",target="hook"}}'] == 0
    assert found[f'{ours}filesystem_free_bytes{{project="om",place="/var/backups/om"}}'] > 0
    absent = (
        'volume="back\\\\slash',
        'target="new"',
        'operation="check"',
        'repository_healthy{project="om",repository="/',
    )
    checked = [name for name in found if "volume_size" not in name]
    assert [name for name in checked for part in absent if part in name] == []


def test_a_host_that_has_done_nothing_yet() -> None:
    text = rendered({})
    assert promtool("check", "metrics", text=text) == ""
    assert "last_run_success" not in text
    assert 'openmemory_stack_max_age_seconds{project="om",operation="backup"} 93600.0\n' in text


def watch_for(place: Path, settings: dict[str, Any]) -> Watch:
    (place / "om.monitoring.json").write_text(json.dumps(settings))
    return Watch("om", "backup", str(place / "state"), str(place))


def good() -> dict[str, Any]:
    return {"warnings": []}


def test_the_file_is_replaced_at_once_and_anybody_may_read_it(tmp_path: Path) -> None:
    textfiles = tmp_path / "textfiles"
    textfiles.mkdir()
    watch = watch_for(tmp_path, {"metrics_dir": str(textfiles)})
    before = os.umask(0o077)
    try:
        watched(watch, good)
    finally:
        os.umask(before)
    file = textfiles / "openmemory-stack-om.prom"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert promtool("check", "metrics", text=file.read_text()) == ""
    first = file.stat().st_ino
    watched(watch, good)
    assert file.stat().st_ino != first  # never written in place
    assert [path.name for path in textfiles.iterdir()] == [file.name]


def test_a_directory_of_somebody_without_rights_cannot_lead_it_elsewhere(tmp_path: Path) -> None:
    textfiles, precious = tmp_path / "textfiles", tmp_path / "precious"
    textfiles.mkdir()
    precious.write_text("kept")
    (textfiles / "openmemory-stack-om.prom").symlink_to(precious)
    watched(watch_for(tmp_path, {"metrics_dir": str(textfiles)}), good)
    assert precious.read_text() == "kept"
    assert not (textfiles / "openmemory-stack-om.prom").is_symlink()


def test_a_directory_that_is_missing_is_a_warning_and_seen_in_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = watch_for(tmp_path, {"metrics_dir": str(tmp_path / "none")})
    (said,) = watched(watch, good)["warnings"]
    assert said.startswith(
        f"The metrics cannot be written to metrics_dir {tmp_path}/none (No such file or directory); "
    )
    assert command.main(["status", "-p", "om", "--config-dir", str(tmp_path), "--state-dir", watch.state_dir]) == 3
    assert f"Monitoring: {said}" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    assert watched(watch, good)["warnings"] == []
    command.main(["status", "-p", "om", "--config-dir", str(tmp_path), "--state-dir", watch.state_dir])
    assert "Monitoring" not in capsys.readouterr().out


def test_a_failure_is_written_too(tmp_path: Path) -> None:
    watch = watch_for(tmp_path, {"metrics_dir": str(tmp_path)})

    def bad() -> dict[str, Any]:
        raise StackError("No room.")

    with pytest.raises(StackError, match=r"^No room\.$"):
        watched(watch, bad)
    text = (tmp_path / "openmemory-stack-om.prom").read_text()
    assert 'openmemory_stack_last_run_success{project="om",operation="backup"} 0\n' in text
    assert "last_success_timestamp" not in text
    assert promtool("check", "metrics", text=text) == ""


def test_a_host_that_nobody_watches_gets_nothing(tmp_path: Path) -> None:
    watch = Watch("om", "backup", str(tmp_path / "state"), str(tmp_path))
    assert watched(watch, good) == {"warnings": []}
    assert list(tmp_path.iterdir()) == []


def test_auto_is_debians_directory_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring_settings, "DEBIAN_TEXTFILES", str(tmp_path / "node-exporter"))
    assert MonitoringSettings().textfiles is None
    (tmp_path / "node-exporter").mkdir()
    assert MonitoringSettings().textfiles == str(tmp_path / "node-exporter")
    assert MonitoringSettings(metrics_dir="").textfiles is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "holds 'no table'"),
        ('{"metric_dir": "/x"}', "holds 'metric_dir', which is no setting; use max_age_s, metrics_dir, notify_on"),
        ('{"metrics_dir": "x"}', "metrics_dir in .* is 'x'; give an absolute path"),
        ('{"notify_on": ["always"]}', "notify_on in .* is always; use failure and recovery"),
        ('{"max_age_s": {"backup": "soon"}}', "max_age_s in .* is no table of seconds"),
    ],
)
def test_settings_that_cannot_be_meant_are_a_warning(tmp_path: Path, text: str, says: str) -> None:
    watch = watch_for(tmp_path, {})
    watched(watch, good)
    (tmp_path / "om.monitoring.json").write_text(text)
    with pytest.raises(StackError, match=says):
        load(str(tmp_path), "om")
    (said,) = watched(watch, good)["warnings"]
    assert re.search(says, said)


def test_status_knows_what_is_too_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = watch_for(tmp_path, {"max_age_s": {"backup": 93600, "drill": 1, "check": 1}, "metrics_dir": ""})
    watched(watch, good)
    record_last(watch.places(), "drill", {"created": "2020-01-02T03:04:05+00:00"})
    known = ["--json", "-p", "om", "--config-dir", str(tmp_path), "--state-dir", watch.state_dir]
    assert command.main(["status", *known]) == 3
    (said,) = json.loads(capsys.readouterr().out)["attention"]
    assert said.startswith("The last drill is ")
    (tmp_path / "om.monitoring.json").write_text("{")
    assert command.main(["status", *known]) == 3
    (said,) = json.loads(capsys.readouterr().out)["attention"]
    assert "om.monitoring.json cannot be read" in said


def test_a_near_repository_is_not_behind_because_a_far_one_is(tmp_path: Path) -> None:
    watch = watch_for(tmp_path, {"metrics_dir": str(tmp_path)})
    watched(watch, good)
    near = Watch(
        watch.project, watch.operation, watch.state_dir, watch.config_dir, lambda: ("/near", {"newest": NEWEST})
    )

    def partly() -> dict[str, Any]:
        raise PartlyDoneError("The snapshot was made, but it was not copied to far.", {})

    with pytest.raises(PartlyDoneError):
        watched(near, partly)
    text = (tmp_path / "openmemory-stack-om.prom").read_text()
    assert 'repository_instant_timestamp_seconds{project="om",repository="/near"} 1795660260.0\n' in text
    assert 'last_run_success{project="om",operation="backup"} 0\n' in text


class Unsound:
    """A repository in which restic finds damage: it lists it, or gives up at it."""

    def __init__(self, problems: list[str], gives_up: bool):
        self.restic = SimpleNamespace(shown="/near")
        self.problems = problems
        self.gives_up = gives_up

    def check(self, read_data: bool | str) -> list[str]:
        if self.gives_up:
            raise error_of(Failure("check the repository", "/near", "", 1, self.problems))
        return self.problems

    def stats(self) -> dict[str, Any]:
        return {"size_bytes": 1, "snapshots": 1}


@pytest.mark.parametrize("gives_up", [False, True])
def test_damage_is_recorded_however_restic_tells_of_it(tmp_path: Path, gives_up: bool) -> None:
    places = Places.of("om", str(tmp_path))
    repository = Unsound(["pack de9f: does not exist"], gives_up)
    with pytest.raises(StackError, match="/near is damaged"):
        check_and_record(repository, places)
    last = read_last(places)
    assert "pack de9f: does not exist" in last["repositories"]["/near"]["problems"][0]
    assert 'repository_healthy{project="om",repository="/near"} 0\n' in rendered(last)


def test_what_is_recorded_stays_for_those_who_read_it(tmp_path: Path) -> None:
    places = Places.of("om", str(tmp_path))
    record_last(places, "backup", {"created": "2026-11-26T02:31:00+00:00", "snapshot_id": "5f0c"})
    record_repository(places, "/near", {"newest": "2026-11-26T02:31:00+00:00"})
    watched(Watch("om", "backup", str(tmp_path), str(tmp_path)), good)
    record_repository(places, "/near", {"size_bytes": 3})
    last = read_last(places)
    assert last["backup"]["snapshot_id"] == "5f0c"
    assert last["backup"]["finished"] > last["backup"]["created"]
    assert last["repositories"] == {"/near": {"newest": "2026-11-26T02:31:00+00:00", "size_bytes": 3}}


def test_the_verb_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["-p", "om", "--config-dir", str(tmp_path), "--state-dir", str(tmp_path / "state")]
    assert command.main(["metrics", *place]) == 0
    assert "No directory for metrics is set" in capsys.readouterr().out
    watched(watch_for(tmp_path, {"metrics_dir": str(tmp_path)}), good)
    assert command.main(["metrics", *place, "--print"]) == 0
    assert promtool("check", "metrics", text=capsys.readouterr().out) == ""
    (tmp_path / "openmemory-stack-om.prom").unlink()
    assert command.main(["metrics", *place]) == 0
    assert (tmp_path / "openmemory-stack-om.prom").exists()


def test_the_alert_rules_fire_when_they_should_and_not_else() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(FILES / "openmemory_stack.rules.yml"))
    assert "SUCCESS" in promtool("test", "rules", str(ROOT / "tests/monitoring/rules_test.yml"))


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FILES / "openmemory_stack.rules.yml").read_text())["groups"]
    return list(group["rules"])


def test_every_alert_is_tested_and_asks_for_what_is_written() -> None:
    tested = yaml.safe_load((ROOT / "tests/monitoring/rules_test.yml").read_text())["tests"]
    fired = {each["alertname"] for test in tested for each in test.get("alert_rule_test", ()) if each["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}
    assert {name for rule in rules() for name in NAME.findall(rule["expr"])} - set(metrics.NAMES) == set()


def test_the_dashboard_asks_for_what_is_written_in_promql_that_is_right(tmp_path: Path) -> None:
    dashboard = json.loads((FILES / "openmemory_stack.dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["definition"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    asked = {name for query in queries for name in NAME.findall(query)}
    assert asked - set(metrics.NAMES) == set()
    labels = set(re.findall(r"(\w+)=", rendered())) | {"instance", "job"}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - labels == set()
            assert set(re.findall(r"(\w+)=", target["expr"])) - labels == set()
    plain = [query for query in queries if not query.startswith("label_values")]
    recorded = [{"record": f"dashboard:query:{number}", "expr": query} for number, query in enumerate(plain)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recorded}]}))
    assert f"{len(plain)} rules found" in promtool("check", "rules", str(tmp_path / "queries.yml"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 10


def test_the_metrics_of_a_stack_that_was_moved_are_taken_away(tmp_path: Path) -> None:
    watch = watch_for(tmp_path, {"metrics_dir": str(tmp_path)})
    watched(watch, good)
    file = tmp_path / "openmemory-stack-om.prom"
    assert file.exists()
    Retirement("1f", "om", "other", "192.0.2.1").write(watch.places())
    known = ["-p", "om", "--config-dir", str(tmp_path), "--state-dir", watch.state_dir]
    assert command.main(["metrics", *known]) == 0
    assert not file.exists()
