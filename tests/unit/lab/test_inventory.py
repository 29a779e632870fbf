"""The inventory that Ansible reads."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lab import inventory
from lab.containers import Container
from lab.inventory import INTRODUCE, content, known_host, to_yaml

LAB1 = Container("omlab-lab1", "full", "bookworm", "image", True, False, "172.17.0.3", "127.0.1.1", 22, temporary=False)
BARE1 = replace(LAB1, name="omlab-bare1", role="bare", address="127.0.1.101", port=2222)


def test_the_text_is_the_content() -> None:
    wanted = content([LAB1, BARE1], "172.17.0.1:5000")
    assert yaml.safe_load(to_yaml(wanted)) == wanted


def test_hosts_are_in_the_group_of_their_kind() -> None:
    groups = content([LAB1, BARE1], "r")["all"]["children"]["lab"]["children"]
    assert list(groups["openmemory"]["hosts"]) == ["lab1"]
    assert groups["bare"]["hosts"] == {
        "bare1": {"ansible_host": "127.0.1.101", "ansible_port": 2222, "lab_address": "172.17.0.3"}
    }


def test_twins_have_an_inventory_of_their_own_under_the_names_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "docker", lambda *_words: "ssh-ed25519 AAAA root@x")
    monkeypatch.setattr(inventory, "ensure_key", lambda _folder: "ssh-ed25519 CCCC omlab")
    twin = replace(LAB1, name="omlab-twin1", role="twin", address="127.0.1.201")
    inventory.write(tmp_path, [LAB1, BARE1, twin], "r")
    told = {}
    for name in ("inventory.yml", "twins.yml"):
        groups = yaml.safe_load((tmp_path / name).read_text())["all"]["children"]["lab"]["children"]
        told[name] = {
            host: about["ansible_host"] for group in groups.values() for host, about in group["hosts"].items()
        }
    assert told == {
        "inventory.yml": {"lab1": "127.0.1.1", "bare1": "127.0.1.101"},
        "twins.yml": {"lab1": "127.0.1.201"},
    }
    assert (tmp_path / "known_hosts").read_text().count("\n") == 3
    inventory.write(tmp_path, [LAB1], "r")
    assert not (tmp_path / "twins.yml").exists()


def test_no_hosts_of_a_kind_is_an_empty_group() -> None:
    assert yaml.safe_load(to_yaml(content([], "r")))["all"]["children"]["lab"]["children"]["bare"] == {"hosts": {}}


def test_nothing_reaches_localhost() -> None:
    assert "vars" not in content([LAB1], "r")["all"]


def test_host_keys_stay_checked() -> None:
    lab = content([LAB1], "r")["all"]["children"]["lab"]
    assert "StrictHostKeyChecking" not in str(lab)
    assert "known_hosts" in lab["vars"]["ansible_ssh_common_args"]


def test_pinned_keys_are_found_under_the_port() -> None:
    assert known_host(LAB1, "ssh-ed25519 AAAA root@lab1") == "127.0.1.1 ssh-ed25519 AAAA\n"
    assert known_host(BARE1, "ssh-ed25519 AAAA root@bare1") == "[127.0.1.101]:2222 ssh-ed25519 AAAA\n"


def test_a_host_accepts_a_key_once_and_tells_its_own(tmp_path: Path) -> None:
    (tmp_path / "authorized_keys").write_text("ssh-ed25519 BBBB other\n")
    (tmp_path / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAA root@lab1\n")
    script = INTRODUCE.replace("/root/.ssh/", f"{tmp_path}/").replace("/etc/ssh/", f"{tmp_path}/")
    for _time in range(2):
        told = subprocess.run(["sh", "-c", script, "sh", "ssh-ed25519 CCCC omlab"], capture_output=True, check=True)
    assert told.stdout == b"ssh-ed25519 AAAA root@lab1\n"
    assert (tmp_path / "authorized_keys").read_text() == "ssh-ed25519 BBBB other\nssh-ed25519 CCCC omlab\n"
