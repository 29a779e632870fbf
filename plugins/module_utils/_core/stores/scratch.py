# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of a copy, for what cannot be opened without being changed."""

from __future__ import annotations

import os
import subprocess
import time

from ..errors import StackError
from ..filesystem import may_clone
from ..room import require_room
from ..sizes import measure

_MEASURE_S = 60.0  # what is not measured by then is found out by the copy


def copy(source: str, target: str) -> None:
    """Copy a file or a directory as it is, by reference where the file system can, sparse elsewhere.

    Raises StackError, without a beginning where there is no room for it.
    """
    _require_room(source, os.path.dirname(target))
    command = ["cp", "-a", "--reflink=auto", "--sparse=always", "--", source, target]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"cp ended with {done.returncode}"
        raise StackError(f"{source} could not be copied to {target} ({reason}); make room there or repair the disk.")


def _require_room(source: str, place: str) -> None:
    if not os.path.exists(source) or may_clone(source, place):  # cp says what is wrong
        return
    needed = os.stat(source).st_blocks * 512
    if os.path.isdir(source):
        needed = measure(source, time.monotonic() + _MEASURE_S).allocated_bytes
    require_room(place, needed, f"a copy of {source}")
