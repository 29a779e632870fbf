#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume
short_description: Create and check Docker volumes, and never lose one
version_added: 0.1.0
description:
  - Takes the whole list of volumes in one run. All of it is checked before anything changes.
  - A volume that differs from what is asked for is reported, or converted with its data. It is never recreated
    without, because that would delete it.
  - The host directories of path-backed volumes are created with the owner and mode that the service needs.
  - Two requests to the engine suffice where nothing has to change, whatever the number of volumes.
options:
  volumes:
    description:
      - The volumes.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name in Docker. 2 to 255 letters, digits, V(_), V(.) and V(-), with a letter or digit first.
        type: str
        required: true
      backing:
        description:
          - V(managed) lets Docker choose the place; V(path) binds the volume to a host directory.
          - Without it, V(path) if O(volumes[].path) is given or O(volumes[].driver_opts) bind the volume,
            otherwise V(managed).
        type: str
        choices: [managed, path]
      path:
        description:
          - Host directory of a volume with O(volumes[].backing=path), absolute. It is created with its
            parents, which get mode C(0755).
          - Must not be, hold, or lie in the directory of another volume or of Docker itself. Symbolic links
            are followed to find that out.
          - If the volume exists and its directory is gone, the run fails, because a disk may not be mounted.
        type: str
      owner:
        description:
          - Owner of the directory, a user of the host or a number.
          - A new directory without it gets the owner that the store needs (7474 for Neo4j), otherwise the
            user that runs the module. One that exists keeps its own.
        type: str
      group:
        description:
          - Group of the directory, a group of the host or a number. Without it as with O(volumes[].owner).
        type: str
      mode:
        description:
          - Mode of the directory as a quoted octal number, such as V('0750'), which is also what a new
            directory gets without it. A directory that exists keeps its own.
          - An unquoted number is refused, because YAML would read it as another one.
        type: raw
      store:
        description:
          - What will be kept in the volume. Chooses the owner of a new directory, and file systems that
            Qdrant does not support (NFS, CIFS, FUSE) are refused for V(qdrant).
        type: str
        choices: [sqlite, qdrant, neo4j, files]
      driver:
        description:
          - Docker's volume driver.
        type: str
        default: local
      driver_opts:
        description:
          - Options of the driver. Values are strings. Not needed with O(volumes[].backing=path).
        type: dict
        default: {}
      labels:
        description:
          - Labels. Values are strings. Docker sets them at creation only. Labels that a volume has besides
            are left alone.
        type: dict
        default: {}
      min_free:
        description:
          - How much its file system must have free for the volume to be created, such as V(512M) or V(1G).
            The new volumes on one file system need the sum of theirs.
        type: str
  compose_project:
    description:
      - Compose project that the volumes belong to. They get the labels C(com.docker.compose.project) and
        C(com.docker.compose.volume), which holds the name without the project, so that Compose accepts them
        as its own.
      - The label C(com.docker.compose.config-hash) is left out on purpose. With it Compose offers to recreate
        volumes.
    type: str
  state:
    description:
      - V(present) creates what is missing.
      - V(absent) removes the volumes. One that a container uses, that holds files, or that cannot be looked
        into is refused. Host directories are left.
    type: str
    choices: [present, absent]
    default: present
  on_drift:
    description:
      - What to do if a volume exists and differs from what is asked for. V(fail) before anything changes, or
        V(ignore) it and return it in RV(volumes[].drift).
      - V(convert) moves the data. It is copied while the containers run; then they are stopped, what has changed
        since is copied, the volume gets its new definition, the containers are made again exactly as they were, and
        those that ran are started. If they do not become healthy, or a store does not find what was there before, all
        is taken back. Needs O(compose_project) and a place on this host.
    type: str
    choices: [fail, ignore, convert]
    default: fail
  min_free:
    description:
      - O(volumes[].min_free) for the volumes without one of their own.
    type: str
  size:
    description:
      - Measure how large the volumes are.
    type: bool
    default: false
  size_timeout:
    description:
      - How many seconds measuring may take for all volumes together. What was counted until then is returned
        with C(size_complete=false).
    type: float
    default: 30
