# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems of their own, on loop devices."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAKE = {kind: [f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f"] for kind in ("ext4", "xfs", "btrfs")}


def attach(image: Path) -> str:
    """A loop device for the image; its node is made where nothing else does that."""
    for attempt in range(20):
        found = subprocess.run(["losetup", "--find"], check=True, capture_output=True, text=True).stdout.strip()
        if not os.path.exists(found):
            with suppress(FileExistsError):  # another run has just made it
                os.mknod(found, stat.S_IFBLK | 0o660, os.makedev(7, int(found.removeprefix("/dev/loop"))))
        if not subprocess.run(["losetup", found, image], check=False, capture_output=True).returncode:
            return found
        time.sleep(0.1 * attempt)
    raise AssertionError("no loop device was free")


def unmount(point: Path) -> None:
    """Also where a container that starts has a copy of the mount for a moment."""
    if subprocess.run(["umount", point], check=False).returncode:
        subprocess.run(["umount", "--lazy", point], check=True)


@contextmanager
def mounted(image: Path, kind: str, megabytes: int = 400) -> Iterator[Path]:
    """A new file system of its own, in a file; gone at the end, whatever happened."""
    with open(image, "wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run([*MAKE[kind], image], check=True)
    point = image.with_suffix(".mounted")
    point.mkdir()
    device = attach(image)
    try:
        subprocess.run(["mount", device, point], check=True)
        try:
            yield point
        finally:
            unmount(point)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
        image.unlink()
