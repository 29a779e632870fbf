# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a report of the fleet says, without writing it."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.openmemory.stack.plugins.action.fleet_report import hosts_of, model_of, options


class ActionModule(ActionBase):
    """Found by Ansible through its name. What it takes is documented in the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        hosts = hosts_of(self._task.args)
        _validation, asked = self.validate_argument_spec(options())
        result.update(changed=False, report=model_of(hosts, asked))
        return result
