"""What Ansible needs to reach the lab: an inventory, a key and the hosts' own keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .commands import docker, run
from .containers import Container

KEY = "id_ed25519"
TWINS = "twins.yml"
# Run in a host with this checkout's public key as $1: accept it, then tell the host's own key.
INTRODUCE = """
grep -qxF "$1" /root/.ssh/authorized_keys || echo "$1" >> /root/.ssh/authorized_keys
cat /etc/ssh/ssh_host_ed25519_key.pub
"""


def ensure_key(folder: Path) -> str:
    """Make the lab's SSH key once; returns the public half."""
    key = folder / KEY
    if not key.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "omlab", "-f", str(key)])
    return key.with_suffix(".pub").read_text()


def write(folder: Path, hosts: Sequence[Container], registry: str) -> None:
    """Write known_hosts, inventory.yml and, where there are twins, theirs; each appears whole or not at all.

    Every host is made to accept the key of this checkout: it may come from another one, or the key may be new.
    """
    key = ensure_key(folder).strip()
    pinned = [known_host(host, docker("exec", host.name, "sh", "-c", INTRODUCE, "sh", key)) for host in hosts]
    _replace(folder / "known_hosts", "".join(pinned))
    twins = [replace(one, role="full", name=one.name.replace("-twin", "-lab")) for one in hosts if one.role == "twin"]
    for name, listed in (("inventory.yml", hosts), (TWINS, twins)):
        if listed:
            text = "# Written by the lab; changes are lost at its next start.\n" + to_yaml(content(listed, registry))
            _replace(folder / name, text)
        else:
            (folder / name).unlink(missing_ok=True)


def known_host(host: Container, public_key: str) -> str:
    """A line that pins a host's key, in the form that SSH looks it up."""
    name = host.address if host.port == 22 else f"[{host.address}]:{host.port}"
    return f"{name} {' '.join(public_key.split()[:2])}\n"


def content(hosts: Sequence[Container], registry: str) -> dict[str, Any]:
    """The inventory: hosts with Docker in the group openmemory, those without in the group bare."""

    def group(role: str) -> dict[str, Any]:
        return {
            "hosts": {
                host.host: {
                    "ansible_host": host.address,
                    "ansible_port": host.port,
                    "lab_address": host.bridge_address,
                }
                for host in hosts
                if host.role == role
            }
        }

    lab = {
        "children": {"openmemory": group("full"), "bare": group("bare")},
        # Not on the group all: these would also reach plays on localhost.
        "vars": {
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": "{{ inventory_dir }}/" + KEY,
            "ansible_ssh_common_args": (
                "-o IdentitiesOnly=yes -o GlobalKnownHostsFile=/dev/null"
                " -o UserKnownHostsFile='{{ inventory_dir }}/known_hosts'"
            ),
            "migrate_address": "{{ lab_address }}",
            "stack_image_registry": registry,
            "stack_health_interval": "3s",  # the tests start stacks over a hundred times, and are told of health sooner
            "docker_host_daemon_options": {"insecure-registries": [registry]},
        },
    }
    return {"all": {"children": {"lab": lab}}}


def to_yaml(value: Any, indent: int = 0) -> str:
    """Dictionaries as YAML blocks, everything else as JSON, which YAML reads as it is."""
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{' ' * indent}{key}:\n{to_yaml(item, indent + 2)}")
        else:
            lines.append(f"{' ' * indent}{key}: {json.dumps(item)}\n")
    return "".join(lines)


def _replace(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.replace(path)
