# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a restore, checked as a whole before anything changes: check mode shows it as it is."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..afresh import afresh
from ..engine import Engine
from ..errors import StackError
from ..filesystem import existing_ancestor
from ..operation.places import Places
from ..proof.ask import neo4j_login
from ..proof.gate import version_problem, version_warning
from ..repository.kept_manifests import manifest_of
from ..repository.manifest import Manifest
from ..repository.repository import Repository
from ..repository.snapshot import Snapshot
from ..room import require_room
from ..state import State
from ..stores import neo4j
from ..stores.container import Container
from ..stores.registry import recognise
from ..volumes import PROJECT_LABEL
from .crew import Crew
from .request import RestoreRequest
from .targets import Target, choose_keys, find_targets, refuse_foreign

_SIDE_FILES = ("-journal", "-wal", "-shm")
OVERHEAD = 4096  # bytes that a file may take beyond its size: a block's rest and its inode
LIVE = "its live data"  # in a diff, of a volume that only force replaces
_RAN = ("running", "restarting")


@dataclass
class RestorePlan:
    """crew are the containers to stop and start: those of the project that use a target and run."""

    request: RestoreRequest
    snapshot: Snapshot
    manifest: Manifest
    targets: list[Target]
    containers: dict[str, dict[str, Any]]
    crew: Crew
    warnings: list[str] = field(default_factory=list)

    @property
    def path(self) -> str | None:
        """The one path that is restored, relative to the volume's root."""
        return self.request.path

    @property
    def actions(self) -> list[str]:
        """What is done, in order, for people."""
        of = f"snapshot {self.snapshot.short_id}"
        if not self.snapshot.time_is_about:
            of += f" of {self.snapshot.local_time}"
        found = [f"create volume {target.name}" for target in self.targets if not target.exists]
        for target in self.targets:
            what = f"{self.path} in volume {target.name}" if self.path else f"volume {target.name}"
            kept = "" if target.empty else f"; what is there now is kept for {self.request.keep_days:g} days"
            found.append(f"restore {what} from {of}{kept}")
        if self.crew.ids:
            found.append(f"stop {', '.join(reversed(self.crew.names()))}")
            if self.request.start:
                found.append(f"start {', '.join(self.crew.names())}")
        return found

    @property
    def diff(self) -> dict[str, Any]:
        """{before, after}: what each volume holds."""
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        for target in self.targets:
            now = "nothing" if target.empty else LIVE
            before[target.name] = now if target.exists else None
            after[target.name] = {"snapshot": self.snapshot.id, "path": self.path or "."}
        return {"before": {"volumes": before}, "after": {"volumes": after}}

    def users_of(self, target: Target) -> list[dict[str, Any]]:
        """Inspected containers that use a target."""
        return [self.containers[user["Id"]] for user in target.users if user["Id"] in self.containers]


@afresh
def make_plan(
    request: RestoreRequest,
    engine: Engine,
    repository: Repository,
    state: State | None = None,
    places: Places | None = None,
    ask: bool = True,
) -> RestorePlan:
    """Resolve, find and check everything. Raises StackError with what stands in the way; changes nothing.

    places: where this host may keep the snapshot's manifest, which saves reading it from the repository. ask: the
    repository, also for what this host knows of it.
    """
    of = request.from_project or request.project
    prefix = f"{request.project}_"
    wanted = [name[len(prefix) :] if name.startswith(prefix) else name for name in request.volumes or ()]
    snapshot = repository.resolve(request.snapshot, of, ask, wanted)
    manifest = Manifest(**manifest_of(repository, places, snapshot.id, keep=False))
    _refuse_other_stack(request, snapshot, manifest)
    keys = choose_keys(request, manifest)
    state = state or State(engine)
    targets = find_targets(request, manifest, keys, state)
    for target in targets:
        refuse_foreign(target, request.project)
    containers = inspect_users(engine, request.project, targets)
    if request.path:
        _check_path(request, targets[0], state)
    _refuse_overwriting(request, targets)
    plan = RestorePlan(
        request, snapshot, manifest, targets, containers, crew_of(engine, request.project, targets, containers)
    )
    _gate(plan, engine)
    check_space(targets, request.path)
    if not plan.crew.ids and any(target.users for target in targets):
        plan.warnings.append("None of the containers ran, so none is started and no census is compared.")
    if snapshot.partial and request.volumes is None:
        plan.warnings.append(
            f"The snapshot {snapshot.short_id} holds only {', '.join(keys)}, not all volumes of the stack {of}, and "
            "the others are left as they are; where there is a snapshot of all, give its id to bring back all."
        )
    plan.warnings += _unchecked_logins(plan)
    return plan


def _refuse_other_stack(request: RestoreRequest, snapshot: Snapshot, manifest: Manifest) -> None:
    wanted = request.from_project or request.project
    if manifest.project != wanted:
        raise StackError(
            f"snapshot {snapshot.short_id} is of the stack {manifest.project}, not of {wanted}; to restore it here "
            f"nevertheless, set from_project: {manifest.project}."
        )


def inspect_users(engine: Engine, project: str, targets: Sequence[Target]) -> dict[str, dict[str, Any]]:
    """Inspected containers by id: those that use a target, and all of the project."""
    wanted = {user["Id"]: None for target in targets for user in target.users}
    for container in engine.containers():
        if (container.get("Labels") or {}).get(PROJECT_LABEL) == project:
            wanted[container["Id"]] = None
    return {identity: engine.inspect_container(identity) for identity in wanted}


