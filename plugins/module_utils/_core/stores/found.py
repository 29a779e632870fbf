# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What looking at a store's files tells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK = "ok"
DAMAGED = "damaged"
UNKNOWN = "unknown"  # nothing wrong was seen, and a quick look cannot say more


@dataclass
class Found:
    """A store on disk. version is None where its files do not say it; findings are sentences, empty when healthy."""

    kind: str
    version: str | None = None
    health: str = OK
    findings: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def damaged(self, finding: str) -> None:
        self.health = DAMAGED
        self.findings.append(finding)

    def as_result(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "version": self.version,
            "health": self.health,
            "findings": self.findings,
            "details": self.details,
        }
