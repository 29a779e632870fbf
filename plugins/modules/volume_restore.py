#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume_restore
short_description: Restore volumes from a snapshot, beside the live data and with a way back
version_added: 0.2.0
description:
  - Fetches the snapshot beside the live data, on the same file system, and checks it there. Only then are the
    containers stopped, the data swapped in by renaming, and the containers that ran before started again.
  - How long the stack is down does not depend on how much is restored.
  - If a container does not become healthy, or a store does not hold what the snapshot says, the data is swapped back
    and the run fails.
  - What was live is kept for O(keep_days), and is also put into the repository first, unless O(safety=false).
  - Whatever dies, the next run, or C(openmemory-stack recover), finishes or undoes it; the live data is either the old
    or the new one.
  - While it runs, one line for each host and phase tells how far it is. Short runs and check mode print none.
options:
  snapshot:
    description:
      - V(latest), an id or its beginning, V(tag:NAME) for the newest with that tag, or a time such as
        V(2026-11-25 02:00) for the newest that is not later.
    type: str
    default: latest
  from_project:
    description:
      - The project that the snapshot is of, if it is another one than O(compose_project). Without it, a snapshot of
        another project is refused.
    type: str
  volumes:
    description:
      - The volumes to restore, named as in the compose file or in Docker. Without it, all that the snapshot holds.
      - Volumes that the host does not have are made, so a host that never had the stack can be restored to.
    type: list
    elements: str
  path:
    description:
      - One file or directory, relative to the root of the one volume in O(volumes). Nothing else is touched.
      - It is compared with what was captured, and a database of SQLite is checked. Not with O(probe) or
        O(set_password), which are for whole volumes.
    type: str
  target:
    description:
      - V(in_place) swaps the data in. V(new) makes new volumes beside those of the project and starts nothing.
    type: str
    choices: [in_place, new]
    default: in_place
  name_map:
    description:
      - Docker volumes by the name of the volume in the snapshot, where they are not those of O(compose_project).
    type: dict
    default: {}
  new_prefix:
    description:
      - What the names of the volumes that O(target=new) makes begin with, followed by the name in the snapshot. Without
        it, V(<compose_project>-restored_).
    type: str
  probe:
    description:
      - Before anything is stopped, start the stores on the restored copy in containers without network, and compare
        what they hold with the snapshot.
    type: bool
    default: false
  force:
    description:
      - Replace volumes that are not empty. Without it they are refused, so that nothing is replaced by mistake.
    type: bool
    default: false
  safety:
    description:
      - Back up what is live into the repository before it is replaced. The snapshot gets the tag C(safety).
    type: bool
    default: true
  keep_days:
    description:
      - For how many days the replaced data is kept on the host. RV(kept) says where.
    type: float
    default: 7
  ignore_versions:
    description:
      - Restore also where the images of the host cannot be expected to read the data of the snapshot, such as Qdrant
        across several minor versions.
    type: bool
    default: false
  check_census:
    description:
      - Compare what the stores hold after the start with what the snapshot says.
    type: bool
    default: true
  start:
    description:
      - Start the containers again that ran before. V(false) leaves them stopped; health and contents are then not
        checked.
    type: bool
    default: true
  set_password:
    description:
      - A restored Neo4j has the password that it had when the snapshot was made. V(true) sets the one that its
        container is configured with. Without it, a restore whose Neo4j refuses that one is taken back.
      - Where no container of Neo4j is there or started, its login is not checked, and a warning says so.
    type: bool
    default: false
  wait_timeout:
    description:
      - How many seconds the containers may take to become healthy before the data is swapped back.
    type: float
    default: 300
  stop_timeout:
    description:
      - How many seconds a container gets to stop. Without it, what the container itself says.
    type: int
  staging_dir:
    description:
      - Directory for the copy that the snapshot for O(safety) is made from; name the one that backups have, and only
        what changed since the last of them is copied. Without it, one below O(state_dir), or beside the volumes where
        they can share blocks.
    type: path
extends_documentation_fragment:
  - openmemory.stack.repository
  - openmemory.stack.docker
attributes:
  check_mode:
    support: full
    description: Makes every refusal that can be made without fetching the snapshot, and tells what would be done.
  diff_mode:
    support: full
    description: Shows what was done.
  idempotent:
    support: none
    description: Every run restores anew. O(force) is needed to do it twice.
seealso:
  - module: openmemory.stack.volume_backup
  - module: openmemory.stack.volume_backup_info
  - module: openmemory.stack.volume_restore_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Go back to the newest snapshot
  openmemory.stack.volume_restore:
    compose_project: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    force: true

- name: Go back to how it was at two in the night, after trying that the stores start on it
  openmemory.stack.volume_restore:
    compose_project: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    snapshot: 2026-11-25 02:00
    probe: true
    force: true

