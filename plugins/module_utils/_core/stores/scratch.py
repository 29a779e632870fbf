# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of a copy, for what cannot be opened without being changed."""

from __future__ import annotations

import os
import subprocess

from ..errors import StackError


def copy(source: str, target: str) -> None:
    """Copy a file or a directory as it is, by reference where the file system can, sparse elsewhere; StackError."""
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
