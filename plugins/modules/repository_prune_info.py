#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: repository_prune_info
short_description: List what a prune of a repository would remove, and when each snapshot arrived
version_added: 0.2.0
description:
  - Lists the snapshots of a repository that hosts can only add to, with when this machine first saw each, and which of
    them M(openmemory.stack.repository_prune) would remove now.
extends_documentation_fragment:
  - openmemory.stack.prune
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.repository_prune
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: See what a prune would remove
  openmemory.stack.repository_prune_info:
    repository: /srv/restic/memory-1
    password_file: /etc/openmemory-stack/memory-1.password
    keep:
      within: 90d
  register: found
"""

RETURN = r"""
repository:
  description: Where it is.
  returned: success
  type: str
  sample: /srv/restic/memory-1
removed:
  description: The snapshots that a prune would remove, each also with C(arrived).
  returned: success
  type: list
  elements: dict
  sample: [{id: 5f0c2a9be1d24c53, short_id: 5f0c2a9b, time: '2026-08-01T02:31:07Z', arrived: '2026-08-01T04:00:12Z',
            project: openmemory, host: memory-1, way: two_pass, verified: quick, safety: false, tags: []}]
kept:
  description: Those that would stay, in the same form.
  returned: success
  type: list
  elements: dict
false_times:
  description: Those that say they were made after they had arrived, in the same form.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.prune import prune
from ansible_collections.openmemory.stack.plugins.module_utils._prune_options import prune_argument_spec, prune_request


def main() -> None:
    module = AnsibleModule(argument_spec=prune_argument_spec(), supports_check_mode=True)
    try:
        found = prune.look(prune_request(module))
    except StackError as error:
        module.fail_json(msg=str(error))
    for warning in found["warnings"]:
        module.warn(warning)
    shown = ("repository", "kept", "removed", "false_times")
    module.exit_json(changed=False, **{name: found[name] for name in shown})


if __name__ == "__main__":
    main()
