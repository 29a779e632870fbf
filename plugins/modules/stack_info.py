#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_info
short_description: Tell in one look how the stacks of a host and their backups are
version_added: 0.2.0
description:
  - Tells of each stack its containers, its volumes with their sizes, its snapshots with how the data grew and how long
    the freezes were, the last backup, drill and update, what a crash has left, and its timers.
  - Repository, password and credentials are those of the settings that the role C(backup) has left on the host, so
    none of them need be given.
  - A part that cannot be read is a sentence in C(problems) of the stack, and the rest is told nevertheless.
  - This is what M(openmemory.stack.fleet_report) makes its page from.
options:
  compose_projects:
    description:
      - Compose projects to tell of, whether they have settings or not. All that have settings are told of in any case.
    type: list
    elements: str
    default: []
  config_dir:
    description:
      - Directory on the host with the settings that the role C(backup) wrote.
    type: path
    default: /etc/openmemory-stack
  state_dir:
    description:
      - Directory on the host for what is kept between runs, of stacks without settings.
    type: path
    default: /var/lib/openmemory-stack
  snapshots:
    description:
      - How many snapshots of a stack the history is made from. With more of them it is made from some, evenly spread,
        the oldest and the newest among them.
    type: int
    default: 30
  manifest_timeout:
    description:
      - How many seconds may be spent on reading the manifests of a stack's snapshots. Those that were made on this host
        are kept there and take no time.
    type: float
    default: 20
  size_timeout:
    description:
      - How many seconds measuring the volumes of a stack may take. 0 leaves sizes out.
    type: float
    default: 20
extends_documentation_fragment:
  - openmemory.stack.docker
  - openmemory.stack.attributes.info_module
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode. Manifests are kept on the host once they were read, not in check mode.
requirements:
  - restic 0.14 or newer, for stacks with a repository
seealso:
  - module: openmemory.stack.fleet_report
  - module: openmemory.stack.volume_info
  - module: openmemory.stack.volume_backup_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Look at all stacks of the host
  openmemory.stack.stack_info:
  register: found

- name: Name those that were never backed up
  ansible.builtin.debug:
    msg: "{{ found.stacks | rejectattr('last.backup', 'defined') | map(attribute='project') }}"
"""

RETURN = r"""
host:
  description: The name that the host gives itself.
  returned: success
  type: str
  sample: memory-1
now:
  description: The host's clock, in UTC.
  returned: success
  type: str
  sample: '2026-11-25T08:15:04+00:00'
stacks:
  description: The stacks, by name.
  returned: success
  type: list
  elements: dict
  contains:
    project:
      description: Its Compose project.
      type: str
      sample: openmemory
    settings:
      description: Whether the role C(backup) has set up backups of it.
      type: bool
      sample: true
    containers:
      description: Its containers, each with C(name), C(service), C(image), C(state) and C(health).
      type: list
      elements: dict
      sample: [{name: openmemory-qdrant-1, service: qdrant, image: 'qdrant:v1.18.0', state: running, health: healthy}]
    volumes:
      description: Its volumes, with most of what RV(openmemory.stack.volume_info#module:volumes) has.
      type: list
      elements: dict
      sample: [{name: openmemory_qdrant_storage, backing: managed, allocated_bytes: 143654912, empty: false}]
    repository:
      description: C(location), C(stored_bytes) and C(snapshots) of its repository; null if it has none.
      type: dict
      sample: {location: /var/backups/openmemory/openmemory, stored_bytes: 73400320, snapshots: 19}
    copies:
      description:
        - Its far repositories as the last run left them, each with C(name), C(location), C(ok), C(error), C(tried) and
          C(success), when it last had all.
      type: list
      elements: dict
      sample: [{name: far, location: 's3:https://s3.example.com/b', ok: true, success: '2026-11-25T02:16:00+00:00'}]
    snapshots:
      description: Its snapshots; null where there is no repository, or where that cannot be read.
      type: dict
      contains:
        count:
          description: How many there are.
          type: int
          sample: 19
        newest:
          description:
            - The one that V(latest) would be, with C(id), C(time), C(age_s), C(way), C(verified), C(freeze_s),
              C(partial) and C(volumes). Null if there is none.
          type: dict
          sample: {id: 5f0c2a9b, time: '2026-11-25T02:15:04Z', age_s: 21600, way: two_pass, freeze_s: 0.2}
        oldest:
          description: Time of the oldest one.
          type: str
          sample: '2025-12-01T02:15:04Z'
        points:
          description: The history, oldest first, each with C(id), C(time), C(freeze_s), C(way), C(seconds), C(volumes).
          type: list
          elements: dict
          sample: [{id: 5f0c2a9b, freeze_s: 0.2, way: two_pass, volumes: {openmemory_qdrant_storage: 143654912}}]
        unread:
          description: How many manifests were left out, as O(manifest_timeout) was over.
          type: int
          sample: 0
        damaged:
          description: Sentences on snapshots that cannot be read.
          type: list
          elements: str
          sample: []
    last:
      description: The last of C(backup), C(drill), C(check), each of them with C(_failed), C(update) and C(recovered).
      type: dict
      sample: {backup: {created: '2026-11-25T02:15:03+00:00', freeze_s: 0.2, verify: quick}}
    unfinished:
      description: The operation that is under way or has died, null if there is none.
      type: dict
      sample: {operation: backup, phase: commit, pid: 4711, running: false, started: '2026-11-25T02:15:00+00:00'}
    kept:
      description: Data that an operation has replaced and that is kept for a while.
      type: list
      elements: dict
      sample: [{volume: openmemory_data, path: /srv/.openmemory_data.old, until: '2026-11-26T02:15:00+00:00'}]
    moved:
      description: Where the stack was moved to, null if it was not.
      type: dict
      sample: {target: new.example.com, at: '2026-11-25T02:15:07+00:00'}
    schedule:
      description:
        - Of C(backup), C(drill) and C(check) whether the timer is C(active), the C(next) run and the last C(result).
      type: dict
      sample: {backup: {active: true, next: '2026-11-26T02:41:12Z', result: success}}
    problems:
      description: What could not be read, each with C(part) and C(message).
      type: list
      elements: dict
      sample: [{part: docker, message: Docker does not answer at unix:///var/run/docker.sock.}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.command.settings import CONFIG_DIR
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR
from ansible_collections.openmemory.stack.plugins.module_utils._core.overview.overview import Wanted, overview
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect, docker_argument_spec


def main() -> None:
    spec = {
        "compose_projects": {"type": "list", "elements": "str", "default": []},
        "config_dir": {"type": "path", "default": CONFIG_DIR},
        "state_dir": {"type": "path", "default": STATE_DIR},
        "snapshots": {"type": "int", "default": 30},
        "manifest_timeout": {"type": "float", "default": 20},
        "size_timeout": {"type": "float", "default": 20},
        **docker_argument_spec(),
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    asked = module.params
    for name, least in (("snapshots", 1), ("manifest_timeout", 0), ("size_timeout", 0)):
        if asked[name] < least:
            module.fail_json(msg=f"{name} is {asked[name]}; give {least} or more.")
    wanted = Wanted(
        asked["config_dir"],
        asked["state_dir"],
        asked["snapshots"],
        asked["manifest_timeout"],
        asked["size_timeout"],
        keep_manifests=not module.check_mode,
    )
    try:
        found = overview(asked["compose_projects"], lambda: connect(module), wanted)
    except StackError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
