# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

DOCUMENTATION = r"""
module: compose
short_description: Bring a Docker Compose project to a state, with real health and without risk to its volumes
version_added: 0.1.0
author:
  - The openmemory.stack developers (@openmemory)
description:
  - Writes the files of a project, pulls images, starts the services and waits until every one of them works.
  - A service with a health check has to be healthy. One without has to keep running, and if it is a known server
    (Qdrant, Neo4j, OpenMemory), to answer on its address.
  - What Compose, the registry or the engine refuses is found before anything is changed, wherever that is possible.
  - Volumes are never removed nor recreated. One that is missing, or differs from what the files declare, is an error.
  - When nothing has changed, Compose is asked only to resolve the files, so that this takes a fraction of a second.
  - A plain C(docker compose) typed in O(project_src) works on the same project, since the settings file names it.
options:
  state:
    description:
      - V(present) has files in place and all services up and healthy.
      - V(restarted) is the same, and restarts what was running and needed no change.
      - V(created) has files in place and containers made, and starts nothing, such as for a stack whose data is still
        to come. A stack that was moved to another host by M(openmemory.stack.stack_migrate) is refused in these three.
      - V(stopped) stops the containers, V(absent) removes them and the networks of the project. Both need no files, and
        leave files and volumes as they are.
    type: str
    choices: [present, created, restarted, stopped, absent]
    default: present
  pull:
    description:
      - V(missing) pulls what is not on the host, V(always) also what the registry has newer, V(never) nothing.
    type: str
    choices: [always, missing, never]
    default: missing
  recreate:
    description:
      - Whether containers are recreated when Compose finds them changed, always, or never.
    type: str
    choices: [auto, always, never]
    default: auto
  remove_orphans:
    description: Remove containers of services that the files do not have any more.
    type: bool
    default: false
  wait:
    description: Wait until every service works.
    type: bool
    default: true
  wait_timeout:
    description: How many seconds services may take to work, not counting the pull.
    type: int
    default: 300
  stop_timeout:
    description: How many seconds each container has to stop. Without it C(stop_grace_period) of its service counts.
    type: int
  expected_volumes:
    description:
      - Names of external volumes that an earlier task makes. In check mode they may be missing.
    type: list
    elements: str
    default: []
  state_dir:
    description:
      - Directory on the host for what is kept between runs, such as the mark of a stack that was moved away.
    type: path
    default: /var/lib/openmemory-stack
requirements:
  - Docker Compose v2, 2.24 or newer, as a plugin of the docker command
attributes:
  check_mode:
    support: full
    description:
      - Compose's own dry run tells what would happen. With O(pull=always) the registry is asked for the digests.
  diff_mode:
    support: full
    description: Shows the files, without secrets.
  idempotent:
    support: partial
    description: Not with O(state=restarted) and O(recreate=always).
extends_documentation_fragment:
  - openmemory.stack.compose
  - openmemory.stack.docker
notes:
  - Docker Compose runs with closed standard input and is never told C(--yes), so that its question about recreating a
    volume can have one answer only.
  - The first time, files that somebody else left in O(project_src) under the same names are kept with the suffix
    C(.before-openmemory-stack).
seealso:
  - module: openmemory.stack.compose_info
  - module: openmemory.stack.volume
"""

EXAMPLES = r"""
- name: The stack is up and healthy
  openmemory.stack.compose:
    project_name: openmemory
    project_src: /opt/openmemory
    files:
      - name: docker-compose.production.yml
        content: "{{ lookup('ansible.builtin.template', 'docker-compose.production.yml.j2') }}"
    secrets:
      GOOGLE_API_KEY: "{{ vaulted_google_api_key }}"
    pull: always

- name: Stop it
  openmemory.stack.compose:
    project_name: openmemory
    project_src: /opt/openmemory
    state: stopped
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["file /opt/openmemory/.env changed", "container openmemory-mcp recreated"]
services:
  description: The services by name.
  returned: success
  type: dict
  contains:
    image:
      description: The image as the files name it.
      type: str
    image_id:
      description: Id of that image on the host.
      type: str
    digest:
      description: Digest by which the registry knows it, C(repository@sha256:…) without the repository.
      type: str
    containers:
      description: Its containers with C(name), C(id), C(state) and C(health).
      type: list
      elements: dict
  sample:
    qdrant:
      image: qdrant/qdrant:v1.18.0
      image_id: sha256:0f2c…
      digest: sha256:ab01…
      containers: [{name: openmemory-qdrant-1, id: 5d3f…, state: running, health: healthy}]
"""

from functools import partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._compose_options import (
    compose_argument_spec,
    project_settings,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_project import Project, Result
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_request import Request
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect

OWN = ("state", "pull", "recreate", "remove_orphans", "wait", "wait_timeout", "stop_timeout", "expected_volumes")
OWN += ("state_dir",)
STATES = ["present", "created", "restarted", "stopped", "absent"]


def argument_spec() -> dict[str, Any]:
    return {
        **compose_argument_spec(),
        "state": {
            "type": "str",
            "choices": STATES,
            "default": "present",
        },
        "pull": {"type": "str", "choices": ["always", "missing", "never"], "default": "missing"},
        "recreate": {"type": "str", "choices": ["auto", "always", "never"], "default": "auto"},
        "remove_orphans": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 300},
        "stop_timeout": {"type": "int"},
        "expected_volumes": {"type": "list", "elements": "str", "default": []},
        "state_dir": {"type": "path", "default": STATE_DIR},
    }


def project_of(module: AnsibleModule) -> Project:
    params = module.params
    own = {name: value for name, value in params.items() if name in OWN}
    request = Request(**project_settings(module), **own)
    return Project(request, partial(connect, module), module.check_mode)


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", state, ["files"]) for state in ("present", "created", "restarted")],
        supports_check_mode=True,
    )
    result = Result()
    try:
        project = project_of(module)
        result = project.result
        getattr(project, module.params["state"])()
    except StackError as error:
        module.fail_json(msg=str(error), changed=bool(result.actions), actions=result.actions)
    for warning in result.warnings:
        module.warn(warning)
    module.exit_json(changed=result.changed, actions=result.actions, diff=result.diff, services=result.services)


if __name__ == "__main__":
    main()