def crew_of(engine: Engine, project: str, targets: Sequence[Target], containers: Mapping[str, dict[str, Any]]) -> Crew:
    """The containers to stop: those that use a target and run. containers are inspected ones. StackError if paused."""
    chosen = {}
    for target in targets:
        for user in target.users:
            about = containers[user["Id"]]
            if about["State"]["Status"] == "paused":
                raise StackError(
                    f"The container {about['Name'].lstrip('/')}, which uses the volume {target.name}, is paused; "
                    "resume it (docker unpause) or run openmemory-stack recover first."
                )
            if about["State"]["Status"] in _RAN:
                chosen[user["Id"]] = about
    return Crew(engine, project, chosen)


def _check_path(request: RestoreRequest, target: Target, state: State) -> None:
    if not target.exists or not os.path.isdir(target.path):
        raise StackError(f"path restores into a volume that is there, and {target.name} is not; leave out path.")
    path = str(request.path)
    parent = os.path.dirname(path)
    at = target.path
    for part in parent.split("/") if parent else []:
        at = os.path.join(at, part)
        inside = os.path.relpath(at, target.path)
        if os.path.islink(at) or not os.path.isdir(at):
            raise StackError(
                f"path is {path}, and the volume {target.name} has no directory {inside} now; restore {inside} "
                "as a whole."
            )
        _refuse_mount(path, at, target, state)
    goal = os.path.join(target.path, path)
    if os.path.lexists(goal):
        _refuse_mount(path, goal, target, state)
        inside_it = state.mounts.below(goal)
        if inside_it:
            raise StackError(f"path is {path}, and {inside_it[0]} is mounted in it; unmount that first.")
    target.empty = not any(os.path.lexists(os.path.join(target.path, name)) for name in path_names(path))


def _refuse_mount(path: str, place: str, target: Target, state: State) -> None:
    if state.mounts.is_point(place) or os.lstat(place).st_dev != os.lstat(target.path).st_dev:
        raise StackError(f"path is {path}, and {place} is on another file system than the volume; restore it by hand.")


def path_names(path: str) -> list[str]:
    """The path and what would belong to it: a database of SQLite, in whatever volume, goes with its side files."""
    if path.endswith(_SIDE_FILES):
        return [path]
    return [path, *(path + suffix for suffix in _SIDE_FILES)]


def _refuse_overwriting(request: RestoreRequest, targets: Sequence[Target]) -> None:
    if request.force:
        return
    full = [target.name for target in targets if not target.empty]
    if full:
        many = len(full) > 1
        what = f"The volume{'s' if many else ''} {', '.join(full)} {'are' if many else 'is'} not empty"
        if request.path:
            what = f"{request.path} is there in the volume {full[0]}"
        raise StackError(
            f"{what}; set force: true to replace that (it is kept for {request.keep_days:g} days), or target: new to "
            "restore beside it."
        )


def _gate(plan: RestorePlan, engine: Engine) -> None:
    """Versions that cannot read the snapshot's files are refused, or warned of with ignore_versions."""
    problems = []
    for target in plan.targets:
        for about in plan.users_of(target):
            known = recognise(Container.from_inspect(about))
            if known and known[0] == target.store:
                seen = plan.manifest, target.key, engine.inspect_image(about["Image"]), about["Config"]["Image"]
                problem, warning = version_problem(*seen), version_warning(*seen)
                problems += [problem] if problem else []
                plan.warnings += [warning] if warning else []
    if problems and not plan.request.ignore_versions:
        raise StackError(f"{' '.join(problems)} Set ignore_versions: true only if you know that it can be read.")
    plan.warnings += problems


def _unchecked_logins(plan: RestorePlan) -> list[str]:
    """Restored data brings its own password, which only a Neo4j that is started on it can refuse (see verdict.py)."""
    if plan.request.path or plan.request.target == "new":
        return []
    found = []
    for target in plan.targets:
        if target.store != neo4j.KIND:
            continue
        servers = [about for about in plan.users_of(target) if _is_neo4j(about)]
        if not servers:
            found.append(
                f"No container of Neo4j is on the volume {target.name}, so its login was not checked: the data keeps "
                "the password of the snapshot's time. Deploy Neo4j with that one as NEO4J_PASSWORD "
                "(stack_neo4j_password), or restore again with set_password: true once its container is there."
            )
            continue
        started = plan.request.start and any(about["Id"] in plan.crew.containers for about in servers)
        if not started and not plan.request.set_password and neo4j_login(servers[0])[1] is not None:
            name = str(servers[0]["Name"]).lstrip("/")
            found.append(
                f"{name} is not started, so its login was not checked: the data keeps the password of the snapshot's "
                f"time. If that is not the one in the settings of {name}, restore again with set_password: true."
            )
    return found


def _is_neo4j(inspected: Mapping[str, Any]) -> bool:
    known = recognise(Container.from_inspect(inspected))
    return known is not None and known[0] == neo4j.KIND


def check_space(targets: Sequence[Target], path: str | None = None) -> None:
    """Raise StackError where a file system lacks room for what is fetched beside the live data.

    Sizes count with their holes, as restic before 0.15 writes them out before they are dug again. That of a single path
    is in the snapshot's listing, which fetch_path() looks into.
    """
    wanted: dict[int, int] = defaultdict(int)
    place: dict[int, str] = {}
    if path is not None:
        return
    for target in targets:
        at = existing_ancestor(os.path.dirname(target.path) if not target.in_root else target.path)
        device = os.stat(at).st_dev
        wanted[device] += int(target.about.get("size_bytes") or 0) + OVERHEAD * int(target.about.get("files") or 0)
        place[device] = at
    for device, needed in wanted.items():
        require_room(place[device], needed)
