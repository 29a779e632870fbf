#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_update
short_description: Update the images of a stack, with its data kept and a way back
version_added: 0.2.0
description:
  - Pulls what the compose file refers to while the stack runs. If no image is newer than what runs, nothing restarts;
    what else the file asks for is then deployed as M(openmemory.stack.compose) does it.
  - Otherwise it makes a snapshot, copies the volumes beside the live data, counts what the stores hold, stops the
    containers, makes the copy exact, has Compose make the new containers, waits for their health, counts again, and
    reads every memory through OpenMemory.
  - If anything fails, the new containers go, the old ones are made again from the images that they had, and files and
    tags mean what they meant. Where the format of the data has moved, or a store's image is another one, the copy takes
    the place of the live data. What was written to the new version is then kept for a day and named.
  - Versions that a store cannot open are refused before anything is stopped.
    Those in between are run where O(steps=auto).
  - Whatever dies, the next run, or C(openmemory-stack recover), takes the update back, or finishes it if the new
    versions were found to work, and says which.
  - While it runs, one line for each host and phase tells how far it is. Short runs and check mode print none.
options:
  snapshot:
    description:
      - V(make) makes a snapshot first and updates nothing without it; it has the tag C(before-update).
      - V(none) makes none. The copy beside the live data is made in any case.
    type: str
    choices: [make, none]
    default: make
  repository:
    description:
      - Where the snapshots are, as restic names it. Needed unless O(snapshot=none).
    type: str
  password_file:
    description:
      - File on the host that holds the password of the repository. Needed unless O(snapshot=none).
    type: path
  environment:
    description:
      - Environment of restic, for the credentials of its back end. Never shown.
    type: dict
    default: {}
  staging_dir:
    description:
      - Directory for the copy that the snapshot is made from; name the one that backups have.
    type: path
  keep_days:
    description:
      - How many days the copy from before the update stays beside the live data. It goes with the first backup,
        restore, conversion or update after that. V(0) removes it as soon as the new versions are found to work.
    type: float
    default: 1
  remove_orphans:
    description: Remove containers of services that the files do not have any more.
    type: bool
    default: false
  wait_timeout:
    description:
      - How many seconds services may take to work, and each step, before all is taken back. Not counting the pull.
    type: int
    default: 300
  stop_timeout:
    description: How many seconds each container has to stop. Without it, what the container itself says.
    type: int
  expected_volumes:
    description:
      - Names of external volumes that an earlier task makes. In check mode they may be missing.
    type: list
    elements: str
    default: []
requirements:
  - Docker Compose v2, 2.24 or newer, as a plugin of the docker command
  - restic 0.14 or newer, for snapshots
extends_documentation_fragment:
  - openmemory.stack.compose
  - openmemory.stack.update
  - openmemory.stack.docker
attributes:
  check_mode:
    support: full
    description:
      - The registry is asked for the digests, every refusal is made that needs no new image, and Compose's own dry run
        tells which containers would be made anew.
  diff_mode:
    support: full
    description: Shows the files, without secrets, and the image of each service.
  idempotent:
    support: full
    description: Where nothing is newer and the files are the same, nothing is changed.
seealso:
  - module: openmemory.stack.stack_update_info
  - module: openmemory.stack.compose
  - module: openmemory.stack.volume_restore
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Update the stack to what the compose file says
  openmemory.stack.stack_update:
    project_name: openmemory
    project_src: /opt/openmemory
    files:
      - name: docker-compose.production.yml
        content: "{{ lookup('ansible.builtin.template', 'docker-compose.production.yml.j2') }}"
    secrets:
      GOOGLE_API_KEY: "{{ vaulted_google_api_key }}"
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
  register: updated

- name: Say what it was updated to
  ansible.builtin.debug:
    msg: "{{ updated.services | dict2items | map(attribute='value.after.reference') }}"
"""

RETURN = r"""
services:
  description: The services that have an image in a registry, by name.
  returned: success
  type: dict
  contains:
    before:
      description: The image that ran. C(reference), C(id), C(digest) and C(version), null where nothing tells it.
      type: dict
    after:
      description: The image that the files ask for, likewise. In check mode C(id) is null where it is not pulled yet.
      type: dict
    newer:
      description: Whether the two differ; null where the registry could not be asked.
      type: bool
    steps:
      description: References of the images that the store runs in between.
      type: list
      elements: str
  sample:
    qdrant:
      before: {reference: 'qdrant/qdrant:v1.18.0', id: 'sha256:0f2c…', digest: 'sha256:ab01…', version: '1.18.0'}
      after: {reference: 'qdrant/qdrant:v1.20.0', id: 'sha256:9e11…', digest: 'sha256:77d3…', version: '1.20.0'}
      newer: true
      steps: ['qdrant/qdrant:v1.19']
updated:
  description: Names of the services that were updated; in check mode, that would be.
  returned: success
  type: list
  elements: str
  sample: [openmemory-mcp, qdrant]
snapshot_id:
  description: Id of the snapshot from before; null with O(snapshot=none), in check mode, and if nothing was newer.
  returned: success
  type: str
  sample: 5f0c2a9be1d24c53a1f0b0a3ce3c3a51d6e4e3c1f2ab7d7a9d80f7e6f5c4b3a2
downtime_s:
  description: Seconds from the first stop to the last health; null where nothing was stopped.
  returned: success
  type: float
  sample: 14.2
kept:
  description: The copies from before the update with C(volume), C(path) and C(until).
  returned: success
  type: list
  elements: dict
  sample: [{volume: openmemory_qdrant_storage, path: /srv/.openmemory-stack-…, until: '2026-11-27T02:15:00+00:00'}]
timings:
  description: Seconds of each phase; empty in check mode, and if nothing was newer.
  returned: success
  type: dict
  sample: {pull: 3.2, copy: 0.6, stop: 2.1, settle: 0.1, start: 12.0, prove: 0.9}
actions:
  description: What was done, in order; in check mode, what would be.
  returned: success
  type: list
  elements: str
  sample: [stop openmemory-mcp, 'update openmemory-mcp from mem0/openmemory-mcp:1.0 to mem0/openmemory-mcp:1.1']
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import update
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import finish, hide_password
from ansible_collections.openmemory.stack.plugins.module_utils._update_options import (
    update_argument_spec,
    update_request,
)


def safety_argument_spec() -> dict[str, Any]:
    return {
        "snapshot": {"type": "str", "choices": ["make", "none"], "default": "make"},
        "repository": {"type": "str"},
        "password_file": {"type": "path", "no_log": False},
        "environment": {"type": "dict", "default": {}, "no_log": True},
        "staging_dir": {"type": "path"},
        "keep_days": {"type": "float", "default": 1},
    }


def deployment_argument_spec() -> dict[str, Any]:
    return {
        "remove_orphans": {"type": "bool", "default": False},
        "wait_timeout": {"type": "int", "default": 300},
        "stop_timeout": {"type": "int"},
        "expected_volumes": {"type": "list", "elements": "str", "default": []},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={**update_argument_spec(), **safety_argument_spec(), **deployment_argument_spec()},
        supports_check_mode=True,
    )
    try:
        hide_password(module)
        compose = {name: module.params[name] for name in deployment_argument_spec()}
        request = update_request(module, compose, **{name: module.params[name] for name in safety_argument_spec()})
        progress = Progress(Places.of(request.project, create=False).progress)
        result = update.run(request, connect(module), progress, module.check_mode)
    except StackError as error:
        module.fail_json(msg=str(error))
    finish(module, result)


if __name__ == "__main__":
    main()
