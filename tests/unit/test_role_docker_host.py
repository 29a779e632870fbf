# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role docker_host decides from what its probe said: which packages, and what it refuses.

The role's own task files run, on made-up hosts: they run nothing but actions on the controller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
ROLE = REPOSITORY / "roles" / "docker_host"

UNKNOWN = yaml.safe_load((ROLE / "vars" / "main" / "found.yml").read_text())["_docker_host_unknown"]
BARE = {"uid": "0", "python": "/usr/bin/python3", "systemd": "yes"}
WORKING = {
    **BARE, "cli": "docker", "dockerd": "/usr/bin/dockerd", "engine": "26.1.5", "api": "1.45", "running": "2",
    "compose": "2.26.1", "sdk": "7.1.0", "rsync": "3.4.1", "restic": "0.18.0", "boot": "enabled",
}  # fmt: skip

FACTS = {
    "Debian-12": ("Debian", "12", "Debian"),
    "Debian-13": ("Debian", "13", "Debian"),
    "Ubuntu": ("Ubuntu", "24", "Debian"),
    "Rocky": ("Rocky", "9", "RedHat"),
    "RedHat": ("RedHat", "10", "RedHat"),
    "Archlinux": ("Archlinux", "n", "Archlinux"),
}
COMMON = {"python3-docker", "rsync", "restic"}
APT_ENGINE = {"iptables", "apparmor", "docker.io"}
APT_DOCKER = {"docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin", "iptables", "apparmor"}
DNF_DOCKER = {"docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin", "python3-pip", "rsync", "restic"}
TRIXIE = {"docker-cli", "docker-compose"}
NO_SDK = {**WORKING, "sdk": ""}
NO_COMPOSE = {**WORKING, "compose": ""}
OLD_COMPOSE = {**WORKING, "compose": "2.3.3"}
OURS = {"owned": "yes"}

# name: (distribution, source, probe, packages, Compose as a plugin, Docker's repository needed)
CHOICES: dict[str, tuple[str, str, dict[str, str], set[str], bool, bool]] = {
    "debian 12": ("Debian-12", "distribution", BARE, APT_ENGINE | COMMON | {"python3-venv"}, True, False),
    "debian 13": ("Debian-13", "distribution", BARE, APT_ENGINE | COMMON | TRIXIE, False, False),
    "ubuntu": ("Ubuntu", "distribution", BARE, APT_ENGINE | COMMON | {"docker-compose-v2"}, False, False),
    "debian 12, docker's": ("Debian-12", "docker", BARE, APT_DOCKER | COMMON, False, True),
    "ubuntu, docker's": ("Ubuntu", "docker", BARE, APT_DOCKER | COMMON, False, True),
    "rocky, docker's": ("Rocky", "docker", BARE, DNF_DOCKER, False, True),
    "rhel, docker's": ("RedHat", "docker", BARE, DNF_DOCKER, False, True),
    "only the SDK": ("Debian-13", "docker", NO_SDK, {"python3-docker"}, False, False),
    "foreign engine without Compose": ("Debian-13", "distribution", NO_COMPOSE, {"python3-venv"}, True, False),
    "our engine, no Compose": ("Debian-13", "distribution", {**NO_COMPOSE, **OURS}, {"docker-compose"}, False, False),
    "our engine, old Compose": ("Debian-13", "distribution", {**OLD_COMPOSE, **OURS}, {"python3-venv"}, True, False),
    "stopped engine": ("Debian-13", "distribution", {**WORKING, "engine": "", "api": ""}, set(), False, False),
}  # fmt: skip

