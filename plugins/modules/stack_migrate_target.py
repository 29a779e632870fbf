#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_migrate_target
short_description: Have a host expect a stack from another one
version_added: 0.2.0
description:
  - Lets the key of one migration in. The key opens nothing but the target's part of that migration. It starts no shell,
    forwards nothing, and expires by itself.
  - The stack must be there already, with containers and volumes made and nothing started, as
    M(openmemory.stack.compose) leaves it with O(openmemory.stack.compose#module:state=created). What the host lacks is
    said before anything is sent.
  - The playbook C(openmemory.stack.migrate) does all steps on both hosts.
options:
  compose_project:
    description:
      - Compose project on this host. It may have another name than on the source.
    type: str
    required: true
  state:
    description:
      - V(present) expects the migration, V(absent) expects none any more and takes the key out.
      - V(accepted) notes that the data was taken over from a repository. It is not restored again then.
    type: str
    choices: [present, accepted, absent]
    default: present
  operation:
    description:
      - Name of the migration, as M(openmemory.stack.stack_migrate) has returned it. Needed with O(state=present) and
        O(state=accepted).
    type: str
  public_key:
    description:
      - Public key, as M(openmemory.stack.stack_migrate) has returned it. Needed with O(state=present).
    type: str
  user:
    description:
      - User whose C(authorized_keys) takes the key. One that is not root must be allowed to C(sudo) without a password.
    type: str
    default: root
  name_map:
    description:
      - Docker volumes of this host for volumes of the source, by the name that those have in their project. Without it
        the volume of the same name in the project is taken.
    type: dict
    default: {}
  wait_timeout:
    description:
      - How many seconds the stack may take to become healthy here.
    type: float
    default: 300
  key_hours:
    description:
      - After how many hours the key opens nothing any more, even if nobody removes it.
    type: float
    default: 24
  state_dir:
    description:
      - Directory on the host for what is kept between runs. The same as for backups.
    type: path
    default: /var/lib/openmemory-stack
extends_documentation_fragment:
  - openmemory.stack.docker
requirements:
  - systemd
  - rsync and the OpenSSH server
  - the command C(openmemory-stack), which the role P(openmemory.stack.backup#role) installs
attributes:
  check_mode:
    support: full
    description: Tells whether the key would be let in or taken out.
  diff_mode:
    support: none
    description: There is nothing to show but the key.
  idempotent:
    support: full
    description: A key that is let in already stays as it is.
seealso:
  - module: openmemory.stack.stack_migrate
  - module: openmemory.stack.stack_migrate_target_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Expect the stack
  openmemory.stack.stack_migrate_target:
    compose_project: openmemory
    operation: "{{ hostvars['old.example.com'].prepared.operation }}"
    public_key: "{{ hostvars['old.example.com'].prepared.public_key }}"
  register: expected

- name: Expect nothing any more
  openmemory.stack.stack_migrate_target:
    compose_project: openmemory
    state: absent
"""

RETURN = r"""
host_keys:
  description: Public keys of this host's SSH server, for O(openmemory.stack.stack_migrate#module:host_keys).
  returned: with O(state=present)
  type: list
  elements: str
  sample: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._compose_options import strings
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import door
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR, Places
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import docker_argument_spec


def argument_spec() -> dict[str, Any]:
    return {
        "compose_project": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "accepted", "absent"], "default": "present"},
        "operation": {"type": "str"},
        "public_key": {"type": "str", "no_log": False},
        "user": {"type": "str", "default": "root"},
        "name_map": {"type": "dict", "default": {}},
        "wait_timeout": {"type": "float", "default": 300},
        "key_hours": {"type": "float", "default": 24, "no_log": False},
        "state_dir": {"type": "path", "default": STATE_DIR},
        **docker_argument_spec(),
    }


def present(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    project, state_dir = params["compose_project"], params["state_dir"]
    expected = door.Expected(
        params["operation"], project, strings(params["name_map"]), params["wait_timeout"], params["user"]
    )
    gate = door.Gate(expected, params["public_key"], state_dir, params["docker_host"])
    changed = gate.open(params["key_hours"], module.check_mode)
    return {"changed": changed, "host_keys": door.host_keys()}


def accepted(module: AnsibleModule) -> dict[str, Any]:
    places = Places.of(module.params["compose_project"], module.params["state_dir"], create=not module.check_mode)
    return {"changed": door.note_accepted(places, module.params["operation"], module.check_mode)}


def absent(module: AnsibleModule) -> dict[str, Any]:
    places = Places.of(module.params["compose_project"], module.params["state_dir"], create=False)
    return {"changed": door.close_door(places, places.project, module.check_mode)}


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "present", ["operation", "public_key"]), ("state", "accepted", ["operation"])],
        supports_check_mode=True,
    )
    try:
        act = {"present": present, "accepted": accepted, "absent": absent}[module.params["state"]]
        module.exit_json(**act(module))
    except StackError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
