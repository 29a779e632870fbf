# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles backup, restore and purge put on a host: the command, its settings, the units."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.openmemory.stack.plugins.filter.operation_summary import operation_summary
from ansible_collections.openmemory.stack.plugins.lookup import core_archive
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import settings as command_settings
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.modules import stack_purge, volume_backup, volume_restore

ROLES = Path(__file__).resolve().parents[2] / "roles"
ROLE = ROLES / "backup"


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = DataLoader().load_from_file(str(path), trusted_as_template=True)
    return found


def templar(settings: dict[str, Any]) -> Templar:
    own = {"ansible_managed": "managed", "ansible_facts": {}, "backup__core": {"path": "/a", "version": "1f"}}
    variables = {**load(ROLE / "defaults" / "main.yml"), **load(ROLE / "vars" / "main.yml"), **own, **settings}
    return Templar(loader=DataLoader(), variables=variables)


def value(name: str, **settings: Any) -> Any:
    engine = templar(settings)
    return engine.template(engine.available_variables[name])


def render(name: str, **settings: Any) -> str:
    source = load_text(ROLE / "templates" / f"{name}.j2")
    return str(templar(settings).template(source))


def load_text(path: Path) -> Any:
    from ansible.template import trust_as_template

    return trust_as_template(path.read_text(encoding="utf-8"))


def test_the_settings_are_what_the_command_takes(tmp_path: Path) -> None:
    (tmp_path / "om.json").write_text(json.dumps(value("backup__settings", backup_project="om")), encoding="utf-8")
    found = command_settings.load(str(tmp_path), {})
    assert (found.repository, found.password_file) == (
        "/var/backups/openmemory/om",
        "/etc/openmemory-stack/om.password",
    )
    request = BackupRequest(**{**found.options, **found.repository_options()}, keep=Keep(**found.keep))
    request.check()
    assert request.volumes is None
    assert request.staging_dir is None


def test_far_repositories_reach_the_command_without_their_passwords() -> None:
    far = [
        {"name": "a", "repository": "/far", "password": "s3cret-a", "keep": {"last": 1}, "init": True},
        {"name": "b", "repository": "s3:x/b", "environment": {"K": "v"}, "password": None},
        {"name": "c", "repository": "/c", "password": "s3cret-c", "password_file": "/own"},
    ]
    found = value("backup__settings", backup_project="om", backup_copies=far)
    assert found["copies"] == [
        {
            "name": "a",
            "repository": "/far",
            "keep": {"last": 1},
            "init": True,
            "password_file": "/etc/openmemory-stack/om.a.password",
        },
        {
            "name": "b",
            "repository": "s3:x/b",
            "environment": {"K": "v"},
            "password_file": "/etc/openmemory-stack/om.password",
        },
        {"name": "c", "repository": "/c", "password_file": "/own"},
    ]
    request = BackupRequest("om", "/near", "/secret", copies=found["copies"])
    request.check()
    assert "s3cret" not in json.dumps(found)


def test_the_run_now_is_the_run_of_the_timer() -> None:
    """Each option of a backup is in the settings of the command and in the role's own task."""
    (task,) = yaml.safe_load((ROLE / "tasks" / "run.yml").read_text())
    passed = set(task["openmemory.stack.volume_backup"])
    in_settings = set(value("backup__settings")) | set(value("backup__options")) - {"options"}
    assert passed - {"compose_project"} == in_settings - {"options", "project"}
    known = {each.name for each in fields(BackupRequest)}
    assert set(value("backup__options")) - known == set()
    assert passed - {"docker_host", "state_dir"} <= set(volume_backup.argument_spec()) | {
        "compose_project", "repository", "password_file", "environment"
    }  # fmt: skip


def test_the_restore_role_passes_every_option() -> None:
    (task,) = yaml.safe_load((ROLES / "restore" / "tasks" / "restore.yml").read_text())
    assert set(volume_restore.argument_spec()) - set(task["openmemory.stack.volume_restore"]) == {"stop_timeout"}
    templates = task["openmemory.stack.volume_restore"].values()
    used = set(re.findall(r"restore_\w+", " ".join(templates)))
    assert used | {"restore_recover"} == set(load(ROLES / "restore" / "defaults" / "main.yml"))  # for the unit


