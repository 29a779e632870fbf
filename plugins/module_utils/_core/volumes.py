# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What volumes are asked to be: their definition and the checks that need neither the engine nor the disk."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .byte_sizes import parse_bytes
from .errors import StackError
from .filesystem import unsupported_by_qdrant
from .stores.registry import KINDS

KEYS = ("name", "backing", "path", "owner", "group", "mode", "store", "driver", "driver_opts", "labels", "min_free")
PROJECT_LABEL = "com.docker.compose.project"
VOLUME_LABEL = "com.docker.compose.volume"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")  # Docker's own rule
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")  # Compose's own rule
_LOCAL_OPTIONS = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}  # and what each needs
_OCTAL = re.compile(r"[0-7]{3,5}")


@dataclass(frozen=True)
class VolumeSpec:
    """One volume as it is asked for. owner (uid), group (gid) and mode are None where they were not given."""

    name: str
    backing: str = "managed"
    path: str | None = None
    owner: int | None = None
    group: int | None = None
    mode: int | None = None
    store: str | None = None
    driver: str = "local"
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    min_free: int = 0  # bytes


def parse_volumes(
    entries: Sequence[Mapping[str, Any]], compose_project: str | None = None, min_free: str | None = None
) -> list[VolumeSpec]:
    """The definitions of the whole list; raises StackError for the first thing that is wrong.

    With compose_project each volume gets the labels by which Compose knows its own volumes, but no config-hash: without
    it Compose never offers to recreate a volume. min_free is for the entries without one of their own.
    """
    if compose_project and not _PROJECT.fullmatch(compose_project):
        raise StackError(
            f"compose_project {compose_project!r} is not a name that Compose takes; use lower-case letters, digits, "
            "- and _, with a letter or digit first."
        )
    specs = [_parse(entry, compose_project, min_free) for entry in entries]
    _refuse_twins([spec.name for spec in specs])
    return specs


def is_bind(driver: str, driver_opts: Mapping[str, str]) -> bool:
    """Whether these options of Docker's local driver bind the volume to a host directory."""
    flags = driver_opts.get("o", "").split(",")
    return driver == "local" and bool(driver_opts.get("device")) and bool({"bind", "rbind"} & set(flags))


def _parse(entry: Mapping[str, Any], compose_project: str | None, min_free: str | None) -> VolumeSpec:
    given = {key: value for key, value in entry.items() if value is not None}
    name = _name(given)
    unknown = sorted(set(given) - set(KEYS))
    if unknown:
        raise StackError(f"volume {name}: {unknown[0]} is not a known key; the keys are {', '.join(KEYS)}.")
    driver = str(given.get("driver", "local"))
    options = _strings(name, "driver_opts", given.get("driver_opts", {}))
    backing, path, options = _backing(name, given, driver, options)
    if driver == "local":
        _check_local_options(name, options)
    store = given.get("store")
    if store is not None and store not in KINDS:
        raise StackError(f"volume {name}: store {store!r} is not known; use one of {', '.join(KINDS)}.")
    refused = unsupported_by_qdrant(options.get("type", "")) or unsupported_by_qdrant(driver)
    if store == "qdrant" and refused:
        raise StackError(f"volume {name}: Qdrant does not support {refused}; give it a local file system.")
    labels = _strings(name, "labels", given.get("labels", {}))
    if compose_project:
        key = name[len(compose_project) + 1 :] if name.startswith(compose_project + "_") else name
        labels = {PROJECT_LABEL: compose_project, VOLUME_LABEL: key, **labels}
    return VolumeSpec(
        name=name,
        backing=backing,
        path=path,
        owner=_identity(name, "owner", given.get("owner")),
        group=_identity(name, "group", given.get("group")),
        mode=_mode(name, given.get("mode")),
        store=store,
        driver=driver,
        driver_opts=options,
        labels=labels,
        min_free=parse_bytes(given.get("min_free", min_free or 0), f"volume {name}: min_free"),
    )


def _name(given: Mapping[str, Any]) -> str:
    name = str(given.get("name", ""))
    if not name:
        raise StackError("volumes: an entry has no name; give each volume one.")
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise StackError(
            f"volume {name}: Docker refuses this name; use 2 to 255 letters, digits, _, . and -, with a letter or "
            "digit first."
        )
    return name


