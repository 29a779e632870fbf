# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is newer than what runs, for whoever asks without updating."""

from __future__ import annotations

from typing import Any

from ..compose_containers import project_containers
from ..compose_project import Project
from ..engine import Engine
from ..operation.places import Places, require_local
from ..operation.unfinished import unfinished
from .request import UpdateRequest
from .services import find_services, refusal_of


def look(request: UpdateRequest, engine: Engine) -> dict[str, Any]:
    """{present, newer, services, unfinished, warnings}: the result of the module stack_update_info; raises StackError.

    The registry is asked unless pull is "never"; nothing is pulled.
    """
    request.check()
    require_local(engine)
    config = Project(request.compose, lambda: engine, check_mode=True).resolve()
    containers = [engine.inspect_container(one["Id"]) for one in project_containers(engine, request.project)]
    services, warnings = find_services(engine, config, containers, request.compose.pull == "always")
    return {
        "present": bool(containers),
        "newer": any(service.newer for service in services),
        "services": {
            service.name: {**service.as_result(), "problem": refusal_of(service, request.steps)} for service in services
        },
        "unfinished": unfinished(Places.of(request.project, request.state_dir, create=False)),
        "warnings": warnings,
    }
