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
) -> list[str]:
    """The names, sorted, of the volumes that fit every filter given; all of them without a filter.

    labels are KEY, which any value fits, or KEY=VALUE.
    """
    wanted = [*(labels or []), *([f"{PROJECT_LABEL}={compose_project}"] if compose_project else [])]
    return sorted(
        name
        for name, volume in volumes.items()
        if (not names or name in names) and all(_has(volume.get("Labels") or {}, label) for label in wanted)
    )


def _has(labels: Mapping[str, str], wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return labels.get(key) == value if separator else key in labels
