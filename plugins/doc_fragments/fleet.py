# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that fleet_report and its info twin share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of options() in plugins/action/fleet_report.py, and the hosts."""

    DOCUMENTATION = r"""
options:
  hosts:
    description:
      - The hosts, each with C(host), its name in the inventory, and C(result), what M(openmemory.stack.stack_info)
        returned there or, where it gave no answer, what Ansible registered of that.
    type: list
    elements: dict
    required: true
  title:
    description:
      - Title of the page.
    type: str
    default: OpenMemory
  max_age_hours:
    description:
      - How many hours old the newest snapshot of a stack may be. 0 for any.
    type: float
    default: 26
  drill_max_age_days:
    description:
      - How many days old the last drill may be. 0 demands none.
    type: float
    default: 31
  min_free_percent:
    description:
      - How much of a file system with volumes has to be free. 0 for any.
    type: float
    default: 10
  full_in_days:
    description:
      - Warn where the volumes grow so fast that their file system is full in less than this. 0 never does.
    type: float
    default: 14
"""
