# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module volume, and the conversion that on_drift: convert asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import STATE_DIR, Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.unfinished import unfinished
from ansible_collections.openmemory.stack.plugins.module_utils._core.present import plan_present
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import VolumeSpec
from ansible_collections.openmemory.stack.plugins.module_utils._docker_options import docker_argument_spec

_ENTRY = {
    "name": {"type": "str", "required": True},
    "backing": {"type": "str", "choices": ["managed", "path"]},
    "path": {"type": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
    "store": {"type": "str", "choices": ["sqlite", "qdrant", "neo4j", "files"]},
    "driver": {"type": "str", "default": "local"},
    "driver_opts": {"type": "dict", "default": {}},
    "labels": {"type": "dict", "default": {}},
    "min_free": {"type": "str"},
}
_CONVERT = {  # those of the documentation fragment openmemory.stack.convert
    "keep_days": {"type": "float", "default": 7},
    "wait_timeout": {"type": "float", "default": 300},
    "stop_timeout": {"type": "int"},
    "state_dir": {"type": "path", "default": STATE_DIR},
}


def volume_argument_spec() -> dict[str, Any]:
    """All options of the module."""
    return {
        "volumes": {"type": "list", "elements": "dict", "required": True, "options": _ENTRY},
        "compose_project": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "on_drift": {"type": "str", "choices": ["fail", "ignore", "convert"], "default": "fail"},
        "min_free": {"type": "str"},
        "size": {"type": "bool", "default": False},
        "size_timeout": {"type": "float", "default": 30},
        **_CONVERT,
        **docker_argument_spec(),
    }


def convert(module: AnsibleModule, engine: Engine, specs: Sequence[VolumeSpec]) -> dict[str, Any]:
    """Convert the volumes that differ, as _core.convert.convert.run() says; raises StackError."""
    from ansible_collections.openmemory.stack.plugins.module_utils._core.convert import (  # late: it imports much
        convert as core,
    )
    from ansible_collections.openmemory.stack.plugins.module_utils._core.convert import (
        request,
    )

    options = {name: module.params[name] for name in _CONVERT}
    asked = request.ConvertRequest(module.params["compose_project"] or "", specs, **options)
    asked.check()
    places = Places.of(asked.project, asked.state_dir, create=False)
    if not os.path.exists(places.journal):
        plan_present(engine, specs, "ignore")  # the whole list is checked before anything changes
    progress = Progress(places.progress)
    return core.run(asked, engine, progress, module.check_mode)


def joined(converted: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The module's result with what a conversion did before."""
    diff = {
        side: {
            **result["diff"][side],
            "volumes": {**converted["diff"][side]["volumes"], **result["diff"][side]["volumes"]},
        }
        for side in ("before", "after")
    }
    more = {name: converted[name] for name in ("downtime_s", "kept", "timings") if name in converted}
    return {**result, **more, "actions": [*converted["actions"], *result["actions"]], "diff": diff}


def refuse_unfinished(project: str, state_dir: str, on_drift: str) -> None:
    """Raise StackError where a conversion has died: a volume that is missing then must not be made anew, empty."""
    places = Places.of(project, state_dir, create=False)
    left = unfinished(places) if os.path.exists(places.journal) else None
    if left and left["operation"] == "convert" and on_drift != "convert" and not left["running"]:
        raise StackError(
            f"A conversion of volumes of {project} has died in the phase {left['phase']}; run openmemory-stack "
            "recover, or set on_drift: convert, which recovers first."
        )
