#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume_backup
short_description: Back up the volumes of a Compose project as one instant of all its stores
version_added: 0.2.0
description:
  - Freezes the containers that write for a fraction of a second, copies what they have written, lets them go on, and
    puts the copy into a repository in restic's format, together with a manifest.
  - A snapshot is one instant of all volumes. SQLite, Qdrant and Neo4j agree in it, and every write that was
    acknowledged before the freeze is in it.
  - How long writes are blocked depends on what is being written, not on what is stored. Checking, compressing,
    encrypting and storing come after it.
  - Whatever dies, frozen containers go on within seconds, because a process of its own watches over them.
  - What could not be backed up is an error. So is an empty volume, and one that is mounted beside the place where its
    store writes.
  - While it runs, one line for each host and phase tells how far it is. Short runs and check mode print none.
options:
  volumes:
    description:
      - The volumes to back up. Without it, all that belong to the project.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - Name of the volume, as Docker or as the compose file has it.
        type: str
        required: true
      quiesce:
        description:
          - As O(quiesce), for this volume.
        type: str
        choices: [pause, stop, none]
  quiesce:
    description:
      - What happens to the containers that can write to a volume. V(pause) freezes them for the instant of the copy;
        they do not notice, and connections stay open. V(stop) stops and starts them. V(none) copies while they
        write, which only suits logs; a store that goes on writing is warned of, and the snapshot does not count as
        verified.
      - Volumes that are only mounted at C(/logs) and hold no store are copied as with V(none) if neither this option
        nor O(volumes[].quiesce) says otherwise.
    type: str
    choices: [pause, stop, none]
    default: pause
  capture:
    description:
      - The way of the copy. All give the same bytes.
      - V(reflink) shares blocks, on XFS or btrfs. V(single) copies all within the freeze. V(two_pass) copies
        beforehand, and within the freeze only what may have changed since.
      - V(auto) takes the first that fits.
    type: str
    choices: [auto, reflink, single, two_pass]
    default: auto
  compare:
    description:
      - Compare the contents of all files within the freeze, instead of relying on times where the file system is
        known to keep them. The freeze then lasts as long as reading everything.
    type: bool
    default: false
  staging:
    description:
      - Whether the copy is kept on the host. With V(keep) the next backup copies only what changed; it takes as much
        room as the volumes, except where blocks are shared. V(discard) removes it.
    type: str
    choices: [keep, discard]
    default: keep
  staging_dir:
    description:
      - Directory for the copy. Without it, one below O(state_dir), or beside the volumes where they can share blocks.
    type: path
  verify:
    description:
      - How the copy is checked before it is stored. V(quick) checks SQLite's integrity and foreign keys and the
        structure of the others. V(full) starts the stores on a copy, in containers without network that are removed
        again, and counts what they hold.
    type: str
    choices: [none, quick, full]
    default: quick
  tags:
    description:
      - Tags for the snapshot, by which it can be found again.
    type: list
    elements: str
    default: []
  export:
    description:
      - Also put files into the snapshot that other tools can read. Dumps by C(neo4j-admin) of the databases C(neo4j)
        and C(system), SQLite's databases as one clean file each, and Qdrant's own snapshots where the server makes
        them.
      - They are made from the copy, so nothing has to stop.
    type: bool
    default: false
  freeze_timeout:
    description:
      - After how many seconds frozen containers go on in any case. The backup has then failed.
    type: float
    default: 60
  freeze_budget:
    description:
      - How many seconds the copy within the freeze may take for V(auto) to choose O(capture=single).
    type: float
    default: 0.3
  stop_timeout:
    description:
      - How many seconds a container gets to stop with O(quiesce=stop). Without it, what the container itself says.
    type: int
  init:
    description:
      - Make the repository if there is none. V(false) makes that an error, so that a disk that is not mounted is
        noticed.
    type: bool
    default: true
extends_documentation_fragment:
  - openmemory.stack.copies
  - openmemory.stack.repository
  - openmemory.stack.docker
