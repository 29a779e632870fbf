# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work beside the main thread that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Found = TypeVar("Found")


def beside(work: Callable[[], Found]) -> Future[Found]:
    """What work will return or raise. Its thread ends with the process; a pool's would be waited for, signal or not."""
    result: Future[Found] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # for the thread that waits, whatever it is
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result
