#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_migrate_info
short_description: Tell where a stack has been moved to
version_added: 0.2.0
description:
  - Reads the mark that a migration leaves on the host that a stack has left. Neither Docker nor another host is asked.
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
  - module: openmemory.stack.stack_migrate
  - module: openmemory.stack.stack_migrate_target_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Has the stack been moved away from here?
  openmemory.stack.stack_migrate_info:
    compose_project: openmemory
  register: moved
"""

RETURN = r"""
retired:
  description: Where the stack has been moved to, null if it has not been.
  returned: success
  type: dict
  sample: {target: new.example.com, address: 192.0.2.7, at: '2026-11-25T02:15:07+00:00'}
unfinished:
  description:
    - The operation that is under way or has died, null if there is none. The next one, or C(openmemory-stack recover),
      finishes or undoes one that has died.
  returned: success
  type: dict
  sample: {operation: migrate, phase: transfer, pid: 4711, running: true, started: '2026-11-25T02:15:00+00:00'}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR, Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.retired import read_retirement
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.unfinished import unfinished


def main() -> None:
    spec = {
        "compose_project": {"type": "str", "required": True},
        "state_dir": {"type": "path", "default": STATE_DIR},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        places = Places.of(module.params["compose_project"], module.params["state_dir"], create=False)
        retirement = read_retirement(places)
        module.exit_json(
            changed=False,
            retired=None if retirement is None else retirement.as_result()["retired"],
            unfinished=unfinished(places),
        )
    except StackError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
