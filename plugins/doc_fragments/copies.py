# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of retention and far repositories."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of plugins/module_utils/_copies_options.py."""

    DOCUMENTATION = r"""
options:
  keep:
    description: &keep
      - Which snapshots that this host made of the project to keep once this one is stored. The others are removed.
        Without it, none is.
      - The newest verified snapshots are always kept, whatever is said here, and snapshots of others are never
        touched. Snapshots of some volumes only are counted by themselves.
    type: dict
    suboptions: &keep_options
      last:
        description: How many of the newest.
        type: int
      hourly:
        description: For how many hours, in which there are any, to keep the last of each.
        type: int
      daily:
        description: The same for days.
        type: int
      weekly:
        description: The same for weeks.
        type: int
      monthly:
        description: The same for months.
        type: int
      yearly:
        description: The same for years.
        type: int
      within:
        description: All that are not older than this, compared with the newest, such as V(7d) or V(1y6m).
        type: str
  prune:
    description:
      - Free the space of removed snapshots at once. V(false) leaves that to another machine, as repositories need
        that a host can only add to.
    type: bool
    default: true
  copies:
    description:
      - Far repositories. After each backup they are given, with C(restic copy), what they lack of this host's snapshots
        of the project, so the stack's data is read once.
      - One that fails hinders neither the near snapshot nor the others. The task has then failed, with its result as
        usual, and the next one brings all that is missing.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What to call it.
        type: str
        required: true
      repository:
        description: Where it is, as restic names it.
        type: str
        required: true
      password_file:
        description: File on the host that holds its password. Without it, that of the near repository.
        type: path
      environment:
        description: Credentials of its back end. Never shown.
        type: dict
      keep:
        description: Which snapshots to keep there. Leave it out for one that this host can only add to.
        type: dict
        suboptions: *keep_options
      prune:
        description: Free the space of what is removed there at once.
        type: bool
        default: true
      init:
        description: Make it if there is none.
        type: bool
        default: true
      limit_upload:
        description: Most KiB/s to send there; V(0) for no limit.
        type: int
        default: 0
"""