extends_documentation_fragment:
  - openmemory.stack.docker
  - openmemory.stack.convert
attributes:
  check_mode:
    support: full
    description: Tells exactly what a run would do and return, also before Docker has the volumes.
  diff_mode:
    support: full
    description: Shows volumes and host directories before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
seealso:
  - module: openmemory.stack.volume_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Let Docker keep the volumes of the stack
  openmemory.stack.volume:
    compose_project: openmemory
    volumes:
      - name: openmemory_openmemory_data
        store: sqlite
      - name: openmemory_qdrant_storage
        store: qdrant
      - name: openmemory_neo4j_data
        store: neo4j
      - name: openmemory_neo4j_logs
        store: files

- name: Keep Neo4j's data on a disk of its own, with at least 10 GiB free
  openmemory.stack.volume:
    compose_project: openmemory
    volumes:
      - name: openmemory_neo4j_data
        store: neo4j
        path: /srv/openmemory/neo4j
        mode: '0750'
        min_free: 10G

- name: Move Qdrant's data to another disk
  openmemory.stack.volume:
    compose_project: openmemory
    on_drift: convert
    volumes:
      - name: openmemory_qdrant_storage
        path: /mnt/fast/qdrant

- name: Show how the volumes differ, without failing
  openmemory.stack.volume:
    on_drift: ignore
    volumes:
      - name: openmemory_qdrant_storage
        path: /srv/openmemory/qdrant
  check_mode: true
  register: found

- name: Remove a volume that is empty and not in use
  openmemory.stack.volume:
    state: absent
    volumes:
      - name: openmemory_scratch
"""

RETURN = r"""
volumes:
  description:
    - The volumes in the order of O(volumes), as they are after the run; in check mode, as they would be.
    - With O(state=absent) each has only RV(volumes[].name), RV(volumes[].removed) and RV(volumes[].directory_left).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name in Docker.
      type: str
      sample: openmemory_qdrant_storage
    backing:
      description: V(path) where Docker binds it to a host directory, otherwise V(managed).
      type: str
      sample: path
    driver:
      description: Docker's volume driver.
      type: str
      sample: local
    driver_opts:
      description: Options of the driver.
      type: dict
      sample: {type: none, o: bind, device: /srv/openmemory/qdrant}
    labels:
      description: All labels that it has.
      type: dict
      sample: {com.docker.compose.project: openmemory, com.docker.compose.volume: qdrant_storage}
    mountpoint:
      description: Where Docker mounts it. In check mode empty for a new volume of another driver than V(local).
      type: str
      sample: /var/lib/docker/volumes/openmemory_qdrant_storage/_data
    device:
      description: What the driver options name as device, such as the host directory; null if nothing.
      type: str
      sample: /srv/openmemory/qdrant
    directory:
      description: Owner, group and mode of the host directory; null where the backing is managed or drift is ignored.
      type: dict
      sample: {owner: 0, group: 0, mode: '0750'}
    filesystem:
      description: >-
        File system that the data lies on, with bytes free for ordinary users (null on network file systems); null
        where it cannot be seen.
      type: dict
      sample: {type: ext4, mount_point: /, free_bytes: 85899345920, total_bytes: 270582939648}
    containers:
      description: Containers that mount it, in any state.
      type: list
      elements: dict
      sample:
        - name: openmemory-qdrant-1
          id: 4c01db0b339c0a8eab5a9f2a9b7c0e1f5d8c6a3b2e1d4f7a9b8c7d6e5f4a3b2c
          image: qdrant/qdrant:v1.18.0
          state: running
          destination: /qdrant/storage
          read_only: false
    drift:
      description: How it differs from what is asked for. Null stands for what is not set.
      type: list
      elements: dict
      sample:
        - name: driver_opts.device
          current: /srv/old
          desired: /srv/openmemory/qdrant
    store:
      description:
        - The store that was found inside, with C(kind), C(version), C(health) (V(ok), V(damaged) or
          V(unknown)), C(findings) and C(details), as M(openmemory.stack.volume_info) explains them. Null
          where it is empty or cannot be seen.
      type: dict
      sample:
        kind: qdrant
        version: 1.18.0
        health: ok
        findings: []
        details: {collections: [memories], segments: 8, storage_versions: [1.18.0]}
    empty:
      description: Whether it holds no file at any depth; null where it cannot be seen.
      type: bool
      sample: false
    problem:
      description: One sentence on why it cannot be looked into; null where it can.
      type: str
      sample: null
    size_bytes:
      description: Bytes of all files as they are long, without directories.
      returned: O(size=true)
      type: int
      sample: 818937856
    allocated_bytes:
      description: Bytes that the files take on disk, which is less where they have holes.
      returned: O(size=true)
      type: int
      sample: 143654912
    files:
      description: How many files there are. Hard links to one file count once.
      returned: O(size=true)
      type: int
      sample: 412
    size_complete:
      description: Whether everything was counted.
      returned: O(size=true)
      type: bool
      sample: true
    removed:
      description: Whether it was there and is removed.
      returned: O(state=absent)
      type: bool
      sample: true
    directory_left:
      description: The host directory of a removed volume, which is left; null if it had none.
      returned: O(state=absent)
      type: str
      sample: /srv/openmemory/scratch