# name: (variables, probe, what the sentence says)
REFUSALS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "not root": ({}, {**BARE, "uid": "1000"}, "set ansible_become to true"),
    "podman": ({}, {**BARE, "cli": "podman"}, "remove the package podman-docker"),
    "rootless answers": ({}, {**WORKING, "rootless": "rootless"}, "stop the rootless engine"),
    "rootless beside": ({}, {**BARE, "user_sockets": "/run/user/1/docker.sock "}, "(/run/user/1/docker.sock)"),
    "old engine": ({}, {**WORKING, "engine": "19.03.15", "api": "1.40"}, "19.03.15 (API 1.40) and the"),
    "old API": ({}, {**WORKING, "api": "1.39"}, "this role never upgrades an engine"),
    "nothing wanted": ({"docker_host_source": "none"}, {**WORKING, "restic": ""}, "lacks restic, and docker_host_"),
    "no address": ({"docker_host_source": "docker"}, BARE, "docker_host_repository_url and docker_"),
    "broken settings": ({}, {**BARE, "settings": "Wwo=", "settings_broken": "yes"}, "daemon.json on"),
    "bad name": ({"docker_host_environment": {"A B": "1"}}, WORKING, "docker_host_environment names A B"),
    "two lines": ({"docker_host_environment": {"A": "1\n2"}}, WORKING, "more than one line"),
    "no Python": ({}, {**BARE, "python": ""}, "which check mode cannot install"),
}  # fmt: skip
ALLOWED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "bare": ({}, BARE),
    "working": ({}, WORKING),
    "working, not root": ({}, {**WORKING, "uid": "1000"}),
    "working, nothing wanted": ({"docker_host_source": "none"}, WORKING),
    "broken settings of another's engine": ({}, {**WORKING, "settings": "Wwo=", "settings_broken": "yes"}),
    "oldest": ({}, {**WORKING, "engine": "20.10.0", "api": "1.40", "compose": "2.24.0"}),
}

# name: (variables, probe, writes settings, restarts)
SETTLED = {"settings": "eyJsb2ctZHJpdmVyIjoibG9jYWwifQ==", **OURS}  # {"log-driver":"local"}
LOCAL = {"docker_host_daemon_options": {"log-driver": "local"}}
PLANS: dict[str, tuple[dict[str, Any], dict[str, str], bool, bool]] = {
    "another's engine": ({}, WORKING, False, False),
    "another's, adopted": ({"docker_host_adopt": True}, {**WORKING, "running": "0"}, True, True),
    "ours, containers run": ({}, {**WORKING, **SETTLED}, True, False),
    "ours, none runs": ({}, {**WORKING, **SETTLED, "running": "0"}, True, True),
    "words of the command line": ({"docker_host_adopt": "yes", "docker_host_restart": "yes"}, WORKING, True, True),
    "ours, allowed": ({"docker_host_restart": True}, {**WORKING, **SETTLED}, True, True),
    "pending, containers run": (LOCAL, {**WORKING, **SETTLED, "pending": "yes"}, True, False),
    "another's pending": ({}, {**WORKING, "pending": "yes", "running": "0"}, False, False),
    "bare": ({}, BARE, True, False),
}

# A terminal or a login shell adds lines of its own, and values may hold an equals sign.
SAID = {"stdout_lines": ["Welcome, a=b!", "docker_host:uid=0", "docker_host:drop_in=YQ==", "docker_host:cli="]}
SAID_ENVIRONMENT = {"docker_host_environment": {"B": 'say "hi"', "A": r"100%\x", "C": 1}}
DROP_IN = r"""[Service]
Environment="A=100%%\\x"
Environment="B=say \"hi\""
Environment="C=1"
"""

MADE_UP_FACTS = """
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {**super().run(tmp, task_vars), "ansible_facts": self._task.args["facts"]}
"""

