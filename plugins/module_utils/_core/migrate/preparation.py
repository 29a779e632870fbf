# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The first step on the source: whether the stack can be moved at all, and the key for it."""

from __future__ import annotations

import os
import shutil
from typing import Any

from ..backup.request import check_project
from ..engine import Engine
from ..errors import StackError
from ..operation.lock import OperationLock
from ..operation.places import Places, require_local
from ..operation.recover import recover
from ..operation.retired import read_retirement
from ..restore.restore import new_id
from .departure import actions_of, make_plan
from .request import Key, forget_keys


def prepare(project: str, state_dir: str, engine: Engine, target: str, check_mode: bool) -> dict[str, Any]:
    """{changed, operation, public_key, retired, actions}; operation and key are None where there is nothing to do.

    What a migration that died has left is finished or undone first, so that a stack that was moved is seen to be.
    target is the target's name for people. Raises StackError with what stands in the way.
    """
    check_project(project)
    require_local(engine)
    places = Places.of(project, state_dir, create=False)
    said: list[str] = []
    if os.path.exists(places.journal):
        said = recover(engine, places, check_mode=check_mode)
        if said and check_mode:
            raise StackError(f"An operation has died on {project}; run openmemory-stack recover. {' '.join(said)}")
    result: dict[str, Any] = {"changed": bool(said), "operation": None, "public_key": None, "retired": None}
    retirement = read_retirement(places)
    if retirement is not None:
        return {**result, "retired": retirement.as_result()["retired"], "actions": said}
    plan = make_plan(project, engine)
    actions = [*said, *actions_of(target or "the target", plan)]
    for tool in ("rsync", "ssh"):
        if not shutil.which(tool):
            raise StackError(f"There is no {tool} on the source; install it.")
    if check_mode:
        return {**result, "changed": True, "actions": actions}
    places = Places.of(project, state_dir)
    with OperationLock(places, "migrate"):
        operation = new_id()
        forget_keys(places)
        public = Key(places, operation).make()
    return {**result, "changed": True, "operation": operation, "public_key": public, "actions": actions}
