# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that compose and compose_info share, and the connection that they give to the docker command."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_cli import Connection
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import docker_argument_spec


def compose_argument_spec() -> dict[str, Any]:
    """Those of the documentation fragment openmemory.stack.compose, and the Docker options."""
    return {
        "project_name": {"type": "str", "required": True},
        "project_src": {"type": "path", "required": True},
        "files": {
            "type": "list",
            "elements": "dict",
            "options": {
                "name": {"type": "str", "required": True},
                "content": {"type": "str", "required": True},
                "mode": {"type": "str", "default": "0644"},
            },
        },
        "env": {"type": "dict", "default": {}},
        "secrets": {"type": "dict", "default": {}, "no_log": True},
        **docker_argument_spec(),
    }


def connection(module: AnsibleModule) -> Connection:
    names = ("docker_host", "api_version", "tls", "validate_certs", "ca_path", "client_cert", "client_key")
    return Connection(**{name: module.params[name] for name in names})


def project_settings(module: AnsibleModule) -> dict[str, Any]:
    """What every request of the core is given about the project and its files."""
    return {
        "project_name": module.params["project_name"],
        "project_src": module.params["project_src"],
        "connection": connection(module),
        "tmpdir": module.tmpdir,
        "files": module.params["files"] or (),
        "env": strings(module.params["env"]),
        "secrets": strings(module.params["secrets"]),
    }


def strings(values: dict[str, Any] | None) -> dict[str, str]:
    """Settings as text, the way YAML writes them: true, not True."""
    return {
        name: str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        for name, value in (values or {}).items()
    }
