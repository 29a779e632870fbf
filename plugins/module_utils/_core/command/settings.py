# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings file of a stack, /etc/openmemory-stack/PROJECT.json, under what the command line says."""

from __future__ import annotations

import glob
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engine import DEFAULT_HOST, Engine
from ..errors import StackError
from ..operation.places import CONFIG_DIR, STATE_DIR, Places
from ..repository.restic import refuse_password

_TEXT = ("project", "repository", "password_file", "state_dir", "docker_host")
_TABLES = ("environment", "keep", "options")
_LISTS = ("copies",)


class UsageError(StackError):
    """What was asked for cannot be meant; nothing was done."""


@dataclass
class Settings:
    """One stack's settings. options, keep and copies are those of a backup, named as the module's options."""

    project: str
    repository: str | None = None
    password_file: str | None = None
    state_dir: str = STATE_DIR
    docker_host: str = DEFAULT_HOST
    environment: dict[str, str] = field(default_factory=dict)
    keep: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    copies: list[dict[str, Any]] = field(default_factory=list)
    config_dir: str = CONFIG_DIR

    def engine(self, late: bool = False) -> Engine:
        return Engine.connect(self.docker_host, late=late)

    def places(self, create: bool = True) -> Places:
        return Places.of(self.project, self.state_dir, create=create)

    def repository_options(self) -> dict[str, Any]:
        """What every request is given; raises UsageError where the repository or its password is not known."""
        for name in ("repository", "password_file"):
            if not getattr(self, name):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{name} of the stack {self.project} is not known; give {option}, or set it up first.")
        return self.known()

    def known(self) -> dict[str, Any]:
        """The same, where it is no error that the repository is not known."""
        names = ("project", "repository", "password_file", "environment", "state_dir")
        return {name: getattr(self, name) for name in names}


def load(config_dir: str, given: Mapping[str, Any]) -> Settings:
    """The settings of the project that is given, or of the only one that this host has.

    given are options of the command line; those that are settings win. Raises UsageError.
    """
    project = given.get("project") or _only(config_dir)
    found: dict[str, Any] = {"project": project}
    path = os.path.join(config_dir, f"{project}.json")
    if _is_there(path):
        found = _read(path)
        if found.setdefault("project", project) != project:
            raise UsageError(f"{path} is of the stack {found['project']}, not of {project}; rename it or correct it.")
    if given.get("copy"):
        found.update(_far(found, given["copy"]))
    found.update({name: given[name] for name in _TEXT if given.get(name)})
    try:
        refuse_password(found.get("repository") or "")  # status shows it without opening it
    except StackError as error:
        raise UsageError(str(error)) from error
    return Settings(**found, config_dir=config_dir)


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read; run it as root.") from error
    except OSError:
        return False
    return True


def _far(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings with which a far repository takes the place of the near one."""
    there = {each.get("name"): each for each in found.get("copies") or ()}
    if name not in there:
        named = f"there are {', '.join(map(str, there))}" if there else "it has none"
        raise UsageError(f"--copy is {name!r}, which is no far repository of this stack; {named}.")
    far = there[name]
    password_file = far.get("password_file") or found.get("password_file")
    own = {"repository": far.get("repository"), "environment": far.get("environment") or {}}
    return {**own, "password_file": password_file, "keep": {}, "copies": []}


def _only(config_dir: str) -> str:
    names = sorted(os.path.basename(path)[: -len(".json")] for path in glob.glob(os.path.join(config_dir, "*.json")))
    names = [name for name in names if "." not in name]  # no project has one; PROJECT.monitoring.json does
    if not names:
        hint = "run it as root" if os.geteuid() != 0 else "give --project, --repository and --password-file"
        raise UsageError(f"There are no settings in {config_dir}; {hint}, or set it up with the role backup.")
    if len(names) > 1:
        raise UsageError(f"This host has several stacks; say which one: --project {' or --project '.join(names)}.")
    return names[0]


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            found = json.load(stream)
    except PermissionError as error:
        raise UsageError(f"{path} cannot be read; run it as root.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); correct it.") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no settings; correct it.")
    for name, value in found.items():
        if name not in (*_TEXT, *_TABLES, *_LISTS):
            raise UsageError(
                f"{path} holds {name!r}, which is no setting; use {', '.join((*_TEXT, *_TABLES, *_LISTS))}."
            )
        kind, called = (str, "text") if name in _TEXT else (dict, "a table") if name in _TABLES else (list, "a list")
        if not isinstance(value, kind) or (kind is list and not all(isinstance(each, dict) for each in value)):
            raise UsageError(f"{name} in {path} is not {called}{' of tables' if kind is list else ''}; correct it.")
    secret = found.get("environment") or any(each.get("environment") for each in found.get("copies") or ())
    if mode & 0o077 and secret:
        raise UsageError(f"{path} holds credentials and others can read it (mode {mode:04o}); chmod 600 {path}.")
    return found
