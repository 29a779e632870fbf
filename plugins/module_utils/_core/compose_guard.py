# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must not be left to Compose: volumes that are missing, or that it would offer to delete and make anew."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from .errors import StackError

# As Docker's reference grammar, a little wider: name, perhaps with a registry, then tag and digest.
_REFERENCE = re.compile(
    r"[A-Za-z0-9\[][A-Za-z0-9._:/\[\]-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?(@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?"
)


def config_volumes(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The volumes of a resolved project by key: name, external, driver, driver_opts, labels."""
    found = {}
    for key, volume in (config.get("volumes") or {}).items():
        volume = volume or {}
        found[key] = {
            "name": volume.get("name") or f"{config.get('name')}_{key}",
            "external": bool(volume.get("external")),
            "driver": volume.get("driver") or "local",
            "driver_opts": {name: str(value) for name, value in (volume.get("driver_opts") or {}).items()},
            "labels": dict(volume.get("labels") or {}),
        }
    return found


def check_references(config: Mapping[str, Any]) -> None:
    """Raise StackError for an image that Docker could not even look for, which Compose finds out only at the pull."""
    for name, service in (config.get("services") or {}).items():
        image = service.get("image")
        if image is not None and not _REFERENCE.fullmatch(image):
            raise StackError(f"services.{name}.image is {image!r}, which is no name of an image; correct it.")


def check_volumes(
    wanted: Mapping[str, Mapping[str, Any]], existing: Iterable[Mapping[str, Any]], coming: Collection[str] = ()
) -> None:
    """Raise StackError for the first volume that is not as the project needs it.

    coming names volumes that an earlier task would have made, were this not check mode.
    """
    by_name = {volume["Name"]: volume for volume in existing}
    for key, volume in wanted.items():
        name = volume["name"]
        found = by_name.get(name)
        if found is None:
            if volume["external"] and name not in coming:
                raise StackError(
                    f"The external volume {name} (volumes.{key} of the compose file) does not exist; create it with "
                    "the module volume, or declare it without external: true."
                )
        elif not volume["external"]:
            have = (found.get("Driver") or "local", found.get("Options") or {})
            if have != (volume["driver"], volume["driver_opts"]):
                raise StackError(
                    f"The volume {name} exists as {_text(*have)}, and volumes.{key} of the compose file declares "
                    f"{_text(volume['driver'], volume['driver_opts'])}; Compose would delete its data or ignore the "
                    "difference, so make the file say what exists or convert the volume."
                )


def _text(driver: str, options: Mapping[str, str]) -> str:
    shown = ", ".join(f"{name}={options[name]}" for name in sorted(options))
    return f"driver {driver} with {shown}" if shown else f"driver {driver} without options"
