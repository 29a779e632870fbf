# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the settings of the role stack to what the module volume and the compose file are given."""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Mapping
from typing import Any

DOCUMENTATION = """
name: volume_plan
short_description: What becomes of each volume of a compose file, from the settings of the role stack
version_added: 0.1.0
author: The openmemory.stack developers (@openmemory)
description:
  - Merges the volumes that a compose file declares with C(stack_volumes), C(stack_data_dir) and C(stack_protected).
  - The role C(openmemory.stack.stack) uses it both for the volumes to make and for the compose file, so that the two
    cannot disagree.
positional: _input
options:
  _input:
    description:
      - The volumes by key, as RV(openmemory.stack.compose_info#module:volumes) returns them, or with C(store).
    type: dict
    required: true
  settings:
    description: C(stack_volumes), by key.
    type: dict
    default: {}
  project:
    description: Name of the Compose project.
    type: str
    required: true
  data_dir:
    description: C(stack_data_dir), or empty.
    type: str
    default: ''
  protected:
    description: C(stack_protected).
    type: bool
    default: true
  services:
    description: RV(openmemory.stack.compose_info#module:services), to recognise the stores of a file that is not ours.
    type: dict
    default: {}
"""

EXAMPLES = """
- name: What is made of one volume
  ansible.builtin.debug:
    msg: >-
      {{ {'neo4j_data': {'store': 'neo4j'}}
         | openmemory.stack.volume_plan(project='openmemory', data_dir='/srv/openmemory') }}
"""

RETURN = """
_value:
  description:
    - C(volumes), the list for M(openmemory.stack.volume).
    - C(compose), by key what the compose file has to say of it.
    - C(override), the part of C(compose) that differs from what the file itself says.
    - C(problem), a sentence about what is wrong with the settings, or empty.
  type: dict
"""

PASSED_ON = ("path", "owner", "group", "mode", "store", "driver", "driver_opts", "labels", "min_free")
OPTIONS = ("backing", "name", "protected", *PASSED_ON)
# What the known images keep where, as in the stores of the core: image name, path in the container, store.
_STORES = {
    ("qdrant", "/qdrant/storage"): "qdrant",
    ("neo4j", "/data"): "neo4j",
    ("neo4j", "/logs"): "files",
    ("openmemory-mcp", "/usr/src/openmemory/data"): "sqlite",
}
_NEO4J_LOGS = {"owner": "7474", "group": "7474"}  # uid and gid of the image; for /data the module knows them itself


class _Wrong(Exception):
    """A sentence for the user."""


