# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that stack_update and stack_update_info share, and what they become in the core."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._compose_options import (
    compose_argument_spec,
    project_settings,
    strings,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_request import Request
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.request import UpdateRequest


def update_argument_spec() -> dict[str, Any]:
    """Those of the documentation fragment openmemory.stack.update, of the compose file, and the Docker options."""
    return {
        **compose_argument_spec(),
        "pull": {"type": "str", "choices": ["always", "never"], "default": "always"},
        "steps": {"type": "str", "choices": ["auto", "refuse"], "default": "auto"},
        "state_dir": {"type": "path", "default": STATE_DIR},
    }


def update_request(module: AnsibleModule, compose: dict[str, Any], **more: Any) -> UpdateRequest:
    """The request of a module's options. compose are options of the project that only one of the modules has."""
    if "environment" in more:
        more["environment"] = strings(more["environment"])
    asked = {name: module.params[name] for name in ("steps", "state_dir")}
    return UpdateRequest(Request(**project_settings(module), pull=module.params["pull"], **compose), **asked, **more)