def test_the_purge_role_passes_every_option() -> None:
    tasks = ROLES / "purge" / "tasks"
    block = next(each for each in yaml.safe_load((tasks / "main.yml").read_text()) if "module_defaults" in each)
    given = block["module_defaults"]["openmemory.stack.stack_purge"]
    shared = {"compose_project", "docker_host", "repository", "password_file", "environment", "state_dir"}
    assert set(given) == {*shared, *stack_purge.argument_spec()} - {"stop_timeout", "confirm"}
    used = set(re.findall(r"purge_\w+", " ".join(str(value) for value in given.values())))
    assert used | {"purge_confirm"} == set(load(ROLES / "purge" / "defaults" / "main.yml"))


def purge_value(name: str, **settings: Any) -> Any:
    variables = {**load(ROLES / "purge" / "defaults" / "main.yml"), **load(ROLES / "purge" / "vars" / "main.yml")}
    engine = Templar(loader=DataLoader(), variables={**variables, "purge_project": "om", **settings})
    return engine.template(engine.available_variables[name])


def test_the_purge_role_removes_what_the_backup_role_has_made() -> None:
    assert sorted(purge_value("purge__units")) == sorted(value("backup__all_units", backup_project="om"))


@pytest.mark.parametrize(
    ("settings", "beginning"),
    [
        ({}, ""),
        ({"purge_confirm": "om"}, ""),
        (
            {"purge_confirm": "openmemory"},
            "purge_confirm is 'openmemory', and the stack to remove is om; type -e purge_c",
        ),
        ({"purge_project": "Open Memory"}, "purge_project is 'Open Memory', which is no name"),
    ],
)
def test_bad_settings_of_a_purge_are_one_sentence(settings: dict[str, Any], beginning: str) -> None:
    problem = purge_value("purge__problem", **settings)
    assert problem.startswith(beginning) if beginning else problem == ""
    assert "\n" not in problem


def test_units() -> None:
    service = render("openmemory-stack-backup.service", backup_project="om")
    assert "ExecStart=/usr/local/bin/openmemory-stack backup --project om --wait 120 --no-init\n" in service
    assert "\nCPUQuota=150%\n" in service
    assert "\nMemoryMax=2G\n" in service
    free = render("openmemory-stack-backup.service", backup_cpu_quota="", backup_memory_max="")
    assert "CPUQuota" not in free
    assert "MemoryMax" not in free
    timer = render("openmemory-stack-backup.timer", backup_schedule="hourly", backup_random_delay="5min")
    said = [line for line in timer.splitlines() if line[:1] not in ("#", "")]
    assert said[3:7] == ["OnCalendar=hourly", "RandomizedDelaySec=5min", "FixedRandomDelay=true", "Persistent=true"]
    check = value("backup__jobs", backup_check_read_data="5%")["check"]
    service = render("openmemory-stack-backup.service", backup_project="om", backup__job=check)
    assert "ExecStart=/usr/local/bin/openmemory-stack check --project om --wait 120 --read-data 5%%\n" in service
    assert "Description=Check the repository of the stack om\n" in service
    assert "SuccessExitStatus=3\n" in service
    drill = value("backup__jobs", backup_drill_schedule="Sun *-*-* 04:00:00")["drill"]
    assert "OnCalendar=Sun *-*-* 04:00:00\n" in render("openmemory-stack-backup.timer", backup__job=drill)
    recover = render("openmemory-stack-recover.service", backup_project="om", backup_state_dir="/s")
    assert "ConditionPathExists=/s/om/journal.json\n" in recover
    assert " recover --project om --state-dir /s --docker-host unix:///var/run/docker.sock\n" in recover
    assert "WantedBy=docker.service multi-user.target\n" in recover


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (
            {},
            [
                "openmemory-stack-backup@om.service",
                "openmemory-stack-backup@om.timer",
                "openmemory-stack-recover@om.service",
                "openmemory-stack-check@om.service",
                "openmemory-stack-check@om.timer",
            ],
        ),
        ({"backup_schedule": "", "backup_repository": "s3:far"}, ["openmemory-stack-recover@om.service"]),
        ({"backup_recover": False, "backup_schedule": "", "backup_check_schedule": ""}, []),
        ({"backup_recover": "false", "backup_schedule": "", "backup_check_schedule": ""}, []),  # as -e gives it
        (
            {
                "backup_recover": False,
                "backup_schedule": "",
                "backup_check_schedule": "",
                "backup_drill_schedule": "Sun",
            },
            ["openmemory-stack-drill@om.service", "openmemory-stack-drill@om.timer"],
        ),
    ],
)
def test_only_the_units_that_are_wanted(settings: dict[str, Any], names: list[str]) -> None:
    written = value("backup__units", backup_project="om", **settings)
    unwanted = value("backup__unwanted_units", backup_project="om", **settings)
    assert written == [name for name in names if "recover" not in name]  # recovery.yml has that
    assert sorted([*names, *unwanted]) == sorted(value("backup__all_units", backup_project="om"))


