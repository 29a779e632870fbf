#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_purge_info
short_description: List all that there is of a stack on a host, as a purge would find it
version_added: 0.2.0
description:
  - Lists the containers, networks, volumes, directories and files that M(openmemory.stack.stack_purge) would remove, in
    the order in which it would.
  - Fails with the sentence of the refusal where a purge would be refused for what it finds, such as a volume that a
    container of another project uses. Whether a snapshot could be made is only seen in check mode of the other module.
options:
  repository:
    description:
      - Where the snapshots are, to see that it does not lie in what would be removed.
    type: str
    required: false
  password_file:
    description:
      - File with its password, for the same reason. It is not read.
    type: path
    required: false
  project_src:
    description:
      - Directory of the compose file. Without it, the directory that the containers name.
    type: path
  staging_dir:
    description:
      - Directory that backups have for their copy.
    type: path
extends_documentation_fragment:
  - openmemory.stack.repository
  - openmemory.stack.docker
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.stack_purge
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: List what there is of the stack
  openmemory.stack.stack_purge_info:
    compose_project: openmemory
  register: found

- name: Nothing is left of it
  ansible.builtin.assert:
    that: not found.present
"""

RETURN = r"""
present:
  description: Whether there is anything of the stack.
  returned: success
  type: bool
  sample: true
stack:
  description: What there is, by kind.
  returned: success
  type: dict
  contains:
    containers:
      description: Names of the containers.
      type: list
      elements: str
      sample: [openmemory-mcp, openmemory-neo4j-1, openmemory-qdrant-1]
    networks:
      description: Names of the networks.
      type: list
      elements: str
      sample: [openmemory_default]
    volumes:
      description: Names of the volumes in Docker.
      type: list
      elements: str
      sample: [openmemory_neo4j_data, openmemory_neo4j_logs, openmemory_openmemory_data, openmemory_qdrant_storage]
    paths:
      description: Directories and files on the host. What is inside of managed volumes is not listed.
      type: list
      elements: str
      sample: [/opt/openmemory/.env, /var/lib/openmemory-stack/openmemory]
actions:
  description: What a purge without a snapshot would do, in order.
  returned: success
  type: list
  elements: str
  sample: [remove container openmemory-mcp, remove volume openmemory_neo4j_data (12 MiB)]
unfinished:
  description:
    - The operation that is under way or has died, null if there is none. The next one, or C(openmemory-stack recover),
      finishes or undoes one that has died.
  returned: success
  type: dict
  sample: {operation: purge, phase: removing, pid: 4711, running: false, started: '2026-11-25T02:15:00+00:00'}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places, require_local
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.unfinished import unfinished
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.plan import make_plan
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.request import PurgeRequest
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import (
    optional_repository_argument_spec,
    repository_settings,
)


def argument_spec() -> dict[str, Any]:
    return {"project_src": {"type": "path"}, "staging_dir": {"type": "path"}}


def main() -> None:
    spec = {**optional_repository_argument_spec(), **argument_spec()}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        own = {name: module.params[name] for name in argument_spec()}
        request = PurgeRequest(**repository_settings(module), **own, snapshot="none")
        request.check()
        engine = connect(module)
        require_local(engine)
        places = Places.of(request.project, request.state_dir, create=False)
        plan = make_plan(request, engine, places, "looking")
        for warning in plan.warnings:
            module.warn(warning)
        module.exit_json(
            changed=False,
            present=not plan.nothing,
            stack=plan.removed,
            actions=plan.actions,
            unfinished=unfinished(places),
        )
    except StackError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
