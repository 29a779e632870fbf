#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: repository_prune
short_description: Prune a repository that hosts can only add to, from a machine that they cannot reach
version_added: 0.2.0
description:
  - Removes the snapshots that are not kept any more, and the data that nothing else needs.
  - Goes by when this machine first saw each snapshot. A host that was broken into can add snapshots with any time in
    them, and as many as it likes; it cannot make older ones go by that.
  - Before anything is removed the repository is checked. One that is damaged is left as it is.
options:
  check_repository:
    description:
      - How the repository is checked before anything is removed, V(none), V(structure), or a part of the data that is
        read again, such as V(5%).
    type: str
    default: structure
  lock_wait:
    description:
      - How many seconds to wait for a host that adds something meanwhile.
    type: float
    default: 600
extends_documentation_fragment:
  - openmemory.stack.prune
attributes:
  check_mode:
    support: full
    description: Lists exactly what would go.
  diff_mode:
    support: full
    description: Shows what went.
  idempotent:
    support: full
    description: A second run finds nothing to remove.
seealso:
  - module: openmemory.stack.repository_prune_info
  - module: openmemory.stack.volume_backup
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Prune the repository of a host, on the machine that keeps it
  openmemory.stack.repository_prune:
    repository: /srv/restic/memory-1
    password_file: /etc/openmemory-stack/memory-1.password
    keep:
      within: 90d
      monthly: 12
    check_repository: 5%

- name: Prune a bucket that hosts can only add to
  openmemory.stack.repository_prune:
    repository: s3:https://s3.example.com/backups/memory-1
    password_file: /etc/openmemory-stack/memory-1.password
    environment:
      AWS_ACCESS_KEY_ID: "{{ vault_prune_key_id }}"
      AWS_SECRET_ACCESS_KEY: "{{ vault_prune_key }}"
    keep:
      within: 90d
"""

RETURN = r"""
repository:
  description: Where it is.
  returned: success
  type: str
  sample: /srv/restic/memory-1
removed:
  description: The snapshots that went, in check mode those that would, each also with C(arrived).
  returned: success
  type: list
  elements: dict
  sample: [{id: 5f0c2a9be1d24c53, short_id: 5f0c2a9b, time: '2026-08-01T02:31:07Z', arrived: '2026-08-01T04:00:12Z',
            project: openmemory, host: memory-1, way: two_pass, verified: quick, safety: false, tags: []}]
kept:
  description: The snapshots that stay, in the same form.
  returned: success
  type: list
  elements: dict
false_times:
  description: Those that say they were made after they had arrived, in the same form. There is a warning, too.
  returned: success
  type: list
  elements: dict
actions:
  description: What was done, in order; in check mode, what would be.
  returned: success
  type: list
  elements: str
  sample: ['snapshot 5f0c2a9b of openmemory on memory-1, 2026-08-01 02:31, removed']
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.prune import prune
from ansible_collections.openmemory.stack.plugins.module_utils._prune_options import prune_argument_spec, prune_request
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import finish


def main() -> None:
    own = {
        "check_repository": {"type": "str", "default": "structure"},
        "lock_wait": {"type": "float", "default": 600},
    }
    module = AnsibleModule(argument_spec={**prune_argument_spec(), **own}, supports_check_mode=True)
    try:
        result = prune.run(prune_request(module, **{name: module.params[name] for name in own}), module.check_mode)
    except StackError as error:
        module.fail_json(msg=str(error))
    finish(module, result)


if __name__ == "__main__":
    main()
