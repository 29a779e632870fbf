#!/usr/bin/python

# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_migrate
short_description: Move a stack with its data to another host, from the host that it leaves
version_added: 0.2.0
description:
  - With O(state=migrated) the data of all volumes is sent while the stack runs, again and again, until little is left.
    Then all containers are frozen, the rest is sent, and the target starts the stack and proves it by its health, by
    what its stores count, and by memories read through its API. Only then the target keeps it, and the stack here is
    retired. Its containers are killed and do not start by themselves, its data stays, and
    M(openmemory.stack.compose) and M(openmemory.stack.volume_backup) refuse it from then on.
  - On any failure before that the stack here goes on within 5 seconds, as if nothing had been, and what had come to the
    target is removed. The target lets its containers run only as long as the source answers it, so there are never two
    running copies that take writes, whatever dies.
  - The transfer is rsync over SSH, with a key that is made for this one migration, opens nothing but the target's part
    of it, and is removed afterwards.
  - With O(transport=repository) the stack is stopped, a last snapshot is made of it, and it is retired; the target then
    restores that snapshot with M(openmemory.stack.volume_restore). It is down for as long as that takes.
  - The playbook C(openmemory.stack.migrate) does all steps on both hosts.
  - While it runs, one line for each phase tells how far it is.
options:
  compose_project:
    description:
      - Compose project to move.
    type: str
    required: true
  state:
    description:
      - V(prepared) looks whether the stack can be moved, and makes the key.
      - V(migrated) moves it to the target, which has been prepared with M(openmemory.stack.stack_migrate_target).
      - V(returned) lets a stack that was retired here run here again, with its data of then. See first that it does not
        run on the other host.
      - V(absent) removes keys of migrations that did not come to be.
    type: str
    choices: [prepared, migrated, returned, absent]
    default: migrated
  transport:
    description:
      - V(ssh) sends the data to the target, V(repository) makes a last snapshot for it.
    type: str
    choices: [ssh, repository]
    default: ssh
  repository:
    description:
      - Where the snapshots are, as restic names it. Needed with O(transport=repository).
    type: str
    required: false
  password_file:
    description:
      - File with its password. Needed with O(transport=repository).
    type: path
    required: false
  environment:
    description:
      - Environment of restic, for the credentials of its back end. Never shown.
    type: dict
    default: {}
  staging_dir:
    description:
      - Directory for the copy that the snapshot is made from; name the one that backups have.
    type: path
  operation:
    description:
      - What O(state=prepared) has returned as RV(operation). Needed with O(transport=ssh).
    type: str
  target:
    description:
      - Name of the target, for people and for the mark of a stack that has been moved. Needed with O(state=migrated).
    type: str
  address:
    description:
      - Name or address by which this host reaches the target's SSH server. Needed with O(state=migrated).
    type: str
  port:
    description:
      - Port of the target's SSH server.
    type: int
    default: 22
  user:
    description:
      - User that the key logs in as.
    type: str
    default: root
  host_keys:
    description:
      - Public keys of the target's SSH server, which M(openmemory.stack.stack_migrate_target) returns. No other host is
        talked to.
    type: list
    elements: str
    default: []
  bwlimit:
    description:
      - Limit in KiB per second for what is sent while the stack runs; V(0) for none.
    type: int
    default: 0
  freeze_timeout:
    description:
      - How many seconds may pass from the freeze until all has been sent, before all is taken back.
    type: float
    default: 120
  wait_timeout:
    description:
      - How many seconds the stack may take to become healthy on the target, before all is taken back.
    type: float
    default: 300
  state_dir:
    description:
      - Directory on the host for what is kept between runs. The same as for backups.
    type: path
    default: /var/lib/openmemory-stack
extends_documentation_fragment:
  - openmemory.stack.docker
requirements:
  - rsync and the OpenSSH client
attributes:
  check_mode:
    support: full
    description: Makes the refusals of this host and lists what would be moved; the target is not asked.
  diff_mode:
    support: full
    description: Shows what is done.
  idempotent:
    support: full
    description: A stack that has been moved is not moved again.
seealso:
  - module: openmemory.stack.stack_migrate_target
  - module: openmemory.stack.stack_migrate_info
author:
  - The openmemory.stack developers (@openmemory)
"""

EXAMPLES = r"""
- name: Look whether it can be moved, and make the key
  openmemory.stack.stack_migrate:
    compose_project: openmemory
    state: prepared
  register: prepared

- name: Let it in on the target
  openmemory.stack.stack_migrate_target:
    compose_project: openmemory
    operation: "{{ prepared.operation }}"
    public_key: "{{ prepared.public_key }}"
  delegate_to: new.example.com
  register: expected

- name: Move the stack
  openmemory.stack.stack_migrate:
    compose_project: openmemory
    operation: "{{ prepared.operation }}"
    target: new.example.com
    address: new.example.com
    host_keys: "{{ expected.host_keys }}"
"""

RETURN = r"""
operation:
  description: Name of the migration, to be given to the other steps; null in check mode.
  returned: with O(state=prepared)
  type: str
  sample: 20261125t021500-5f0c2a
public_key:
  description: Public half of its key; null in check mode.
  returned: with O(state=prepared)
  type: str
  sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI…
retired:
  description: Where the stack has been moved to, null if it has not been.
  returned: with O(state=prepared) and O(state=migrated)
  type: dict
  contains:
    project:
      description: The Compose project, as it was called here.
      type: str
      sample: openmemory
    target:
      description: Name of the other host.
      type: str
      sample: new.example.com
    address:
      description: How it was reached.
      type: str
      sample: 192.0.2.7
    at:
      description: When the other host took over (ISO 8601, UTC).
      type: str
      sample: '2026-11-25T02:15:07+00:00'
    operation:
      description: Name of the migration.
      type: str
      sample: 20261125t021500-5f0c2a
    snapshot:
      description: Id of its last snapshot, where it was moved through a repository, else null.
      type: str
      sample: null
