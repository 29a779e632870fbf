# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proof that `docker compose up` has nothing to do, without the second that asking it takes.

After a successful `up` the stamp records all that `up` decides by: the resolved project, the Compose that resolved it,
the containers with their networks, and the images behind the references. As long as all of that is the same and the
containers run, `up` would do nothing. Compose's own hashes are not enough: they leave out networks and volumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .project_files import ProjectFile, find_changes, write_changes

STAMP_NAME = ".openmemory-stack.json"
_ASKS_EVERY_TIME = {"always", "build", "daily", "weekly"}


def fingerprint(config: Mapping[str, Any], cli_identity: str, options: Mapping[str, Any]) -> str:
    """One hash over what `up` is given."""
    text = json.dumps([config, cli_identity, options], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def make_stamp(given: str, containers: Sequence[Mapping[str, Any]], images: Mapping[str, str | None]) -> dict[str, Any]:
    """What is recorded after a successful `up`, and compared with before the next one."""
    return {
        "given": given,
        "containers": {container["Id"]: _networks(container) for container in containers},
        "images": dict(images),
    }


def read_stamp(directory: str) -> dict[str, Any]:
    """The recorded stamp; empty where there is none or it cannot be read."""
    try:
        with open(os.path.join(directory, STAMP_NAME), encoding="utf-8") as handle:
            found = json.load(handle)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_stamp(directory: str, stamp: Mapping[str, Any]) -> None:
    file = ProjectFile(STAMP_NAME, json.dumps(stamp, sort_keys=True) + "\n", 0o600)
    write_changes(directory, find_changes(directory, [file]), keep_old=False)


def remove_stamp(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, STAMP_NAME))


def can_be_trusted(config: Mapping[str, Any], pull: str, recreate: str) -> bool:
    """Whether what is asked for can be answered without asking a registry or recreating anyway."""
    policies = {service.get("pull_policy") or "missing" for service in (config.get("services") or {}).values()}
    asks = any(policy in _ASKS_EVERY_TIME or policy.startswith("every_") for policy in policies)
    return pull != "always" and recreate != "always" and not asks


def _networks(container: Mapping[str, Any]) -> list[str]:
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return sorted(str(network.get("NetworkID")) for network in networks.values())
