# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a purge, checked as a whole before anything changes: check mode shows it as it is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..afresh import afresh
from ..byte_sizes import show_bytes
from ..capture.staging import staging_root
from ..engine import Engine
from ..errors import StackError
from ..location import locate
from ..operation.places import Places
from ..operation.retired import read_retirement
from ..repository.restic import Restic
from ..restore import kept
from ..restore.crew import Crew
from ..selection import select
from ..sizes import measure
from ..state import State, container_name
from ..volumes import PROJECT_LABEL
from .project import project_directory, project_files
from .record import Doomed, Record
from .refusals import refuse_mounted, refuse_place, refuse_shared_network, refuse_shared_volume, refuse_what_stays
from .request import TAG, PurgeRequest

_OURS = ("journal.json", "journal.json.new", "journal.json.room", "lock")  # what an operation under way has by itself
_RAN = ("running", "restarting")
_MEASURE_SECONDS = 10.0  # for all sizes together, which only people read


@dataclass
class PurgePlan:
    """What goes, as the journal will have it; crew: the containers that run; state: our directory of the stack."""

    request: PurgeRequest
    record: Record
    crew: Crew
    state: str | None = None
    sizes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether nothing of the stack is on this host."""
        return self.removed == {"containers": [], "networks": [], "volumes": [], "paths": []}

    @property
    def removed(self) -> dict[str, list[str]]:
        """What goes, by kind."""
        record = self.record
        paths = [each.path for each in record.directories]
        return {
            "containers": [each["name"] for each in record.containers],
            "networks": [each["name"] for each in record.networks],
            "volumes": list(record.volumes),
            "paths": [*paths, *record.files, *([self.state] if self.state else [])],
        }

    @property
    def actions(self) -> list[str]:
        """What is done, in order, for people."""
        record, request = self.record, self.request
        found = [f"stop {', '.join(reversed(self.crew.names()))}"] if self.crew.ids else []
        if request.snapshot == "make" and record.volumes:
            found.append(f"make the snapshot tag:{TAG} of {', '.join(record.volumes)}")
        found += [f"remove container {each['name']}" for each in record.containers]
        found += [f"remove network {each['name']}" for each in record.networks]
        found += [f"remove volume {name}{self.sizes.get(name, '')}" for name in record.volumes]
        for each in record.directories:
            what = "empty the mount point" if each.stays else "remove"
            found.append(f"{what} {each.path}, {each.what}{self.sizes.get(each.path, '')}")
        found += [f"remove {path}" for path in record.files]
        if self.state:
            found.append(f"remove {self.state}, what is kept between runs")
        return found

    @property
    def summary(self) -> str:
        """How much goes, in a few words."""
        counts = [(len(names), kind) for kind, names in self.removed.items() if names]
        return ", ".join(f"{count} {kind if count > 1 else kind[:-1]}" for count, kind in counts)

    @property
    def diff(self) -> dict[str, Any]:
        """{before, after}: what there is of the stack."""
        return {"before": self.removed, "after": {name: [] for name in self.removed}}


@afresh
def make_plan(request: PurgeRequest, engine: Engine, places: Places, operation: str) -> PurgePlan:
    """Find all that goes, and refuse what must not. Raises StackError with what stands in the way; changes nothing."""
    retirement = read_retirement(places)
    if request.snapshot == "make" and retirement is not None:
        raise StackError(
            f"The stack {request.project} was moved from this host to {retirement.target}, so a snapshot made here "
            "would be of old data and the newest one; set snapshot: none to remove what is left of it here."
        )
    state = State(engine)
    project = request.project
    own = [each for each in state.containers if (each.get("Labels") or {}).get(PROJECT_LABEL) == project]
    record = Record(containers=[{"id": each["Id"], "name": container_name(each)} for each in own])
    crew = Crew(engine, project, {each["Id"]: engine.inspect_container(each["Id"]) for each in own if _runs(each)})
    plan = PurgePlan(request, record, crew)
    for network in engine.networks(f"{PROJECT_LABEL}={project}"):
        refuse_shared_network(network, project, state)
        record.networks.append({"id": network["Id"], "name": network["Name"]})
    record.volumes = select(state.volumes, compose_project=project, users=state.users)
    inside = _volumes(plan, state, places, operation)
    _kept(plan, places)
    _staging(plan, places, [path for _name, path in inside])
    source = request.project_src or project_directory(own)
    record.files = project_files(source, project) if source else []
    record.empties = [*([source] if record.files and source else []), *request.directories]
    plan.state = places.state if _holds_something(places) else None
    state_of_ours = [Doomed(places.state, "what is kept between runs")] if plan.state else []
    files = [Doomed(path, "a file of the project") for path in record.files]
    managed = [Doomed(path, f"the volume {name}") for name, path in inside]
    repository = Restic(request.repository, "").local_path if request.repository else None
    stays = {"repository": repository, "password_file": request.password_file}
    refuse_what_stays([*record.directories, *managed, *state_of_ours, *files], stays)
    _say_what_stays(plan, own, state)
    return plan


def _runs(container: dict[str, Any]) -> bool:
    if container["State"] == "paused":
        raise StackError(
            f"The container {container_name(container)} is paused, so it cannot be stopped; resume it (docker unpause) "
            "or run openmemory-stack recover first."
        )
    return container["State"] in _RAN


def _volumes(plan: PurgePlan, state: State, places: Places, operation: str) -> list[tuple[str, str]]:
    """Adds the directories behind volumes; (volume, path) of all whose data is seen."""
    deadline = time.monotonic() + _MEASURE_SECONDS
    record, found = plan.record, []
    for name in record.volumes:
        location = locate(state.volumes[name], state)
        path = location.path
        refuse_shared_volume(name, path, plan.request.project, state)
        if path is None and location.backing == "path" and not location.gone:
            raise StackError(
                f"The directory of the volume {name} cannot be removed: {location.problem} Remove what is in it "
                f"yourself, then the volume: docker volume rm {name}"
            )
        if path is None:
            if not location.gone and location.device:
                plan.warnings.append(f"What the volume {name} mounts from {location.device} is not removed.")
            continue
        found.append((name, path))
        size = show_bytes(measure(path, deadline).allocated_bytes) if os.path.isdir(path) else "nothing"
        if location.backing != "path":
            refuse_mounted(name, path, state, plain=not location.device)
            plan.sizes[name] = f" ({size})"
            continue
        plan.sizes[path] = f" ({size})"
        refuse_place(name, path, record.volumes, state, places.state)
        stays = state.mounts.is_point(path) or os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev
        trash = f".openmemory-purge-{operation}-{len(record.directories)}"
        beside = None if stays else os.path.join(os.path.dirname(path), trash)
        if path not in [each.path for each in record.directories]:
            record.directories.append(Doomed(path, f"the data of the volume {name}", name, beside, stays))
        if os.path.realpath(str(location.device)) != os.path.normpath(str(location.device)):
            plan.warnings.append(f"{location.device} leads to {path} by a link, and the link stays.")
    return found


def _kept(plan: PurgePlan, places: Places) -> None:
    """Old data of restores; what lies in a managed volume goes with it, and what is gone already is not looked for."""
    for entry in kept.load(places):
        if not os.path.lexists(entry.path):
            continue
        if kept.is_ours(entry.path) and os.path.isdir(entry.path) and not os.path.islink(entry.path):
            plan.record.directories.append(Doomed(entry.path, f"old data of the volume {entry.swap.volume}"))
        else:
            plan.warnings.append(f"{entry.path}, where a restore kept old data, is not ours by now and stays.")


def _staging(plan: PurgePlan, places: Places, paths: Sequence[str]) -> None:
    """The copy that backups start from, where it is not in our own directory."""
    there = [path for path in paths if os.path.isdir(path)]
    root = staging_root(plan.request.staging_dir, places.staging, plan.request.project, there)
    if root != places.staging:
        if os.path.isdir(root) or plan.request.snapshot == "make":
            plan.record.directories.append(Doomed(root, "the copy that backups start from"))
        plan.record.empties += [os.path.dirname(root), *([] if plan.request.staging_dir else [_above(root, 2)])]


def _above(path: str, levels: int) -> str:
    for _level in range(levels):
        path = os.path.dirname(path)
    return path


def _holds_something(places: Places) -> bool:
    return os.path.isdir(places.state) and bool({*os.listdir(places.state)} - {*_OURS})


def _say_what_stays(plan: PurgePlan, own: Sequence[dict[str, Any]], state: State) -> None:
    """Host directories that the containers mount without a volume are not the stack's data by any promise of ours."""
    going = [each.path for each in plan.record.directories]
    for container in own:
        for mount in container.get("Mounts") or ():
            source = str(mount.get("Source") or "")
            if mount.get("Type") == "bind" and state.real(source) not in going:
                plan.warnings.append(f"{source}, which {container_name(container)} mounts, is no volume and stays.")
