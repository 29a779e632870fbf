# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that the modules of updates share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of plugins/module_utils/_update_options.py."""

    DOCUMENTATION = r"""
options:
  pull:
    description:
      - V(always) asks the registry for what the references mean now, also for a tag that is on the host already.
      - V(never) takes what is on the host, for images that were loaded by hand.
    type: str
    choices: [always, never]
    default: always
  steps:
    description:
      - What to do where a store has to run versions in between, as Qdrant does, which upgrades its storage by one minor
        version at a time, and Neo4j 5, which runs 5.26 before anything newer than 5.
      - V(auto) runs them, in containers without a network, while the stack stands still. Their images are expected
        under tags like the wanted one with the version exchanged, such as C(v1.19) or C(v1.19.0) for C(v1.20.0).
      - V(refuse) refuses, and lists them.
    type: str
    choices: [auto, refuse]
    default: auto
  state_dir:
    description:
      - Directory on the host for what is kept between runs. The same as for backups.
    type: path
    default: /var/lib/openmemory-stack
"""
