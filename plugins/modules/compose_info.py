# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: compose_info
short_description: Resolve and check a Docker Compose project without touching it
version_added: 0.1.0
author:
  - The openmemory.stack developers (@openmemory)
description:
  - Has Docker Compose resolve compose files that are not on the host yet, and returns their services and volumes.
  - The files are checked in a private temporary directory as if they were in O(project_src). Nothing else is written.
  - Without O(files) the project that is deployed in O(project_src) is resolved.
  - A project that Compose refuses fails with the reason that Compose gives.
options:
  gather_containers:
    description:
      - Whether to ask the engine for the containers of the project.
      - Without it the engine and the Docker SDK for Python are not needed.
    type: bool
    default: true
  minimum_version:
    description:
      - Fail if Docker Compose is older than this, for example V(2.24) for files that use the tag C(!override).
    type: str
requirements:
  - Docker Compose v2, 2.20 or newer, as a plugin of the docker command
  - Docker SDK for Python, only for O(gather_containers=true)
extends_documentation_fragment:
  - openmemory.stack.compose
  - openmemory.stack.docker
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.compose
"""

EXAMPLES = r"""
- name: See which volumes a compose file of our own needs
  openmemory.stack.compose_info:
    project_name: openmemory
    project_src: /opt/openmemory
    files:
      - name: docker-compose.yml
        content: "{{ lookup('ansible.builtin.file', 'docker-compose.yml') }}"
    secrets:
      GOOGLE_API_KEY: "{{ vaulted_google_api_key }}"
    gather_containers: false
  register: project

- name: Look at what is deployed
  openmemory.stack.compose_info:
    project_name: openmemory
    project_src: /opt/openmemory
"""

RETURN = r"""
available:
  description:
    - Whether Docker Compose is installed.
    - Only in check mode can it be false, and then nothing else is known. Otherwise its absence is an error.
  returned: success
  type: bool
  sample: true
services:
  description: The services by name.
  returned: success
  type: dict
  contains:
    image:
      description: The image as the file names it.
      type: str
    healthcheck:
      description: Whether the file gives the service a health check. The image may have one of its own.
      type: bool
    mounts:
      description: What is mounted, with C(type), C(source) (the key of a volume or a path) and C(target).
      type: list
      elements: dict
  sample:
    qdrant:
      image: qdrant/qdrant:v1.18.0
      healthcheck: true
      mounts: [{type: volume, source: qdrant_storage, target: /qdrant/storage}]
volumes:
  description: The volumes by key, with C(name), C(external), C(driver), C(driver_opts) and C(labels).
  returned: success
  type: dict
  sample:
    qdrant_storage: {name: openmemory_qdrant_storage, external: false, driver: local, driver_opts: {}, labels: {}}
containers:
  description: The containers of the project in any state.
  returned: O(gather_containers=true)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the container.
      type: str
    id:
      description: Id of the container.
      type: str
    service:
      description: The service that it belongs to.
      type: str
    state:
      description: State as the engine names it, for example V(running).
      type: str
    health:
      description: V(healthy), V(unhealthy), V(starting), or V(none) without a health check.
      type: str
"""

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._compose_options import (
    compose_argument_spec,
    connection,
    strings,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_cli import (
    NOT_INSTALLED,
    ComposeCli,
    is_installed,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_containers import (
    health_of,
    project_containers,
    service_of,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_guard import (
    check_references,
    config_volumes,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_request import Candidate, Request
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_files import wanted_files
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect


def resolve(module: AnsibleModule, request: Request) -> tuple[dict[str, Any], list[str]]:
    """The project as Compose resolves it, and its warnings; empty where nothing is deployed yet."""
    if module.params["files"] is None:
        if not os.path.isdir(request.project_src):
            return {}, []
        cli = ComposeCli(request.connection, request.project_name, request.project_src, in_place=True)
        return cli.config()
    wanted = wanted_files(request.files, {**request.env, **request.secrets}, request.project_name)
    with Candidate(request, wanted) as candidate:
        cli = candidate.cli()
        if module.params["minimum_version"]:
            cli.require(module.params["minimum_version"])
        return cli.config()


def describe_services(config: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, service in (config.get("services") or {}).items():
        check = service.get("healthcheck") or {}
        found[name] = {
            "image": service.get("image"),
            "healthcheck": bool(check.get("test")) and not check.get("disable"),
            "mounts": [
                {"type": mount.get("type"), "source": mount.get("source"), "target": mount.get("target")}
                for mount in service.get("volumes") or []
            ],
        }
    return found


def describe_containers(module: AnsibleModule) -> list[dict[str, Any]]:
    found = [
        {
            "name": container["Names"][0].lstrip("/"),
            "id": container["Id"],
            "service": service_of(container),
            "state": container["State"],
            "health": health_of(container),
        }
        for container in project_containers(connect(module), module.params["project_name"])
    ]
    return sorted(found, key=lambda container: str(container["name"]))


def run(module: AnsibleModule) -> dict[str, Any]:
    if module.check_mode and not is_installed():
        module.warn(NOT_INSTALLED + " In check mode nothing more can be said.")
        return {"available": False, "services": {}, "volumes": {}, "containers": []}
    request = Request(
        project_name=module.params["project_name"],
        project_src=module.params["project_src"],
        connection=connection(module),
        tmpdir=module.tmpdir,
        files=module.params["files"] or (),
        env=strings(module.params["env"]),
        secrets=strings(module.params["secrets"]),
    )
    config, warnings = resolve(module, request)
    for warning in warnings:
        module.warn(warning)
    check_references(config)
    result: dict[str, Any] = {
        "available": True,
        "services": describe_services(config),
        "volumes": config_volumes(config),
    }
    text = json.dumps(result)
    for name, secret in request.secrets.items():
        if secret and secret in text:
            # Ansible would blacken the name in the result, and a task that uses the result would use a wrong name
            raise StackError(
                f"The value of the secret {name} is also part of a name in the project; choose another value."
            )
    if module.params["gather_containers"]:
        result["containers"] = describe_containers(module)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **compose_argument_spec(),
            "gather_containers": {"type": "bool", "default": True},
            "minimum_version": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except StackError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
