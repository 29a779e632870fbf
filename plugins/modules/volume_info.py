#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume_info
short_description: Tell what Docker volumes hold and who uses them
version_added: 0.1.0
description:
  - Tells of each volume where it lies, how large it is, what its file system has left, which containers use
    it, which store is inside and whether its files look well.
  - Finds the volumes that nobody uses, that are empty, or that are mounted where their store does not write.
  - No store is opened or locked; only names and headers are read.
  - Network file systems are reported and never looked into, so that a dead server cannot hang the run.
options:
  names:
    description:
      - Names of volumes. Those that Docker does not have are returned in RV(missing).
    type: list
    elements: str
  compose_project:
    description:
      - Only volumes of this Compose project, which have its label or are mounted by one of its containers.
    type: str
  labels:
    description:
      - Only volumes that have all of these labels, each as C(KEY), which any value fits, or C(KEY=VALUE).
      - Where several of O(names), O(compose_project) and O(labels) are given, all must fit. Without any, all
        volumes are told.
    type: list
    elements: str
  size:
    description:
      - Measure how large the volumes are. Every directory is read, which takes about a second for 100,000
        files.
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
  - openmemory.stack.attributes.info_module
seealso:
  - module: openmemory.stack.volume
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Tell of all volumes of the stack, with sizes
  openmemory.stack.volume_info:
    compose_project: openmemory
    size: true
  register: found

- name: Stop if a store writes beside its volume
  ansible.builtin.assert:
    that: found.volumes | map(attribute='misplaced') | flatten | length == 0

- name: Find what nobody uses
  openmemory.stack.volume_info:
  register: everything

- name: Show it
  ansible.builtin.debug:
    msg: "{{ everything.volumes | selectattr('orphaned') | map(attribute='name') }}"
"""

RETURN = r"""
volumes:
  description: The volumes that fit, by name.
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
      description: Labels.
      type: dict
      sample: {com.docker.compose.project: openmemory, com.docker.compose.volume: qdrant_storage}
    mountpoint:
      description: Where Docker mounts it.
      type: str
      sample: /var/lib/docker/volumes/openmemory_qdrant_storage/_data
    device:
      description: What the driver options name as device, such as the host directory; null if nothing.
      type: str
      sample: /srv/openmemory/qdrant
    filesystem:
      description: File system that the data lies on; null where it cannot be seen.
      type: dict
      contains:
        type:
          description: Type as Linux names it.
          type: str
          sample: ext4
        mount_point:
          description: Where it is mounted.
          type: str
          sample: /
        free_bytes:
          description: Bytes free for ordinary users; null on network file systems.
          type: int
          sample: 85899345920
        total_bytes:
          description: Bytes in all; null on network file systems.
          type: int
          sample: 270582939648
    containers:
      description: Containers that mount it, in any state.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the container.
          type: str
          sample: openmemory-qdrant-1
        id:
          description: Its full id.
          type: str
          sample: 4c01db0b339c0a8eab5a9f2a9b7c0e1f5d8c6a3b2e1d4f7a9b8c7d6e5f4a3b2c
        image:
          description: Its image.
          type: str
          sample: qdrant/qdrant:v1.18.0
        state:
          description: Its state, such as V(running), V(paused), V(exited) or V(created).
          type: str
          sample: running
        destination:
          description: Where it mounts the volume.
          type: str
          sample: /qdrant/storage
        read_only:
          description: Whether it cannot write.
          type: bool
          sample: false
    store:
      description: The store that was found inside; null where it is empty or cannot be seen.
      type: dict
      contains:
        kind:
          description: V(sqlite), V(qdrant), V(neo4j) or V(files).
          type: str
          sample: qdrant
        version:
          description:
            - Version that the files name. SQLite is that of the last writer; null where the files do not say
              it, as with Neo4j.
          type: str
          sample: 1.18.0
        health:
          description:
            - V(ok), V(damaged), or V(unknown) where a quick look at the files cannot tell.
          type: str
          sample: ok
        findings:
          description: What is damaged, as sentences.
          type: list
          elements: str
          sample: []
        details:
          description: What else the files say, depending on the kind.
          type: dict
          sample: {collections: [memories], segments: 8, storage_versions: [1.18.0]}
    empty:
      description: Whether it holds no file at any depth; null where it cannot be seen.
      type: bool
      sample: false
    orphaned:
      description: Whether no container uses it.
      type: bool
      sample: false
    misplaced:
      description: Containers of a known store that mount the volume beside the place where the store writes.
      type: list
      elements: dict
      contains:
        container:
          description: Name of the container.
          type: str
          sample: openmemory-qdrant-1
        store:
          description: Kind of the store.
          type: str
          sample: qdrant
        destination:
          description: Where it mounts the volume.
          type: str
          sample: /mem0/storage
        expected:
          description: Where the store writes, and no lasting mount is.
          type: str
          sample: /qdrant/storage
    problem:
      description: One sentence on why it cannot be looked into; null where it can.
      type: str
      sample: Its directory /srv/gone is gone from disk.
    size_bytes:
      description: Bytes of all files as they are long, without directories; null where it cannot be seen.
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
missing:
  description: Those of O(names) that Docker does not have.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.volume_report import report_volumes
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect, docker_argument_spec


def main() -> None:
    spec = {
        "names": {"type": "list", "elements": "str"},
        "compose_project": {"type": "str"},
        "labels": {"type": "list", "elements": "str"},
        "size": {"type": "bool", "default": False},
        "size_timeout": {"type": "float", "default": 30},
    }
    module = AnsibleModule(argument_spec={**spec, **docker_argument_spec()}, supports_check_mode=True)
    asked = module.params
    try:
        report = report_volumes(
            connect(module),
            names=asked["names"],
            compose_project=asked["compose_project"],
            labels=asked["labels"],
            size_timeout=asked["size_timeout"] if asked["size"] else None,
        )
    except StackError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **report)


if __name__ == "__main__":
    main()