def volume_plan(
    declared: Mapping[str, Mapping[str, Any]],
    project: str,
    settings: Mapping[str, Any] | None = None,
    data_dir: str = "",
    protected: bool = True,
    services: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The plan, as RETURN says."""
    plan: dict[str, Any] = {"volumes": [], "compose": {}, "override": {}, "problem": ""}
    try:
        settings = _checked(declared, {} if settings is None else settings)
        for key, volume in declared.items():
            own = settings.get(key) or {}
            if volume.get("external") and not own:
                plan["compose"][key] = {"external": True, "name": volume["name"]}
                continue  # somebody else's, and nothing was said about it
            entry = _entry(key, volume, own, project, data_dir)
            entry = {**_known(key, volume, services or {}, entry["backing"]), **entry}
            keep = bool(own.get("protected", protected)) or bool(volume.get("external"))
            plan["volumes"].append(entry)
            plan["compose"][key] = _definition(entry, keep, f"{project}_{key}")
            if plan["compose"][key] != _definition_of(volume, f"{project}_{key}"):
                plan["override"][key] = plan["compose"][key]
    except _Wrong as wrong:
        plan["problem"] = str(wrong)
    return plan


def _checked(declared: Mapping[str, Any], settings: Any) -> Mapping[str, Any]:
    if not isinstance(settings, Mapping):
        raise _Wrong(f"stack_volumes is {settings!r}; it must be a dictionary with a volume's key and its settings.")
    for key, own in settings.items():
        if key not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise _Wrong(
                f"stack_volumes names {key!r}, no volume of the compose file{_near(key, declared)}; it has {known}."
            )
        if not isinstance(own, Mapping):
            raise _Wrong(f"stack_volumes.{key} is {own!r}; it must be a dictionary of settings.")
        for option in own:
            if option not in OPTIONS:
                known = ", ".join(sorted(OPTIONS))
                raise _Wrong(
                    f"stack_volumes.{key} has the unknown key {option!r}{_near(option, OPTIONS)}; the keys are {known}."
                )
        if own.get("backing") not in (None, "managed", "path"):
            raise _Wrong(f"stack_volumes.{key}.backing is {own['backing']!r}; it is managed or path.")
        if own.get("backing") == "managed" and own.get("path"):
            raise _Wrong(f"stack_volumes.{key} has a path and the backing managed; remove one of the two.")
    return settings


def _near(word: str, known: Any) -> str:
    close = difflib.get_close_matches(str(word), list(known), 1)
    return f" (is it {close[0]}?)" if close else ""


def _entry(key: str, volume: Mapping[str, Any], own: Mapping[str, Any], project: str, data_dir: str) -> dict[str, Any]:
    """One entry for the module volume."""
    entry: dict[str, Any] = {"name": own.get("name") or volume.get("name") or f"{project}_{key}"}
    entry.update({name: own[name] for name in PASSED_ON if own.get(name) is not None})
    bound = _bound_path(volume)
    backing = own.get("backing")
    if backing is None:
        special = own.get("driver") or own.get("driver_opts") or volume.get("driver_opts") or _driver(volume) != "local"
        backing = "path" if own.get("path") or bound or (data_dir and not special) else "managed"
    if backing == "path":
        path = own.get("path") or (posixpath.join(data_dir, key) if data_dir else bound)
        if not path:
            raise _Wrong(f"stack_volumes.{key} has the backing path and no path; give it one, or set stack_data_dir.")
        entry["path"] = _normal(str(path))
    elif not (own.get("driver") or own.get("driver_opts") or bound):
        entry["driver"] = _driver(volume)
        entry["driver_opts"] = dict(volume.get("driver_opts") or {})
    entry["backing"] = backing
    return entry


def _known(
    key: str, volume: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]], backing: str
) -> dict[str, Any]:
    """What is known of a volume that the settings do not say."""
    places = {
        (_image_name(service), str(mount.get("target")))
        for service in services.values()
        for mount in service.get("mounts") or []
        if mount.get("type") == "volume" and mount.get("source") == key
    }
    stores = sorted(_STORES[place] for place in places if place in _STORES)
    store = volume.get("store") or (stores[-1] if stores else None)  # neo4j, if its logs are in the same volume
    known = {"store": store} if store else {}
    logs = ("neo4j", "/logs") in places or key == "neo4j_logs"
    return {**known, **_NEO4J_LOGS} if logs and backing == "path" else known


def _image_name(service: Mapping[str, Any]) -> str:
    return str(service.get("image") or "").partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]


def _normal(path: str) -> str:
    """As the module volume writes it, so that both say the same to Docker; what it refuses is left to it."""
    return path if not path.startswith("/") or ".." in path.split("/") else posixpath.normpath("/" + path.lstrip("/"))


def _definition(entry: Mapping[str, Any], protected: bool, default_name: str) -> dict[str, Any]:
    """What the compose file says of a volume."""
    if protected:
        return {"external": True, "name": entry["name"]}
    found: dict[str, Any] = {"driver": entry.get("driver") or "local"}
    if entry["backing"] == "path":
        found["driver_opts"] = {"type": "none", "o": "bind", "device": entry["path"]}
    elif entry.get("driver_opts"):
        found["driver_opts"] = dict(entry["driver_opts"])
    if entry["name"] != default_name:
        found["name"] = entry["name"]
    return found


def _definition_of(volume: Mapping[str, Any], default_name: str) -> dict[str, Any]:
    """The same for a volume as the file declares it."""
    name = volume.get("name") or default_name
    if volume.get("external"):
        return {"external": True, "name": name}
    found: dict[str, Any] = {"driver": _driver(volume)}
    if volume.get("driver_opts"):
        found["driver_opts"] = dict(volume["driver_opts"])
    if name != default_name:
        found["name"] = name
    return found


def _bound_path(volume: Mapping[str, Any]) -> str | None:
    options = volume.get("driver_opts") or {}
    if _driver(volume) == "local" and "bind" in str(options.get("o", "")).split(","):
        return str(options.get("device") or "") or None
    return None


def _driver(volume: Mapping[str, Any]) -> str:
    return str(volume.get("driver") or "local")


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"volume_plan": volume_plan}
