# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What checking a copy of a store told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class CheckResult:
    """findings are sentences on damage (ok is False with one); notes are worth knowing and no damage of the copy.

    census is what the store holds where its files tell it exactly (SQLite), else None; see proof/census.py.
    """

    store: str
    ok: bool = True
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    census: dict[str, Any] | None = None

    def damaged(self, finding: str) -> None:
        self.ok = False
        self.findings.append(finding)

    def as_result(self) -> dict[str, Any]:
        return {
            "store": self.store,
            "ok": self.ok,
            "findings": list(self.findings),
            "notes": list(self.notes),
            "census": self.census,
        }
