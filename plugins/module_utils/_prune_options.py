# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that repository_prune and repository_prune_info share, and what they become in the core."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._compose_options import strings
from ansible_collections.openmemory.stack.plugins.module_utils._copies_options import keep_argument_spec
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR
from ansible_collections.openmemory.stack.plugins.module_utils._core.prune.prune import PruneRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import hide_password


def prune_argument_spec() -> dict[str, Any]:
    """Those of the documentation fragment openmemory.stack.prune."""
    keep = keep_argument_spec()
    return {
        "repository": {"type": "str", "required": True},
        "password_file": {"type": "path", "required": True, "no_log": False},
        "environment": {"type": "dict", "default": {}, "no_log": True},
        "keep": {
            "type": "dict",
            "required": True,
            "no_log": False,
            "options": {**keep, "within": {"type": "str", "required": True}},
        },
        "project": {"type": "str"},
        "host": {"type": "str"},
        "state_dir": {"type": "path", "default": STATE_DIR},
    }


def prune_request(module: AnsibleModule, **more: Any) -> PruneRequest:
    """The request of the options; StackError for what makes no sense."""
    hide_password(module)
    options = {name: module.params[name] for name in prune_argument_spec()}
    keep = {name: value for name, value in options.pop("keep").items() if value is not None}
    return PruneRequest(**{**options, "environment": strings(options["environment"])}, keep=Keep(**keep), **more)
