# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a conversion is asked to do, checked before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..backup.request import check_project
from ..errors import StackError
from ..operation.places import STATE_DIR
from ..volumes import VolumeSpec


@dataclass
class ConvertRequest:
    """specs are the volumes as they shall be; those that differ from what Docker has are converted.

    keep_days is how long the old data stays; wait_timeout and stop_timeout (None: the container's own) are in seconds.
    """

    project: str
    specs: Sequence[VolumeSpec]
    state_dir: str = STATE_DIR
    keep_days: float = 7.0
    wait_timeout: float = 300.0
    stop_timeout: int | None = None

    def check(self) -> None:
        """Raise StackError for what can be seen to be wrong without looking at the host."""
        if not self.project:
            raise StackError("on_drift is convert, which needs compose_project; name the Compose project.")
        check_project(self.project)
        if not os.path.isabs(self.state_dir):
            raise StackError(f"state_dir is {self.state_dir}, which is no absolute path; give one that starts with /.")
        if not 0 <= self.keep_days <= 3650:
            raise StackError(f"keep_days is {self.keep_days:g}; give days between 0 and 3650.")
        if not 0 < self.wait_timeout <= 86400:
            raise StackError(f"wait_timeout is {self.wait_timeout:g}; give seconds between 0 and 86400.")
