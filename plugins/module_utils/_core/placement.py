# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes that are mounted where their store does not write, so that they stay empty while the data is lost.

Upstream's compose file once mounted Qdrant's volume at /mem0/storage (mem0 issue 2895): that is what this finds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .filesystem import covers
from .stores.container import Container
from .stores.registry import recognise

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")


def find_misplaced(volume: str, inspected: Mapping[str, Any]) -> dict[str, Any] | None:
    """{container, store, destination, expected} if this container mounts the volume beside its store's data."""
    container = Container.from_inspect(inspected)
    known = recognise(container)
    if known is None:
        return None
    kind, expected, extra = known
    mounts = inspected.get("Mounts") or []
    destinations = [mount["Destination"] for mount in mounts if mount.get("Name") == volume]
    kept = [mount["Destination"] for mount in mounts if _outlives_container(mount)]
    lost = [path for path in expected if not any(covers(place, path) for place in kept)]
    for destination in destinations:
        is_right = any(covers(destination, path) for path in expected) or destination in extra
        if lost and not is_right:
            return {"container": container.name, "store": kind, "destination": destination, "expected": lost[0]}
    return None


def _outlives_container(mount: Mapping[str, Any]) -> bool:
    """Images make anonymous volumes for their data, which go with the container: they do not keep anything."""
    if mount["Type"] == "volume":
        return not _ANONYMOUS.fullmatch(mount.get("Name") or "")
    return bool(mount["Type"] == "bind")
