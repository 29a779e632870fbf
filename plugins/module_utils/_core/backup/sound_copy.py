# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes into a snapshot: one instant of all volumes, checked, counted and described, in staging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..capture.capture import Captured, CaptureSettings, capture
from ..capture.plan import CapturePlan
from ..capture.staging import Staging
from ..capture.way import Way
from ..engine import Engine
from ..errors import StackError
from ..operation.beside import beside
from ..operation.durable_json import write_json
from ..operation.journal import Journal
from ..operation.places import Places
from ..operation.progress import Progress
from ..proof import census
from ..proof.checks import CheckResult, check_staged
from ..repository import listing
from ..repository.manifest import Manifest
from .description import make_manifest
from .request import BackupRequest


class SoundCopy:
    """warnings is added to, and cleared of what a census before has noted."""

    def __init__(
        self,
        request: BackupRequest,
        engine: Engine,
        places: Places,
        journal: Journal,
        progress: Progress,
        plan: CapturePlan,
        staging: Staging,
        way: Way,
        warnings: list[str],
    ):
        self.request = request
        self.engine = engine
        self.places = places
        self.journal = journal
        self.progress = progress
        self.plan = plan
        self.staging = staging
        self.way = way
        self.warnings = warnings

    def make(self, ready: Callable[[], None]) -> tuple[Captured, Manifest]:
        """Copy and check; for ready see capture(). Raises StackError for a copy that is not sound."""
        captured = self._capture(ready)
        self.journal.phase("check")
        proof = self._prove(captured)
        exports = self._export()
        same = self.request, self.engine, self.plan, captured, self.staging, proof, exports
        manifest = make_manifest(*same, self.progress.timings)
        listing.write(self.staging.volumes, [volume.key for volume in self.plan.volumes], self.staging.listing)
        write_json(self.staging.manifest, manifest.to_dict())
        return captured, manifest

    def _capture(self, ready: Callable[[], None]) -> Captured:
        asked = self.request
        settings = CaptureSettings(asked.compare, asked.freeze_timeout, asked.stop_timeout)
        same = self.plan, self.way, self.staging, self.engine, self.places, self.journal, self.progress, settings
        return capture(*same, self._count, ready)  # ready: a wrong password freezes nothing

    def _count(self) -> dict[str, Any]:
        """What the stores say that they hold, right before and right after the window."""
        self.warnings.clear()
        return census.ask(self.engine, self.plan.containers, self.plan.keys, self.warnings)

    def _prove(self, captured: Captured) -> dict[str, dict[str, Any]]:
        """{key: {"census", "check"}}; raises StackError for a copy that is not sound."""
        verify, volumes = self.request.verify, self.plan.volumes
        counted = beside(self._count)
        checked: dict[str, CheckResult] = {}
        if verify != "none":
            self.progress.phase("check")
            staged = {volume.key: (volume.store, self.staging.volume(volume.key)) for volume in volumes}
            checked = check_staged(staged, self.places.scratch, verify)
        for key, found in checked.items():
            if not found.ok:
                raise StackError(
                    f"The copy of {key} is not sound: {'; '.join(found.findings)}. It was not put into the repository; "
                    "repair the store, or set verify: none to keep it as it is."
                )
        ranges = census.between(captured.before, counted.result())
        proof: dict[str, dict[str, Any]] = {
            volume.key: {"census": ranges.get(volume.key), "check": {"level": "none", "ok": None, "findings": []}}
            for volume in volumes
        }
        for key, found in checked.items():
            proof[key]["check"] = {"level": verify, "ok": found.ok, "findings": found.findings}
            if found.census is not None:
                proof[key]["census"] = found.census
        if verify == "full":
            for key, found_census in self._probe(checked).items():
                proof[key]["census"] = found_census
        return proof

    def _probe(self, checked: dict[str, CheckResult]) -> dict[str, Any]:
        from ..proof.probe import probe  # late: only a full check starts stores

        self.progress.phase("probe")
        return probe(
            self.engine, self.journal, self.plan.project, self.plan.containers, self._staged(), self.places.scratch,
            keys=self.plan.keys, notes=self.warnings, checked=checked,
        )  # fmt: skip

    def _export(self) -> list[dict[str, Any]]:
        if not self.request.export:
            return []
        from ..proof.exports import export  # late: on request only

        self.journal.phase("export")
        self.progress.phase("export")
        return export(
            self.engine, self.journal, self.plan.project, self.plan.containers, self._staged(), self.staging.export,
            self.places.scratch, keys=self.plan.keys, notes=self.warnings,
        )  # fmt: skip

    def _staged(self) -> dict[str, str]:
        return {volume.key: self.staging.volume(volume.key) for volume in self.plan.volumes}
