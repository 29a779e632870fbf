#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume_restore_info
short_description: Tell what restores have left on a host
version_added: 0.2.0
description:
  - Tells of the data that restores have replaced and keep, and of an operation that died and that nothing has finished
    or undone yet.
  - Reads only files of C(state_dir). Neither the engine nor the repository is asked.
options:
  compose_project:
    description:
      - Compose project that the volumes belong to.
    type: str
    required: true
  state_dir:
    description:
      - Directory on the host where it is recorded.
    type: path
    default: /var/lib/openmemory-stack
extends_documentation_fragment:
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.volume_restore
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Look what a restore has kept
  openmemory.stack.volume_restore_info:
    compose_project: openmemory
  register: found

- name: Nothing died halfway
  ansible.builtin.assert:
    that: found.unfinished is none
"""

RETURN = r"""
kept:
  description: Data that restores have replaced, oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    volume:
      description: Name in Docker.
      type: str
      sample: openmemory_qdrant_storage
    path:
      description: Where it is kept.
      type: str
      sample: /var/lib/docker/volumes/openmemory_qdrant_storage/.openmemory-restore-20261125t021500-3fa9c1
    until:
      description: When it is removed, in UTC.
      type: str
      sample: '2026-12-02T02:15:00+00:00'
    snapshot:
      description: The snapshot that replaced it.
      type: str
      sample: 5f0c2a9be1d24c53a1f0b0a3ce3c3a51d6e4e3c1f2ab7d7a9d80f7e6f5c4b3a2
    operation:
      description: The restore that did it.
      type: str
      sample: 20261125t021500-3fa9c1
unfinished:
  description:
    - The operation that is under way or has died, null if there is none. The next backup or restore, or
      C(openmemory-stack recover), finishes or undoes one that has died.
  returned: success
  type: dict
  sample: {operation: restore, phase: swap, pid: 4711, running: false, started: '2026-11-25T02:15:00+00:00'}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR, Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.unfinished import unfinished
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept


def main() -> None:
    spec = {
        "compose_project": {"type": "str", "required": True},
        "state_dir": {"type": "path", "default": STATE_DIR},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        places = Places.of(module.params["compose_project"], module.params["state_dir"], create=False)
        found = [entry.as_result() for entry in kept.load(places)]
        module.exit_json(changed=False, kept=found, unfinished=unfinished(places))
    except StackError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
