# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which process this is, so that another one can tell later whether it still lives, and children that end with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def boot_id() -> str:
    """The kernel's random id of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_ticks(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if there is no such process, or a zombie of it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def dies_with_us(number: int = signal.SIGINT) -> Callable[[], None]:
    """For preexec_fn of a child: the kernel signals it when the thread that started it dies, whatever kills that.

    number is the signal.
    """
    import ctypes

    library, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def prepare() -> None:
        library.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
