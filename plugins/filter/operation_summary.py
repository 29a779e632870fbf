# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an operation has done, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import show

DOCUMENTATION = """
name: operation_summary
short_description: What an operation has done, for people
version_added: 0.2.0
author: The openmemory.stack developers (@openmemory)
description:
  - Turns the result of M(openmemory.stack.volume_backup), M(openmemory.stack.volume_restore),
    M(openmemory.stack.volume), M(openmemory.stack.stack_migrate) or M(openmemory.stack.stack_purge) into the text
    that the command C(openmemory-stack) prints.
positional: _input, verb, project
options:
  _input:
    description: The result.
    type: dict
    required: true
  verb:
    description: What was done.
    type: str
    choices: [backup, restore, purge, convert, migrate, update]
    required: true
  project:
    description: The Compose project.
    type: str
    required: true
"""

EXAMPLES = """
- name: Say what was saved
  ansible.builtin.debug:
    msg: "{{ saved | openmemory.stack.operation_summary('backup', 'openmemory') }}"
"""

RETURN = """
_value:
  description: The text, lines joined by newlines.
  type: str
"""

TEXTS = {
    "backup": show.backup,
    "restore": show.restore,
    "purge": show.purge,
    "convert": show.convert,
    "migrate": show.migrate,
    "update": show.update,
}


def operation_summary(result: Mapping[str, Any], verb: str, project: str) -> str:
    """The text of one result."""
    if verb not in TEXTS:
        raise AnsibleFilterError(f"operation_summary knows {', '.join(TEXTS)}, and not {verb!r}.")
    return TEXTS[verb](project, result)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"operation_summary": operation_summary}