def _backing(
    name: str, given: Mapping[str, Any], driver: str, options: dict[str, str]
) -> tuple[str, str | None, dict[str, str]]:
    """The backing, the host path of path backing, and the driver options that Docker gets."""
    path = given.get("path")
    backing = given.get("backing")
    if backing is None and path is None and is_bind(driver, options):
        path = options["device"]  # written as Docker wants it: the same thing
    backing = backing or ("path" if path else "managed")
    if backing not in ("managed", "path"):
        raise StackError(f"volume {name}: backing {backing!r} is not known; use managed or path.")
    if backing == "managed":
        for key in ("path", "owner", "group", "mode"):
            if key in given:
                raise StackError(f"volume {name}: {key} is for backing: path, and this volume is managed by Docker.")
        if is_bind(driver, options):
            raise StackError(f"volume {name}: driver_opts bind it to a host path; use backing: path.")
        return backing, None, options
    if driver != "local":
        raise StackError(f"volume {name}: backing: path needs Docker's driver local, not {driver}.")
    path = _path(name, path)
    implied = {"type": "none", "o": "bind", "device": path}
    for key, value in options.items():
        if key not in implied or normal_option(key, value) != normal_option(key, implied[key]):
            raise StackError(
                f"volume {name}: driver_opts {key}={value} conflicts with backing: path, which needs "
                f"type=none, o=bind and device={path}; leave driver_opts out."
            )
    return backing, path, implied


def _check_local_options(name: str, options: Mapping[str, str]) -> None:
    """Refuse what Docker's local driver would refuse, but before anything changes."""
    for key in options:
        if key not in _LOCAL_OPTIONS:
            raise StackError(
                f"volume {name}: driver_opts.{key} is not known to the driver local; its options are "
                f"{', '.join(_LOCAL_OPTIONS)}."
            )
        for needed in _LOCAL_OPTIONS[key]:
            if not options.get(needed):
                raise StackError(f"volume {name}: driver_opts.{key} needs driver_opts.{needed} beside it; add it.")


def normal_option(key: str, value: str) -> str:
    """A driver option in the form in which equal ones are equal: flags sorted, paths without a slash at the end."""
    if key == "o":
        return ",".join(sorted(flag for flag in value.split(",") if flag))
    if key == "device" and value.startswith("/"):
        return os.path.normpath("/" + value.lstrip("/"))
    return value


def _path(name: str, value: Any) -> str:
    path = str(value or "")
    if not path:
        raise StackError(f"volume {name}: backing: path needs a path; give the host directory.")
    if not path.startswith("/"):
        raise StackError(f"volume {name}: path {path} is not absolute; give it from the root, such as /srv/{path}.")
    if "\0" in path or "\n" in path:
        raise StackError(f"volume {name}: path {path!r} has a control character in it; choose another.")
    if ".." in path.split("/"):
        raise StackError(f"volume {name}: path {path} has .. in it; write where it really is.")
    path = os.path.normpath("/" + path.lstrip("/"))
    if path == "/":
        raise StackError(f"volume {name}: path / is the whole file system; give a directory of its own.")
    return path


def _mode(name: str, mode: Any) -> int | None:
    if mode is None:
        return None
    if not isinstance(mode, str):
        raise StackError(
            f"volume {name}: mode is the number {mode}, because YAML reads an unquoted mode as a number; quote it, "
            "such as '0750'."
        )
    if not _OCTAL.fullmatch(mode) or int(mode, 8) > 0o7777:
        raise StackError(f"volume {name}: mode {mode!r} is not octal; give it as '0750'.")
    return int(mode, 8)


def _identity(name: str, key: str, value: Any) -> int | None:
    """The uid or gid of a number or of a name that this host knows."""
    if value is None:
        return None
    if str(value).isdigit():
        return int(value)
    try:
        return pwd.getpwnam(str(value)).pw_uid if key == "owner" else grp.getgrnam(str(value)).gr_gid
    except KeyError as error:
        kind = "user" if key == "owner" else "group"
        raise StackError(
            f"volume {name}: {key} {value} is not a {kind} of this host; create it or give the number."
        ) from error


def _strings(name: str, parameter: str, values: Any) -> dict[str, str]:
    if not isinstance(values, Mapping):
        raise StackError(f"volume {name}: {parameter} is not a dictionary; give keys with values.")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise StackError(f"volume {name}: {parameter}.{key} is not a string; put it in quotes.")
    return {str(key): str(value) for key, value in values.items()}


def _refuse_twins(names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise StackError(f"volume {name}: is in the list twice; leave one of them out.")
