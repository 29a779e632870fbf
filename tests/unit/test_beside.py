# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work beside the main thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.beside import beside

COLLECTIONS = Path(__file__).resolve().parents[2] / ".collections"
CHILD = f"""
import time
from {beside.__module__} import beside
beside(lambda: time.sleep(60))
"""


def test_what_it_returns_and_raises_is_there_for_who_asks() -> None:
    assert beside(lambda: 7).result(10) == 7
    failing = beside(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)


def test_the_process_ends_without_it() -> None:
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    subprocess.run([sys.executable, "-c", CHILD], env=environment, check=True, timeout=20)
