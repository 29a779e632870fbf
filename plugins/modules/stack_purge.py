#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_purge
short_description: Remove a stack with all of its data, after a last snapshot
version_added: 0.2.0
description:
  - Stops the containers, makes a snapshot of what stands still, and reads it back from the repository. Only then are
    containers, networks, volumes, the host directories behind volumes, old data of restores, and what is kept between
    runs removed.
  - Nothing is removed unless O(confirm) is the name of the stack. Check mode lists all that would go, also without it.
  - Repositories, their passwords, and images stay. So do host directories that containers mount without a volume; they
    are warned of.
  - What is not this stack's alone is refused before anything is stopped, such as a volume that a container of another
    project uses, a directory of the system, and a directory that a repository lies in.
  - If the snapshot fails, what ran before runs again. Whatever dies, the next run, or C(openmemory-stack recover),
    starts what was stopped, or finishes the removal if it had begun, and says which.
  - While it runs, one line for each host and phase tells how far it is. Short runs and check mode print none.
options:
  confirm:
    description:
      - The name of the stack once more, as in O(compose_project), so that nothing is removed by mistake.
    type: str
    default: ''
  snapshot:
    description:
      - V(make) makes a snapshot first and removes nothing without it; it has the tag C(before-purge).
      - V(none) removes data that may be in no snapshot.
    type: str
    choices: [make, none]
    default: make
  repository:
    description:
      - Needed unless O(snapshot=none). Give it in any case, so that a repository inside a directory that would be
        removed is found; one with the layout of restic is looked for also without it.
    type: str
    required: false
  password_file:
    description:
      - Needed unless O(snapshot=none). It is never removed, as nothing in the repository can be read without it.
    type: path
    required: false
  project_src:
    description:
      - Directory of the compose file. The files that M(openmemory.stack.compose) wrote there are removed, and the
        directory if nothing else is in it. Without it, the directory that the containers name.
    type: path
  directories:
    description:
      - Directories that are removed if nothing is in them afterwards, such as the one that the volumes lay in.
    type: list
    elements: path
    default: []
  stop_timeout:
    description:
      - How many seconds a container gets to stop. Without it, what the container itself says.
    type: int
  staging_dir:
    description:
      - Directory for the copy that the snapshot is made from, and that is removed; name the one that backups have.
    type: path
extends_documentation_fragment:
  - openmemory.stack.repository
  - openmemory.stack.docker
attributes:
  check_mode:
    support: full
    description: Makes every refusal but that of O(confirm) not being given, and lists what would go.
  diff_mode:
    support: full
    description: Shows what there is of the stack, and what is left of it.
  idempotent:
    support: full
    description: A stack that is gone is not changed. With O(snapshot=make) a name that no snapshot knows is refused.
seealso:
  - module: openmemory.stack.stack_purge_info
  - module: openmemory.stack.volume_backup
  - module: openmemory.stack.volume_restore
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Remove the stack, after a last snapshot
  openmemory.stack.stack_purge:
    compose_project: openmemory
    confirm: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password

- name: Remove a trial that nobody will miss
  openmemory.stack.stack_purge:
    compose_project: trial
    confirm: trial
    snapshot: none
"""

RETURN = r"""
removed:
  description: What was removed; in check mode, what would be.
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
snapshot_id:
  description: Id of the snapshot; null with O(snapshot=none), in check mode, and where there was no volume.
  returned: success
  type: str
  sample: 5f0c2a9be1d24c53a1f0b0a3ce3c3a51d6e4e3c1f2ab7d7a9d80f7e6f5c4b3a2
timings:
  description: Seconds of each phase; empty in check mode.
  returned: success
  type: dict
  sample: {stop: 3.1, copy: 0.4, commit: 1.9, remove: 1.2}
actions:
  description: What was done, in order; in check mode, what would be.
  returned: success
  type: list
  elements: str
  sample: [remove container openmemory-mcp, remove volume openmemory_neo4j_data (12 MiB)]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge import purge
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.request import PurgeRequest
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import (
    finish,
    optional_repository_argument_spec,
    progress,
    repository_settings,
)


def argument_spec() -> dict[str, Any]:
    return {
        "confirm": {"type": "str", "default": ""},
        "snapshot": {"type": "str", "choices": ["make", "none"], "default": "make"},
        "project_src": {"type": "path"},
        "directories": {"type": "list", "elements": "path", "default": []},
        "stop_timeout": {"type": "int"},
        "staging_dir": {"type": "path"},
    }


def request_of(module: AnsibleModule) -> PurgeRequest:
    return PurgeRequest(**repository_settings(module), **{name: module.params[name] for name in argument_spec()})


def main() -> None:
    module = AnsibleModule(
        argument_spec={**optional_repository_argument_spec(), **argument_spec()}, supports_check_mode=True
    )
    try:
        result = purge.run(request_of(module), connect(module), progress(module), module.check_mode)
    except StackError as error:
        module.fail_json(msg=str(error))
    finish(module, result)


if __name__ == "__main__":
    main()
