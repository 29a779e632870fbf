# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module volume, with lines about how far a conversion is."""

from __future__ import annotations

from typing import Any

from ansible_collections.openmemory.stack.plugins.plugin_utils._progress import ProgressAction


class ActionModule(ProgressAction):
    """Found by Ansible through its name. Only a conversion takes long; all else runs as any module does."""

    verb = "convert"

    def _watched(self, variables: dict[str, Any]) -> dict[str, Any]:
        if self._task.args.get("on_drift") == "convert":
            return super()._watched(variables)
        found: dict[str, Any] = self._execute_module(task_vars=variables)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return found