@pytest.mark.parametrize(
    ("settings", "python"),
    [
        ({}, "/usr/bin/python3"),
        ({"ansible_python_interpreter": "auto_silent"}, "/usr/bin/python3"),
        ({"ansible_python_interpreter": "/opt/python"}, "/opt/python"),
        ({"ansible_facts": {"discovered_interpreter_python": "/usr/bin/python3.11"}}, "/usr/bin/python3.11"),
        ({"backup_python": "/own", "ansible_python_interpreter": "/opt/python"}, "/own"),
    ],
)
def test_the_command_runs_with_a_python_of_the_host(settings: dict[str, Any], python: str) -> None:
    assert render("openmemory-stack", **settings).startswith(f"#!{python} -I\n")


@pytest.mark.parametrize(("said", "snapshots"), [('{"snapshots": 0}', 0), ('{"snapshots": 4}', 4), ("", 1), (None, 1)])
def test_a_first_backup_only_where_there_is_none(said: str | None, snapshots: int) -> None:
    found = {"backup_init": {"stdout": said} if said is not None else {"skipped": True}}
    assert int(value("backup__snapshots", **found)) == snapshots


@pytest.mark.parametrize(
    ("settings", "beginning"),
    [
        ({}, ""),
        ({"backup_project": "Open Memory"}, "backup_project is 'Open Memory', which is no name"),
        ({"backup_password_file": "secret"}, "backup_password_file is 'secret', which is no absolute path"),
        ({"backup_repository": "rest:https://me:pw@host/x"}, "backup_repository has a password in its URL"),
        ({"backup_repository": "rest:https://host/x"}, ""),
        (
            {"backup_copies": [{"repository": "rest:https://me:pw@host/x"}]},
            "repository in backup_copies has a password",
        ),
    ],
)
def test_bad_settings_are_one_sentence(settings: dict[str, Any], beginning: str) -> None:
    problem = value("backup__problem", **settings)
    assert problem.startswith(beginning) if beginning else problem == ""
    assert "pw" not in problem
    assert "\n" not in problem


@pytest.mark.parametrize("path", ["backup/vars/main.yml", "purge/vars/main.yml"])
def test_every_variable_has_the_roles_prefix(path: str) -> None:
    assert [name for name in load(ROLES / path) if not name.startswith(path.split("/")[0] + "__")] == []


def test_the_archive_is_the_command(tmp_path: Path) -> None:
    """Unpacked, it runs with a Python that knows neither Ansible nor this repository."""
    files = core_archive.sources()
    version = core_archive.version_of(files)
    packed = core_archive.pack(files, version)
    assert packed == core_archive.pack(files, version)
    archive = tmp_path / "core.tar.gz"
    archive.write_bytes(packed)
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert {(member.uid, member.gid) for member in tar.getmembers()} == {(0, 0)}
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", tmp_path], check=True)
    assert names[-1] == f"openmemory-stack/{version}/complete"
    launcher = tmp_path / "launcher"
    place = tmp_path / "openmemory-stack" / version
    launcher.write_text(render("openmemory-stack", backup__place=str(place)))
    done = subprocess.run(
        ["/usr/bin/python3", "-I", str(launcher), "backup", "--config-dir", str(tmp_path / "none")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("openmemory-stack: There are no settings in")


def test_another_code_is_another_version() -> None:
    assert core_archive.version_of({"a": b"1"}) != core_archive.version_of({"a": b"2"})
    assert core_archive.version_of({"a": b"1"}) != core_archive.version_of({"b": b"1"})


def test_summary_for_people() -> None:
    found = operation_summary({"actions": ["restore volume a"], "downtime_s": 11.0, "warnings": []}, "restore", "om")
    assert found == "restore volume a\nThe stack om was down for 11 s."


def test_summary_of_a_purge() -> None:
    result = {"changed": True, "actions": ["remove volume a"], "snapshot_id": "5f0c2a9be1", "warnings": ["look"]}
    assert operation_summary(result, "purge", "om") == (
        "remove volume a\nWarning: look\nRepositories, their passwords and images stay.\n"
        "The snapshot 5f0c2a9b brings the data of the stack om back."
    )
    gone = {"changed": False, "actions": ["nothing of the stack om is on this host"]}
    assert operation_summary(gone, "purge", "om") == "nothing of the stack om is on this host"
