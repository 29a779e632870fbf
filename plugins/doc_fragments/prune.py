# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that the modules about pruning share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of plugins/module_utils/_prune_options.py."""

    DOCUMENTATION = r"""
options:
  repository:
    description:
      - Where the repository is, as restic names it and as this machine may write to it. For restic's REST server in
        append-only mode that is its directory on the server, or a second server that only this machine can reach.
    type: str
    required: true
  password_file:
    description:
      - File on this machine that holds the password of the repository. Nobody but its owner may be able to read it.
    type: path
    required: true
  environment:
    description:
      - Environment of restic, for credentials that may delete. No host that is backed up has them. Never shown.
    type: dict
    default: {}
  keep:
    description:
      - What to keep of each project and host. The time of a snapshot is when it was first seen from this machine, not
        what it says.
    type: dict
    required: true
    suboptions:
      within:
        description:
          - All that arrived within this time of the newest, such as V(90d) or V(1y6m). Make it longer than it may take
            to notice that a host was broken into.
          - The newest of those before stays, too, so the last good snapshot stays for this long after what follows it.
        type: str
        required: true
      last:
        description: Also how many of the newest. This and the rest only add to what O(keep.within) keeps.
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
  project:
    description:
      - Only snapshots of this Compose project. Without it, of all.
    type: str
  host:
    description:
      - Only snapshots of the host that has this name. Without it, of all.
    type: str
  state_dir:
    description:
      - Directory on this machine for the record of when each snapshot was first seen. Whoever loses it starts anew, and
        the times that the snapshots say are then believed once.
    type: path
    default: /var/lib/openmemory-stack
requirements:
  - restic 0.14 or newer
"""
