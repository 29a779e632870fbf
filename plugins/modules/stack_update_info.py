#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_update_info
short_description: Tell which images of a stack have newer ones, and which steps lead there
version_added: 0.2.0
description:
  - Compares the image that each service runs with what the compose file asks for and, for that, asks the registry.
    Nothing is pulled.
  - Tells the versions that a store has to run in between, and why M(openmemory.stack.stack_update) would refuse.
extends_documentation_fragment:
  - openmemory.stack.compose
  - openmemory.stack.update
  - openmemory.stack.docker
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.stack_update
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Look for newer images
  openmemory.stack.stack_update_info:
    project_name: openmemory
    project_src: /opt/openmemory
    files:
      - name: docker-compose.production.yml
        content: "{{ lookup('ansible.builtin.template', 'docker-compose.production.yml.j2') }}"
  register: found

- name: Say which
  ansible.builtin.debug:
    msg: "{{ found.services | dict2items | selectattr('value.newer') | map(attribute='key') }}"
"""

RETURN = r"""
present:
  description: Whether the stack has any container on this host.
  returned: success
  type: bool
  sample: true
newer:
  description: Whether any service has a newer image.
  returned: success
  type: bool
  sample: true
services:
  description: The services that have containers and an image in a registry, by name.
  returned: success
  type: dict
  contains:
    before:
      description: The image that runs. C(reference), C(id), C(digest) and C(version), null where nothing tells it.
      type: dict
    after:
      description: The image that the files ask for, likewise. C(id) is null where it is not on this host.
      type: dict
    newer:
      description: Whether the two differ; null where the registry could not be asked.
      type: bool
    steps:
      description: Versions that the store has to run in between.
      type: list
      elements: str
    problem:
      description: The sentence of the refusal, null if there is none.
      type: str
  sample:
    qdrant:
      before: {reference: 'qdrant/qdrant:v1.18.0', id: 'sha256:0f2c…', digest: 'sha256:ab01…', version: '1.18.0'}
      after: {reference: 'qdrant/qdrant:v1.20.0', id: null, digest: 'sha256:77d3…', version: '1.20.0'}
      newer: true
      steps: ['1.19']
      problem: null
unfinished:
  description:
    - The operation that is under way or has died, null if there is none. The next one, or C(openmemory-stack recover),
      finishes or undoes one that has died.
  returned: success
  type: dict
  sample: {operation: update, phase: start, pid: 4711, running: false, started: '2026-11-25T02:15:00+00:00'}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.look import look
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect
from ansible_collections.openmemory.stack.plugins.module_utils._update_options import (
    update_argument_spec,
    update_request,
)


def main() -> None:
    module = AnsibleModule(argument_spec=update_argument_spec(), supports_check_mode=True)
    try:
        found = look(update_request(module, {}, snapshot="none"), connect(module))
    except StackError as error:
        module.fail_json(msg=str(error))
    for warning in found.pop("warnings"):
        module.warn(warning)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