snapshot_id:
  description: Id of the last snapshot, null in check mode.
  returned: with O(transport=repository)
  type: str
  sample: 5f0c2a9be1d24c53a1f0b0a3ce3c3a51d6e4e3c1f2ab7d7a9d80f7e6f5c4b3a2
volumes:
  description: The volumes on the target, by the name that they have in the project.
  returned: with O(state=migrated)
  type: dict
  contains:
    name:
      description: Name in Docker.
      type: str
    path:
      description: Where the data lies.
      type: str
    backing:
      description: V(managed) or V(path).
      type: str
  sample: {qdrant_storage: {name: openmemory_qdrant_storage, path: /srv/openmemory/qdrant_storage, backing: path}}
cutover_s:
  description: Seconds from the freeze until the target had taken over, null where nothing was moved now.
  returned: with O(state=migrated)
  type: float
  sample: 12.4
start_s:
  description: How many of them the target's containers took to start and become healthy.
  returned: with O(state=migrated)
  type: float
  sample: 11.1
census:
  description: What the stores on the target have counted, by volume.
  returned: with O(state=migrated)
  type: dict
memories:
  description: How many memories were read back through the API on the target; null if there is no OpenMemory.
  returned: with O(state=migrated)
  type: int
  sample: 120
sent_bytes:
  description: Size of the files that were sent, each as often as it was sent.
  returned: with O(state=migrated)
  type: int
  sample: 219021312
timings:
  description: Seconds of each phase, those of the target with its name before them.
  returned: with O(state=migrated)
  type: dict
  sample: {transfer: 21.4, delta: 0.6, commit: 0.3, target start: 11.1}
in_doubt:
  description:
    - Whether only the target can tell which side counts. Its door must stay open then, since it will be asked.
  returned: failure
  type: bool
  sample: false
actions:
  description: What was done, in order; in check mode, what would be.
  returned: success
  type: list
  elements: str
  sample: [move volume openmemory_qdrant_storage (137 MiB), start the stack on new.example.com and prove it]
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import departure, handover, preparation
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.departure_undo import in_doubt
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.request import MigrateRequest, forget_keys
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR, Places
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import connect, docker_argument_spec
from ansible_collections.openmemory.stack.plugins.module_utils._repository_options import (
    finish,
    progress,
    repository_settings,
)

REQUEST = ("operation", "target", "address", "port", "user", "host_keys", "bwlimit", "freeze_timeout", "wait_timeout")


def argument_spec() -> dict[str, Any]:
    return {
        "compose_project": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["prepared", "migrated", "returned", "absent"], "default": "migrated"},
        "transport": {"type": "str", "choices": ["ssh", "repository"], "default": "ssh"},
        "repository": {"type": "str"},
        "password_file": {"type": "path", "no_log": False},
        "environment": {"type": "dict", "default": {}, "no_log": True},
        "staging_dir": {"type": "path"},
        "operation": {"type": "str"},
        "target": {"type": "str"},
        "address": {"type": "str"},
        "port": {"type": "int", "default": 22},
        "user": {"type": "str", "default": "root"},
        "host_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
        "bwlimit": {"type": "int", "default": 0},
        "freeze_timeout": {"type": "float", "default": 120},
        "wait_timeout": {"type": "float", "default": 300},
        "state_dir": {"type": "path", "default": STATE_DIR},
        **docker_argument_spec(),
    }


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    project, state_dir = params["compose_project"], params["state_dir"]
    if params["state"] == "absent":
        return forget(Places.of(project, state_dir, create=False), module.check_mode)
    if params["state"] == "prepared":
        return preparation.prepare(project, state_dir, connect(module), params["target"] or "", module.check_mode)
    if params["state"] == "returned":
        return handover.come_back(project, state_dir, connect(module), module.check_mode)
    if params["transport"] == "repository":
        asked = {name: params[name] for name in ("target", "staging_dir")}
        over = handover.HandoverRequest(**repository_settings(module), **asked)
        return handover.run(over, connect(module), progress(module), module.check_mode)
    for name in ("operation", "address"):
        if not params[name]:
            raise StackError(f"state is migrated and transport ssh, and {name} is missing; give {name}.")
    request = MigrateRequest(project, state_dir=state_dir, **{name: params[name] for name in REQUEST})
    return departure.run(request, connect(module), progress(module), module.check_mode)


def forget(places: Places, check_mode: bool) -> dict[str, Any]:
    if os.path.exists(places.journal):
        return {"changed": False, "actions": []}  # it may be under way, or need the key to ask the target
    gone = forget_keys(places, check_mode=check_mode)
    return {"changed": bool(gone), "actions": [f"remove the key of the migration {operation}" for operation in gone]}


def _in_doubt(module: AnsibleModule) -> bool:
    try:
        return in_doubt(Places.of(module.params["compose_project"], module.params["state_dir"], create=False))
    except StackError:
        return True  # whoever cannot tell must not close the door


def main() -> None:
    needed = [("state", "migrated", ["target"]), ("transport", "repository", ["repository", "password_file"])]
    module = AnsibleModule(argument_spec=argument_spec(), required_if=needed, supports_check_mode=True)
    try:
        finish(module, run(module))
    except StackError as error:
        module.fail_json(msg=str(error), in_doubt=_in_doubt(module))


if __name__ == "__main__":
    main()
