# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes how many seconds each task took, in order, to the file that BENCH_DURATIONS names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: durations
type: aggregate
short_description: Write how many seconds each task took
description: Writes a list of name and seconds to the file that E(BENCH_DURATIONS) names.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "durations"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.started = 0.0
        self.durations: list[dict[str, Any]] = []

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.started = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self.durations.append({"name": result.task.get_name(), "seconds": time.monotonic() - self.started})

    def v2_playbook_on_stats(self, stats: Any) -> None:
        Path(os.environ["BENCH_DURATIONS"]).write_text(json.dumps(self.durations))