PLAY: list[dict[str, Any]] = [
    {
        "hosts": "said",
        "tasks": [
            {"ansible.builtin.include_role": {"name": "docker_host", "tasks_from": "check.yml", "public": True}},
            {"ansible.builtin.debug": {"msg": ["{{ _docker_host_said }}", "{{ _docker_host_drop_in_content }}"]}},
        ],
    },
    {
        "hosts": "refusals:allowed",
        "tasks": [
            {"name": "refuse", "ansible.builtin.include_role": {"name": "docker_host", "tasks_from": "check.yml"}},
        ],
    },
    {
        "hosts": "choices",
        "tasks": [
            {"made_up_facts": {"facts": "{{ made_up }}"}},
            {"ansible.builtin.include_role": {"name": "docker_host", "tasks_from": "choose.yml", "public": True}},
            {"name": "answer", "ansible.builtin.debug": {"msg": {
                "install": "{{ _docker_host_to_install }}",
                "plugin": "{{ _docker_host_compose_as_plugin }}",
                "repository": "{{ _docker_host_needs_repository }}",
                "prerequisites": "{{ _docker_host_prerequisites }}",
            }}},
        ],
    },
    {
        "hosts": "plans",
        "tasks": [
            {"ansible.builtin.include_role": {"name": "docker_host", "tasks_from": "check.yml", "public": True}},
            {"name": "answer", "ansible.builtin.debug": {"msg": {
                "settle": "{{ _docker_host_to_settle }}",
                "restart": "{{ _docker_host_to_restart and not _docker_host_to_start }}",
            }}},
        ],
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """host: the message of its last task, of one run over all tables."""
    place = tmp_path_factory.mktemp("docker_host")
    groups: dict[str, dict[str, Any]] = {"refusals": {}, "allowed": {}, "choices": {}, "plans": {}}
    for name, (variables, probe, _message) in REFUSALS.items():
        groups["refusals"][f"refused: {name}"] = {"docker_host_found": {**UNKNOWN, **probe}, **variables}
    for name, (variables, probe) in ALLOWED.items():
        groups["allowed"][f"allowed: {name}"] = {"docker_host_found": {**UNKNOWN, **probe}, **variables}
    for name, (variables, probe, *_expected) in PLANS.items():
        groups["plans"][f"plan: {name}"] = {"docker_host_found": {**UNKNOWN, **probe}, **variables}
    unknown = {"unknown": ("Archlinux", "distribution", BARE), "no engine": ("Rocky", "distribution", BARE)}
    for name, (distribution, source, probe, *_expected) in {**CHOICES, **unknown}.items():
        keys = ("ansible_distribution", "ansible_distribution_major_version", "ansible_os_family")
        facts = dict(zip(keys, FACTS[distribution], strict=True))
        facts["ansible_distribution_version"] = facts["ansible_distribution_major_version"]
        groups["choices"][name] = {
            "docker_host_found": {**UNKNOWN, **probe},
            "docker_host_source": source,
            "made_up": facts,
        }
    groups["said"] = {"said": {"docker_host_probe": SAID, "docker_host_found": UNKNOWN | WORKING, **SAID_ENVIRONMENT}}
    (place / "action_plugins").mkdir()
    (place / "action_plugins" / "made_up_facts.py").write_text(MADE_UP_FACTS)
    inventory = {"all": {"children": {group: {"hosts": hosts} for group, hosts in groups.items()}}}
    (place / "inventory.json").write_text(json.dumps(inventory))
    (place / "play.json").write_text(json.dumps([{"gather_facts": False, "connection": "local", **p} for p in PLAY]))
    environment = {
        **os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_ROLES_PATH": str(ROLE.parent),
        "ANSIBLE_INVENTORY_ENABLED": "ansible.builtin.yaml", "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_HOME": str(place / "home"),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "--check", "-i", "inventory.json", "play.json"],
        cwd=place, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.stdout.lstrip().startswith("{"), run.stdout + run.stderr
    found: dict[str, Any] = {}
    for play in json.loads(run.stdout)["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                found[host] = result.get("msg", found.get(host, ""))
    return found


def test_answers_of_the_probe_are_read_and_noise_is_not(answers: dict[str, Any]) -> None:
    assert answers["said"][0] == {**UNKNOWN, "uid": "0", "drop_in": "YQ=="}


def test_the_drop_in_is_quoted_as_systemd_reads_it(answers: dict[str, Any]) -> None:
    first, rest = answers["said"][1].split("\n", 1)
    assert first.startswith("# Written by")
    assert rest == DROP_IN


@pytest.mark.parametrize("name", CHOICES)
def test_packages_are_chosen_by_facts(answers: dict[str, Any], name: str) -> None:
    *_facts, packages, plugin, repository = CHOICES[name]
    answer = answers[name]
    assert set(answer["install"]) == packages
    assert (answer["plugin"], answer["repository"]) == (plugin, repository)


def test_clones_of_rhel_enable_epel_and_rhel_itself_cannot(answers: dict[str, Any]) -> None:
    assert answers["rocky, docker's"]["prerequisites"] == ["epel-release"]
    assert answers["rhel, docker's"]["prerequisites"] == []


def test_a_distribution_without_an_engine_is_one_sentence(answers: dict[str, Any]) -> None:
    assert "Rocky 9, for which this role knows no engine" in answers["no engine"]
    assert "set docker_host_source to docker" in answers["no engine"]
    assert "Archlinux n, for which this role knows no packages: install a running Docker engine" in answers["unknown"]


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_are_one_sentence(answers: dict[str, Any], name: str) -> None:
    sentence = answers[f"refused: {name}"]
    assert REFUSALS[name][2] in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize("name", ALLOWED)
def test_what_can_be_put_right_is_not_refused(answers: dict[str, Any], name: str) -> None:
    assert answers[f"allowed: {name}"] == ""


@pytest.mark.parametrize("name", PLANS)
def test_settings_and_restarts(answers: dict[str, Any], name: str) -> None:
    assert answers[f"plan: {name}"] == {"settle": PLANS[name][2], "restart": PLANS[name][3]}


ENGINE = """#!/bin/sh
case "$*" in
  --help) echo "A self-sufficient runtime for containers" ;;
  *"version --format {{.Server.Version}}") echo 26.1.5+dfsg1 ;;
  *"version --format {{.Server.APIVersion}}") echo 1.45 ;;
  *"info --format {{.ContainersRunning}} {{.ContainersPaused}}") echo 3 1 ;;
  *"info --format {{.SecurityOptions}}") echo "[name=seccomp,profile=builtin name=rootless]" ;;
  "compose version --short") echo v2.26.1 ;;
esac
"""
DEAD = '#!/bin/sh\necho "Cannot connect to the Docker daemon" >&2\nexit 1\n'


def probe(place: Path, commands: dict[str, str]) -> dict[str, str]:
    """What probe.sh says with ``commands`` first on the path."""
    for name, script in commands.items():
        (place / name).write_text(script)
        (place / name).chmod(0o755)
    run = subprocess.run(
        ["/bin/sh", str(ROLE / "files" / "probe.sh")],
        env={
            "PATH": f"{place}:/usr/bin:/bin",
            "PYTHONS": f"no-such-python {sys.executable}",
            "DOCKER_SOCKET": "/x/docker.sock",
            "DOCKER_HOST": "tcp://elsewhere:1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    return dict(line.removeprefix("docker_host:").split("=", 1) for line in run.stdout.splitlines())


def test_probe_of_a_working_engine(tmp_path: Path) -> None:
    rsync = "#!/bin/sh\necho 'rsync  version 3.4.1  protocol version 32'\n"
    restic = "#!/bin/sh\necho 'restic 0.18.0 compiled with go1.24 on linux/amd64'\n"
    said = probe(tmp_path, {"docker": ENGINE, "rsync": rsync, "restic": restic})
    expected = {
        "cli": "docker", "engine": "26.1.5+dfsg1", "api": "1.45", "running": "4", "rootless": "rootless",
        "compose": "2.26.1", "rsync": "3.4.1", "restic": "0.18.0", "python": sys.executable, "uid": str(os.getuid()),
    }  # fmt: skip
    assert {key: said[key] for key in expected} == expected


def test_probe_knows_podman_and_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    podman = "#!/bin/sh\n[ \"$*\" != --help ] || echo 'Manage pods, containers and images, with podman'\n"
    assert probe(tmp_path, {"docker": podman})["cli"] == "podman"
    said = probe(tmp_path, {"docker": DEAD})
    assert (said["cli"], said["engine"], said["running"], said["compose"]) == ("docker", "", "", "")


def test_probe_says_only_keys_that_the_role_reads(tmp_path: Path) -> None:
    assert set(probe(tmp_path, {"docker": ENGINE})) - set(UNKNOWN) == set()
