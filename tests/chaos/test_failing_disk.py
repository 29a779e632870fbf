# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that loses what it has taken: a flush tells of it, whoever else has been told before.

The disk is an image on a tmpfs that becomes full: the kernel takes the pages, and cannot write them out later.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.durable import (
    OpenFileSystems,
    sync_filesystem,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from loop_device import attach, unmount

ROOM = 12 << 20
IMAGE = 64 << 20
LOST = r"could not be flushed \((Input/output error|No space left on device)\)"


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Path]:
    small, disk = tmp_path / "small", tmp_path / "disk"
    small.mkdir()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", small], check=True)
    try:
        image = small / "image"
        with image.open("wb") as made:
            made.truncate(IMAGE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", image], check=True)
        loop = attach(image)
        try:
            subprocess.run(["mount", "-o", "errors=continue", loop, disk], check=True)
            try:
                yield disk
            finally:
                unmount(disk)
        finally:
            subprocess.run(["losetup", "--detach", loop], check=True)
    finally:
        unmount(small)


def test_who_had_it_open_before_is_told_after_others_were(failing: Path) -> None:
    with OpenFileSystems([str(failing)]) as systems:
        systems.flush()
        (failing / "data").write_bytes(os.urandom(2 * ROOM))
        with pytest.raises(StackError, match=LOST):
            sync_filesystem(str(failing))  # somebody else's, who is told
        sync_filesystem(str(failing))  # and who comes later is not
        with pytest.raises(StackError, match=LOST):
            systems.flush()
        systems.flush()  # once