attributes:
  check_mode:
    support: full
    description: Makes every refusal that can be made without a copy, and tells what would be done.
  diff_mode:
    support: full
    description: Shows what was done.
  idempotent:
    support: none
    description: Every run makes a snapshot. What has not changed takes no room in it.
seealso:
  - module: openmemory.stack.volume_backup_info
  - module: openmemory.stack.volume_restore
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Back up the stack
  openmemory.stack.volume_backup:
    compose_project: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    keep:
      last: 3
      daily: 7
      weekly: 5
      monthly: 12

- name: Back up before an update, with the stores started on the copy, and with files for other tools
  openmemory.stack.volume_backup:
    compose_project: openmemory
    repository: s3:https://s3.example.com/backups/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    environment:
      AWS_ACCESS_KEY_ID: "{{ vault_backup_key_id }}"
      AWS_SECRET_ACCESS_KEY: "{{ vault_backup_key }}"
    verify: full
    export: true
    tags: [before-update]
  register: saved
"""

RETURN = r"""
snapshot_id:
  description: Id of the snapshot in the repository; null in check mode.
  returned: success
  type: str
  sample: 5f0c2a9be1d24c53a1f0b0a3ce3c3a51d6e4e3c1f2ab7d7a9d80f7e6f5c4b3a2
freeze_s:
  description: Seconds from the first container frozen to the last one going on, in which writes were blocked.
  returned: when a snapshot was made
  type: float
  sample: 0.214
way:
  description: The way of the copy that was taken, V(reflink), V(single) or V(two_pass).
  returned: when a snapshot was made
  type: str
  sample: two_pass
files_read:
  description:
    - How many files were taken because they might have changed since the last backup. One that might have changed
      again before the freeze counts once more.
  returned: when a snapshot was made
  type: int
  sample: 38
files_changed:
  description:
    - How many files of the snapshot are new, or other than in the snapshot before. With the manifest and the listing,
      which are files of it, too.
  returned: when a snapshot was made
  type: int
  sample: 12
files_stored:
  description: How many files are in the snapshot.
  returned: when a snapshot was made
  type: int
  sample: 214
bytes_read:
  description: Bytes read from the volumes, before and within the freeze. None are where blocks are shared (V(reflink)).
  returned: when a snapshot was made
  type: int
  sample: 143654912
bytes_changed:
  description:
    - Bytes of these files, without holes. Where blocks are shared, those of the blocks that the copy did not share
      before.
  returned: when a snapshot was made
  type: int
  sample: 5242880
exports:
  description:
    - The files below C(export) in the snapshot, which any tool can read, each with C(store), C(key) (the volume),
      C(name) (database or collection), C(path) (relative to C(export)) and C(bytes).
  returned: when a snapshot was made
  type: list
  elements: dict
  sample: [{store: neo4j, key: neo4j_data, name: system, path: neo4j/neo4j_data/system.dump, bytes: 183296}]
bytes_stored:
  description: Bytes that the repository grew by, compressed and encrypted.
  returned: when a snapshot was made
  type: int
  sample: 1310720
volumes:
  description:
    - The volumes by their name in the project. In check mode each has only RV(volumes.NAME.name),
      RV(volumes.NAME.store) and RV(volumes.NAME.allocated_bytes).
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
        backing:
          description: V(managed) or V(path).
          type: str
          sample: managed
        driver:
          description: Docker's volume driver.
          type: str
          sample: local
        driver_opts:
          description: Options of the driver.
          type: dict
        labels:
          description: Labels.
          type: dict
          sample: {com.docker.compose.project: openmemory, com.docker.compose.volume: qdrant_storage}
        path:
          description: Where its data lies on the host.
          type: str
          sample: /var/lib/docker/volumes/openmemory_qdrant_storage/_data
        uid:
          description: Owner of its root directory.
          type: int
        gid:
          description: Group of its root directory.
          type: int
        mode:
          description: Mode of its root directory.
          type: str
          sample: '0755'
        store:
          description: The store in it, V(sqlite), V(qdrant), V(neo4j) or V(files).
          type: str
          sample: qdrant
        store_version:
          description: Version that the files name; null where they do not.
          type: str
          sample: 1.18.0
        size_bytes:
          description: Bytes of all files as they are long.
          type: int
          sample: 818937856
        allocated_bytes:
          description: Bytes that the files take on disk.
          type: int
        files:
          description: How many files there are.
          type: int
          sample: 412
        way:
          description: The way of its copy; V(live) if its containers were not frozen.
          type: str
          sample: two_pass
        census:
          description: What the store holds, such as points for each collection; null where it was not counted.
          type: dict
          sample: {collections: {memories: 1204}}
        check:
          description: Whether the copy is sound, with C(level), C(ok) and C(findings).
          type: dict
          sample: {level: quick, ok: true, findings: []}
