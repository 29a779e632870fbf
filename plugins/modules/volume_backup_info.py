#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: volume_backup_info
short_description: Tell which snapshots there are, what they hold, and how the repository is
version_added: 0.2.0
description:
  - Tells of each snapshot its manifest, which says what was in every store, which images ran, and how long the freeze
    was.
  - Tells how large the repository is, how old the newest snapshot is and, on request, whether all is readable.
options:
  all_projects:
    description:
      - Tell the snapshots of all projects in the repository, not only those of O(compose_project).
    type: bool
    default: false
  tags:
    description:
      - Only snapshots that have all of these tags.
    type: list
    elements: str
    default: []
  host:
    description:
      - Only snapshots that were made on the host with this name.
    type: str
  since:
    description:
      - Only snapshots that are not older than this time, such as V(2026-11-25) or V(2026-11-25 02:00), in the time zone
        of the host unless it names one.
    type: str
  until:
    description:
      - Only snapshots that are not newer than this time.
    type: str
  newest_only:
    description:
      - Only the newest of those that fit, chosen as a restore chooses V(latest), of this host and of all volumes where
        there are such.
    type: bool
    default: false
  manifests:
    description:
      - Read the manifests. One that was not made on this host takes a second the first time.
    type: bool
    default: true
  health:
    description:
      - Check the structure of the repository. That can take minutes where it is remote.
    type: bool
    default: false
  read_data:
    description:
      - Also read the data itself, V(100%) for all or a part such as V(10%). Implies O(health=true).
    type: str
extends_documentation_fragment:
  - openmemory.stack.repository
  - openmemory.stack.docker
  - openmemory.stack.attributes.info_module
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode. Manifests are kept on the host once they were read, not in check mode.
seealso:
  - module: openmemory.stack.volume_backup
  - module: openmemory.stack.volume_restore
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: How old is the newest snapshot?
  openmemory.stack.volume_backup_info:
    compose_project: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    newest_only: true
  register: found

- name: Stop if it is older than a day and two hours
  ansible.builtin.assert:
    that: found.newest_age_s is not none and found.newest_age_s < 26 * 3600

- name: Check a tenth of the data, once a week
  openmemory.stack.volume_backup_info:
    compose_project: openmemory
    repository: /var/backups/openmemory/openmemory
    password_file: /etc/openmemory-stack/openmemory.password
    manifests: false
    read_data: 10%
  register: checked
  failed_when: checked.repository.health != 'good'
"""

RETURN = r"""
snapshots:
  description: The snapshots that fit, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Its id.
      type: str
      sample: 5f0c2a9be1d24c53a1f0b0a3ce3c3a51d6e4e3c1f2ab7d7a9d80f7e6f5c4b3a2
    short_id:
      description: The beginning of its id, which is enough to name it.
      type: str
      sample: 5f0c2a9b
    time:
      description: When it was made, in UTC.
      type: str
      sample: '2026-11-25T02:15:04Z'
    project:
      description: The Compose project that it is of.
      type: str
      sample: openmemory
    host:
      description: Name of the host that made it.
      type: str
      sample: memory-1
    way:
      description: The way of the copy, V(reflink), V(single) or V(two_pass).
      type: str
      sample: two_pass
    verified:
      description: How the copy was checked, V(none), V(quick) or V(full).
      type: str
      sample: quick
    safety:
      description: Whether a restore made it of what it was about to replace.
      type: bool
      sample: false
    partial:
      description: The volumes that it holds, joined by V(+), where the project had more; empty where it holds all.
      type: str
      sample: ""
    tags:
      description: The tags that were given to it.
      type: list
      elements: str
      sample: [before-update]
    manifest:
      description:
        - What it holds, with C(volumes), C(images), C(compose), C(quiesced), C(freeze_s), C(timings) and C(exports).
          The volumes are as M(openmemory.stack.volume_backup) returns them. Null where it cannot be read.
      returned: O(manifests=true)
      type: dict
      sample: {created: '2026-11-25T02:15:03+00:00', freeze_s: 0.214, way: two_pass}
    manifest_problem:
      description: Why the manifest cannot be read.
      returned: when it cannot be read
      type: str
      sample: The manifest of snapshot 5f0c2a9b is cut off or damaged.
repository:
  description: The repository as a whole.
  returned: success
  type: dict
  contains:
    location:
      description: Where it is, without any password.
      type: str
      sample: /var/backups/openmemory/openmemory
    size_bytes:
      description: Bytes that it takes.
      type: int
      sample: 73400320
    snapshots:
      description: How many snapshots it holds in all.
      type: int
      sample: 19
    health:
      description:
        - V(unchecked), V(good), or a list of what is wrong.
      type: raw
      sample: good
newest_age_s:
  description:
    - Seconds since the newest snapshot that fits and that no restore made; null if there is none.
    - As with V(latest), where some that fit were made on this host, those of other hosts do not count, and where some
      are of all volumes, those of some volumes do not. With O(host), only those of that host fit.
  returned: success
  type: float
  sample: 3721.5
"""

import os
from datetime import datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.snapshots import snapshots_info
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import (
    open_repository,
    repository_argument_spec,
)


def moment(module: AnsibleModule, name: str) -> datetime | None:
    text = module.params[name]
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise StackError(f"{name} is {text!r}; give a time such as 2026-11-25 or 2026-11-25 02:00.") from error
    return found if found.tzinfo else found.astimezone()


def run(module: AnsibleModule) -> dict[str, Any]:
    asked = module.params
    places = Places.of(asked["compose_project"], asked["state_dir"], create=not module.check_mode)
    return snapshots_info(
        open_repository(module),
        places if os.path.isdir(places.state) else None,
        project=None if asked["all_projects"] else asked["compose_project"],
        tags=asked["tags"],
        newest_only=asked["newest_only"],
        manifests=asked["manifests"],
        health=asked["read_data"] or asked["health"],
        since=moment(module, "since"),
        until=moment(module, "until"),
        host=asked["host"],
    )


def main() -> None:
    spec = {
        "all_projects": {"type": "bool", "default": False},
        "tags": {"type": "list", "elements": "str", "default": []},
        "host": {"type": "str"},
        "since": {"type": "str"},
        "until": {"type": "str"},
        "newest_only": {"type": "bool", "default": False},
        "manifests": {"type": "bool", "default": True},
        "health": {"type": "bool", "default": False},
        "read_data": {"type": "str"},
    }
    module = AnsibleModule(argument_spec={**spec, **repository_argument_spec()}, supports_check_mode=True)
    try:
        found = run(module)
    except StackError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
