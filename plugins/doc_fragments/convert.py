# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of a conversion."""

from __future__ import annotations


class ModuleDocFragment:
    """What Ansible reads."""

    DOCUMENTATION = r"""
options:
  keep_days:
    description:
      - How many days the old data of a converted volume is kept. It goes with the first backup, restore or conversion
        after that. V(0) removes it then.
    type: float
    default: 7
  wait_timeout:
    description:
      - How many seconds the containers of converted volumes may take to become healthy, before all is taken back.
    type: float
    default: 300
  stop_timeout:
    description:
      - How many seconds those containers get to stop. Without it, what each one says itself.
    type: int
  state_dir:
    description:
      - Where a conversion keeps its journal and the list of old data. The same as for backups.
    type: path
    default: /var/lib/openmemory-stack
"""