downtime_s:
  description: Seconds from the first container stopped to the last one healthy; null in check mode.
  returned: when a volume was converted
  type: float
  sample: 9.4
kept:
  description: The old data, each with C(volume), C(path), C(until), C(operation) and an empty C(snapshot).
  returned: when a volume was converted
  type: list
  elements: dict
timings:
  description: Seconds of each phase.
  returned: when a volume was converted
  type: dict
  sample: {copy: 12.1, stop: 1.9, settle: 0.2, swap: 0.1, start: 7.2}
actions:
  description: What was done, in order; in check mode, what would be.
  returned: success
  type: list
  elements: str
  sample:
    - 'create directory /srv/openmemory/neo4j (7474:7474, mode 0750)'
    - create volume openmemory_neo4j_data
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core import absent, present
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import parse_volumes
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect
from ansible_collections.openmemory.stack.plugins.module_utils._volume_options import (
    convert,
    joined,
    refuse_unfinished,
    volume_argument_spec,
)


def run(module: AnsibleModule) -> dict[str, object]:
    asked = module.params
    specs = parse_volumes(asked["volumes"], asked["compose_project"], asked["min_free"])
    engine = connect(module)
    if asked["state"] == "absent":
        removal = absent.plan_absent(engine, [spec.name for spec in specs])
        if not module.check_mode:
            absent.apply_absent(removal)
        return {
            "changed": removal.changed,
            "actions": removal.actions,
            "diff": removal.diff,
            "volumes": absent.describe_absent(removal),
        }
    if asked["compose_project"] and engine.is_local:
        refuse_unfinished(asked["compose_project"], asked["state_dir"], asked["on_drift"])
    converted = convert(module, engine, specs) if asked["on_drift"] == "convert" else {"changed": False}
    on_drift = asked["on_drift"] if module.check_mode else asked["on_drift"].replace("convert", "fail")
    plan = present.plan_present(engine, specs, on_drift)
    if not module.check_mode:
        present.apply_present(plan)
    deadline = time.monotonic() + asked["size_timeout"] if asked["size"] else None
    result = {
        "changed": plan.changed or converted["changed"],
        "actions": plan.actions,
        "diff": plan.diff,
        "volumes": present.describe_present(plan, deadline),
    }
    return joined(converted, result) if converted["changed"] else result


def main() -> None:
    module = AnsibleModule(argument_spec=volume_argument_spec(), supports_check_mode=True)
    try:
        result = run(module)
    except StackError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