timings:
  description: Seconds of each phase.
  returned: when a snapshot was made
  type: dict
  sample: {plan: 0.051, copy: 0.302, freeze: 0.214, check: 0.633, commit: 1.405}
copies:
  description:
    - What each of O(copies) was given. C(ok) is whether it holds all that it should, and C(error) why not, in one
      sentence. C(copied) are ids in the near repository, C(removed) those that its C(keep) removed there. C(bytes) are
      those that restic wrote meanwhile, nearly all of them there. C(made) is whether the repository had to be made.
  returned: when a snapshot was made
  type: list
  elements: dict
  sample: [{name: offsite, repository: "s3:https://s3.example.com/b", ok: true, error: "", copied: [5f0c2a9be1d24c53],
            bytes: 1310720, seconds: 4.2, made: false, removed: []}]
removed:
  description: Ids of the snapshots that O(keep) removed; in check mode those that it would remove.
  returned: success
  type: list
  elements: str
actions:
  description: What was done, in order; in check mode, what would be.
  returned: success
  type: list
  elements: str
  sample: [snapshot 5f0c2a9b of 4 volumes made]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._copies_options import (
    copies_argument_spec,
    hide_passwords,
    keep_of,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import PartlyDoneError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import (
    finish,
    progress,
    repository_argument_spec,
    repository_settings,
)


def argument_spec() -> dict[str, Any]:
    quiesce = {"type": "str", "choices": ["pause", "stop", "none"]}
    return {
        "volumes": {
            "type": "list",
            "elements": "dict",
            "options": {"name": {"type": "str", "required": True}, "quiesce": quiesce},
        },
        "quiesce": {**quiesce, "default": "pause"},
        "capture": {"type": "str", "choices": ["auto", "reflink", "single", "two_pass"], "default": "auto"},
        "compare": {"type": "bool", "default": False},
        "staging": {"type": "str", "choices": ["keep", "discard"], "default": "keep"},
        "staging_dir": {"type": "path"},
        "verify": {"type": "str", "choices": ["none", "quick", "full"], "default": "quick"},
        "tags": {"type": "list", "elements": "str", "default": []},
        **copies_argument_spec(),
        "export": {"type": "bool", "default": False},
        "freeze_timeout": {"type": "float", "default": 60},
        "freeze_budget": {"type": "float", "default": 0.3},
        "stop_timeout": {"type": "int"},
        "init": {"type": "bool", "default": True},
    }


def request_of(module: AnsibleModule) -> BackupRequest:
    hide_passwords(module)
    options = {name: module.params[name] for name in argument_spec()}
    keep = keep_of(options.pop("keep"))
    return BackupRequest(**repository_settings(module), keep=keep, **options)


def main() -> None:
    module = AnsibleModule(argument_spec={**argument_spec(), **repository_argument_spec()}, supports_check_mode=True)
    try:
        result = backup.run(request_of(module), connect(module, late=True), progress(module), module.check_mode)
    except PartlyDoneError as error:
        module.fail_json(msg=str(error), **error.result)
    except StackError as error:
        module.fail_json(msg=str(error))
    finish(module, result)


if __name__ == "__main__":
    main()
