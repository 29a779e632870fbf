# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the engine's volumes are meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .volumes import PROJECT_LABEL


def select(
    volumes: Mapping[str, Mapping[str, Any]],
    names: Sequence[str] | None = None,
    compose_project: str | None = None,
    labels: Sequence[str] | None = None,
    users: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> list[str]:
    """The names, sorted, of the volumes that fit every filter given; all of them without a filter.

    labels are KEY, which any value fits, or KEY=VALUE. A volume is of a project by its label or because a container of
    the project mounts it, as external volumes are often made without one; users are the containers by volume.
    """

    def fits(name: str, found: Mapping[str, str]) -> bool:
        if names and name not in names:
            return False
        if compose_project and not _of_project(compose_project, found, (users or {}).get(name, ())):
            return False
        return all(_has(found, label) for label in labels or ())

    return sorted(name for name, volume in volumes.items() if fits(name, volume.get("Labels") or {}))


def _of_project(project: str, labels: Mapping[str, str], users: Sequence[Mapping[str, Any]]) -> bool:
    return any(found.get(PROJECT_LABEL) == project for found in [labels, *(user.get("Labels") or {} for user in users)])


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return labels.get(key) == value if separator else key in labels
