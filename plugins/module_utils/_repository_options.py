# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that the modules of backup and restore share, and what they become in the core."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._compose_options import strings
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR, Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import (
    Restic,
    password_in,
    refuse_password,
)
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import docker_argument_spec

_SHARED = ("repository", "password_file", "state_dir")


def repository_argument_spec() -> dict[str, Any]:
    """Those of the documentation fragment openmemory.stack.repository, and the Docker options."""
    return {
        "compose_project": {"type": "str", "required": True},
        "repository": {"type": "str", "required": True},
        "password_file": {"type": "path", "required": True, "no_log": False},
        "environment": {"type": "dict", "default": {}, "no_log": True},
        "state_dir": {"type": "path", "default": STATE_DIR},
        **docker_argument_spec(),
    }


def optional_repository_argument_spec() -> dict[str, Any]:
    """The same for modules that can do without a repository."""
    shared = repository_argument_spec()
    for name in ("repository", "password_file"):
        del shared[name]["required"]
    return shared


def repository_settings(module: AnsibleModule) -> dict[str, Any]:
    """What every request of the core is given about the repository; StackError where a password is in its URL."""
    hide_password(module)
    return {
        "project": module.params["compose_project"],
        "environment": strings(module.params["environment"]),
        **{name: module.params[name] for name in _SHARED},
    }


def open_repository(module: AnsibleModule) -> Repository:
    """The repository of the module's options; nothing is asked of it yet. StackError as for repository_settings()."""
    hide_password(module)
    asked = module.params
    cache = os.path.join(asked["state_dir"], "cache")
    return Repository(
        Restic(asked["repository"], asked["password_file"], strings(asked["environment"]), cache_dir=cache)
    )


def hide_password(module: AnsibleModule) -> None:
    """Refuse a repository with a password in its URL, which the result would show with the options."""
    repository = module.params["repository"] or ""
    password = password_in(repository)
    if password:
        module.no_log_values.add(password)  # the result tells the options, too
    refuse_password(repository)


def progress(module: AnsibleModule) -> Progress:
    """Where the action plugin of the module's name looks how far it is."""
    return Progress(Places.of(module.params["compose_project"], create=False).progress)


def finish(module: AnsibleModule, result: Mapping[str, Any]) -> None:
    """End the run with a result of the core: its warnings are warned of, its actions are the diff."""
    found = dict(result)
    for warning in found.pop("warnings", ()):
        module.warn(warning)
    after = "".join(f"{action}\n" for action in found.get("actions") or ())
    module.exit_json(**{"diff": {"before": "", "after": after}, **found})
