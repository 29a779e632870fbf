# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module stack_update, with lines about how far it is."""

from __future__ import annotations

from ansible_collections.openmemory.stack.plugins.plugin_utils._progress import ProgressAction


class ActionModule(ProgressAction):
    """Found by Ansible through its name."""

    verb = "update"

    def _project(self) -> str:
        return str(self._task.args.get("project_name", ""))
