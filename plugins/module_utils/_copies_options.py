# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options about retention and far repositories, and what they become in the core."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import password_in
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep


def keep_argument_spec() -> dict[str, Any]:
    """The suboptions of keep."""
    counts = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
    return {**{name: {"type": "int"} for name in counts}, "within": {"type": "str"}}


def copies_argument_spec() -> dict[str, Any]:
    """Those of the documentation fragment openmemory.stack.copies."""
    keep = {"type": "dict", "options": keep_argument_spec(), "no_log": False}
    return {
        "keep": keep,
        "prune": {"type": "bool", "default": True},
        "copies": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "repository": {"type": "str", "required": True},
                "password_file": {"type": "path", "no_log": False},
                "environment": {"type": "dict", "no_log": True},
                "keep": keep,
                "prune": {"type": "bool", "default": True},
                "init": {"type": "bool", "default": True},
                "limit_upload": {"type": "int", "default": 0},
            },
        },
    }


def keep_of(given: dict[str, Any] | None) -> Keep | None:
    """The policy of an option keep; None where nothing in it is set."""
    asked = {name: value for name, value in (given or {}).items() if value is not None}
    return Keep(**asked) if asked else None


def hide_passwords(module: AnsibleModule) -> None:
    """Passwords in URLs are refused by the core; the result, which tells the options, does not show them."""
    for copy in module.params["copies"] or ():
        password = password_in(copy["repository"] or "")
        if password:
            module.no_log_values.add(password)