- name: Look at old data beside the live one
  openmemory.stack.volume_restore:
    compose_project: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    snapshot: tag:before-update
    target: new
    new_prefix: look_
  register: beside

- name: Bring one file back
  openmemory.stack.volume_restore:
    compose_project: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    volumes: [openmemory_data]
    path: openmemory.db
    force: true
"""

RETURN = r"""
snapshot_id:
  description: Id of the snapshot.
  returned: success
  type: str
  sample: 5f0c2a9be1d24c53a1f0b0a3ce3c3a51d6e4e3c1f2ab7d7a9d80f7e6f5c4b3a2
volumes:
  description: The restored volumes by their name in the snapshot.
  returned: success
  type: dict
  contains:
    NAME:
      description: One volume, by its name.
      type: dict
      contains:
        name:
          description: Name in Docker.
          type: str
          sample: openmemory_qdrant_storage
        path:
          description: Where its data lies on the host.
          type: str
          sample: /var/lib/docker/volumes/openmemory_qdrant_storage/_data
        backing:
          description: V(managed) or V(path).
          type: str
          sample: managed
        store:
          description: The store in it.
          type: str
          sample: qdrant
        created:
          description: Whether the host did not have it before.
          type: bool
          sample: false
        census:
          description: What the store was found to hold; null where it was not counted.
          type: dict
          sample: {collections: {memories: 1204}}
safety_snapshot_id:
  description: Id of the snapshot of what was live; null where there was nothing, or with O(safety=false).
  returned: when something was restored
  type: str
  sample: 9a51e0d8c2b14f6e8d7c6b5a49382716f5e4d3c2b1a09f8e7d6c5b4a39281706
operation:
  description: Id of this restore, by which what it keeps is named.
  returned: when something was restored
  type: str
  sample: 20261125t021500-3fa9c1
downtime_s:
  description:
    - Seconds from the first container stopped to the last one healthy. V(0) where none ran; null in check mode.
  returned: success
  type: float
  sample: 11.4
stopped:
  description: Names of the containers that were stopped.
  returned: when something was restored
  type: list
  elements: str
  sample: [openmemory-neo4j-1, openmemory-qdrant-1, openmemory-mcp]
started_again:  # a background job of Ansible has "started" as its own word
  description: Names of the containers that were started again.
  returned: when something was restored
  type: list
  elements: str
  sample: [openmemory-neo4j-1, openmemory-qdrant-1, openmemory-mcp]
census:
  description: What the stores were found to hold, by volume.
  returned: when something was restored
  type: dict
  sample: {qdrant_storage: {collections: {memories: 1204}}}
timings:
  description: Seconds of each phase.
  returned: when something was restored
  type: dict
  sample: {plan: 1.63, fetch: 1.73, check: 0.02, stop: 2.13, swap: 0.01, start: 8.2}
kept:
  description: The replaced data.
  returned: when something was restored
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
actions:
  description: What was done, in order; in check mode, what would be.
  returned: success
  type: list
  elements: str
  sample: [volume openmemory_qdrant_storage restored]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._compose_options import strings
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import restore
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.request import RestoreRequest
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import (
    finish,
    progress,
    repository_argument_spec,
    repository_settings,
)


def argument_spec() -> dict[str, Any]:
    return {
        "snapshot": {"type": "str", "default": "latest"},
        "from_project": {"type": "str"},
        "volumes": {"type": "list", "elements": "str"},
        "path": {"type": "str"},
        "target": {"type": "str", "choices": ["in_place", "new"], "default": "in_place"},
        "name_map": {"type": "dict", "default": {}},
        "new_prefix": {"type": "str"},
        "probe": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "safety": {"type": "bool", "default": True},
        "keep_days": {"type": "float", "default": 7},
        "ignore_versions": {"type": "bool", "default": False},
        "check_census": {"type": "bool", "default": True},
        "start": {"type": "bool", "default": True},
        "set_password": {"type": "bool", "default": False, "no_log": False},
        "wait_timeout": {"type": "float", "default": 300},
        "stop_timeout": {"type": "int"},
        "staging_dir": {"type": "path"},
    }


def request_of(module: AnsibleModule) -> RestoreRequest:
    options = {name: module.params[name] for name in argument_spec()}
    return RestoreRequest(**repository_settings(module), **{**options, "name_map": strings(options["name_map"])})


def main() -> None:
    module = AnsibleModule(argument_spec={**argument_spec(), **repository_argument_spec()}, supports_check_mode=True)
    try:
        result = restore.run(request_of(module), connect(module), progress(module), module.check_mode)
    except StackError as error:
        module.fail_json(msg=str(error))
    finish(module, result)


if __name__ == "__main__":
    main()
