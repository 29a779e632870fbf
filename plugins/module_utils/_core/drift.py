# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a volume that exists differs from what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .volumes import PROJECT_LABEL, VOLUME_LABEL, VolumeSpec, is_bind, normal_option


def find_drift(spec: VolumeSpec, volume: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The differences as {name, current, desired}; None stands for what is not set.

    Of labels only those asked for count. Compose's own labels may be missing, because Docker cannot add labels to a
    volume and Compose takes such a volume with a warning; those of another project are drift.
    """
    drift = []
    if volume["Driver"] != spec.driver:
        drift.append(_difference("driver", volume["Driver"], spec.driver))
    current = _normal(volume["Driver"], volume.get("Options") or {})
    desired = _normal(spec.driver, spec.driver_opts)
    for key in sorted({*current, *desired}):
        if current.get(key) != desired.get(key):
            drift.append(_difference(f"driver_opts.{key}", current.get(key), desired.get(key)))
    labels = volume.get("Labels") or {}
    for key, value in sorted(spec.labels.items()):
        if labels.get(key) != value and (key in labels or key not in (PROJECT_LABEL, VOLUME_LABEL)):
            drift.append(_difference(f"labels.{key}", labels.get(key), value))
    return drift


def explain_drift(drifted: Mapping[str, list[dict[str, Any]]]) -> str:
    """One sentence about all volumes that differ, and what to do."""
    parts = [
        f"{name}: {item['name']} is {_shown(item['current'])}, asked for is {_shown(item['desired'])}"
        for name, drift in drifted.items()
        for item in drift
    ]
    return (
        f"A volume is never recreated, and differs from what is asked for ({'; '.join(parts)}); ask for what it is, "
        "set on_drift: convert to move its data, or on_drift: ignore."
    )


def _normal(driver: str, options: Mapping[str, str]) -> dict[str, str]:
    normal = {key: normal_option(key, str(value)) for key, value in options.items() if value != ""}
    if is_bind(driver, options):
        normal["type"] = "none"  # the kernel does not look at the type of a bind mount
    return normal


def _shown(value: str | None) -> str:
    return "not set" if value is None else value


def _difference(name: str, current: str | None, desired: str | None) -> dict[str, Any]:
    return {"name": name, "current": current, "desired": desired}
