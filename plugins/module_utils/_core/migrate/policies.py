# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restart policies that a migration has taken away, given back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..engine import Engine
from ..errors import NotFoundError


def restore_policies(engine: Engine, policies: Mapping[str, Any]) -> None:
    """policies are {id: as an inspection has it}; a container that is gone is no error. Raises StackError."""
    for identity, policy in policies.items():
        with suppress(NotFoundError):
            engine.set_restart_policy(identity, policy)
