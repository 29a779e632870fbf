# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How every module of the collection is told which Docker engine to use."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import DEFAULT_HOST, Engine

_CERTIFICATES = {"ca_path": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}


def docker_argument_spec() -> dict[str, Any]:
    """The options of the documentation fragment openmemory.stack.docker, named as in community.docker."""
    return {
        "docker_host": {
            "type": "str",
            "default": DEFAULT_HOST,
            "fallback": (env_fallback, ["DOCKER_HOST"]),
            "aliases": ["docker_url"],
        },
        "api_version": {
            "type": "str",
            "default": "auto",
            "fallback": (env_fallback, ["DOCKER_API_VERSION"]),
            "aliases": ["docker_api_version"],
        },
        "timeout": {"type": "int", "default": 60, "fallback": (env_fallback, ["DOCKER_TIMEOUT"])},
        "tls": {"type": "bool", "default": False, "fallback": (env_fallback, ["DOCKER_TLS"])},
        "validate_certs": {
            "type": "bool",
            "default": False,
            "fallback": (env_fallback, ["DOCKER_TLS_VERIFY"]),
            "aliases": ["tls_verify"],
        },
        "tls_hostname": {"type": "str", "fallback": (env_fallback, ["DOCKER_TLS_HOSTNAME"])},
        "ca_path": {"type": "path", "aliases": ["ca_cert", "tls_ca_cert", "cacert_path"]},
        "client_cert": {"type": "path", "aliases": ["tls_client_cert", "cert_path"]},
        "client_key": {"type": "path", "aliases": ["tls_client_key", "key_path"], "no_log": False},
    }


def connect(module: AnsibleModule, late: bool = False) -> Engine:
    """The engine that the module's options name; raises StackError. Nothing is sent yet; for late see Engine."""
    options = {name: module.params[name] for name in docker_argument_spec()}
    directory = os.environ.get("DOCKER_CERT_PATH")
    if directory:
        for name, file in _CERTIFICATES.items():
            options[name] = options[name] or os.path.join(directory, file)
    return Engine.connect(**options, late=late)
