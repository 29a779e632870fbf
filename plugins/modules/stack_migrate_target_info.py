#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_migrate_target_info
short_description: Tell which stack a host expects, and what has come from another one
version_added: 0.2.0
description:
  - Reads what migrations leave on the host that a stack goes to. Neither Docker nor another host is asked.
options:
  compose_project:
    description:
      - Compose project on this host.
    type: str
    required: true
  state_dir:
    description:
      - Directory on the host for what is kept between runs. The same as for backups.
    type: path
    default: /var/lib/openmemory-stack
extends_documentation_fragment:
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.stack_migrate_target
  - module: openmemory.stack.stack_migrate_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Has a stack come here?
  openmemory.stack.stack_migrate_target_info:
    compose_project: openmemory
  register: come
"""

RETURN = r"""
arrival:
  description: The last migration to this host and whether the stack was taken over, null if there was none.
  returned: success
  type: dict
  sample: {operation: 20261125t021500-5f0c2a, accepted: true, volumes: [openmemory_qdrant_storage]}
expected:
  description: Name of the migration that is expected, null if there is none.
  returned: success
  type: str
  sample: null
unfinished:
  description:
    - The operation that is under way or has died, null if there is none. The next one, or C(openmemory-stack recover),
      finishes or undoes one that has died.
  returned: success
  type: dict
  sample: {operation: arrival, phase: start, pid: 4711, running: true, started: '2026-11-25T02:15:00+00:00'}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.durable_json import read_json
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR, Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.unfinished import unfinished


def main() -> None:
    spec = {
        "compose_project": {"type": "str", "required": True},
        "state_dir": {"type": "path", "default": STATE_DIR},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        places = Places.of(module.params["compose_project"], module.params["state_dir"], create=False)
        module.exit_json(
            changed=False,
            arrival=read_last(places).get("arrival"),
            expected=(read_json(places.arrival) or {}).get("operation"),
            unfinished=unfinished(places),
        )
    except StackError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
