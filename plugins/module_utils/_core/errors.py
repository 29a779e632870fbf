# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the core raises for the user to read."""

from __future__ import annotations

from typing import Any


class StackError(Exception):
    """One clear sentence: the parameter, what was found, what to do. Adapters show it as it is."""


class NotFoundError(StackError):
    """The engine does not know what was asked for (any more)."""


class BusyError(StackError):
    """Another operation is under way on the same stack."""


class PartlyDoneError(StackError):
    """Something was done and kept, and something after it failed. result: as where all went well."""

    def __init__(self, sentence: str, result: dict[str, Any]):
        super().__init__(sentence)
        self.result = result
