# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restored data beside the live data: fetched, made exact by the listing, and checked. Nothing live is touched."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ..capture import staging
from ..errors import StackError
from ..filesystem import covers
from ..operation.progress import Progress
from ..proof.checks import QUICK, CheckResult, check_staged, refusal
from ..repository import listing
from ..repository.repairing import repair
from ..repository.repository import Repository
from ..repository.snapshot import Snapshot
from ..room import require_room
from .plan import OVERHEAD, path_names
from .targets import Target
from .writeback import Writeback

LISTING, VOLUMES = f"/{staging.LISTING}", f"/{staging.VOLUMES}"  # in a snapshot
_AT_ONCE = 2  # volumes that are made exact


def fetch(
    repository: Repository, snapshot: Snapshot, targets: Sequence[Target], operation: str, progress: Progress
) -> None:
    """Fetch whole volumes into "new" of each target's directory of ours, which is there and empty.

    One call of restic for each file system. Raises StackError where a copy is not exactly what was captured.
    """
    total = sum(int(target.about.get("size_bytes") or 0) for target in targets)
    progress.phase("fetch", total)
    groups: dict[int, dict[str, str]] = defaultdict(dict)
    lists: dict[int, str] = {}
    for target in targets:
        beside = target.beside(operation)
        device = os.stat(beside).st_dev
        groups[device][f"{VOLUMES}/{target.key}"] = os.path.join(beside, "new")
        lists.setdefault(device, os.path.join(beside, "meta", "listing.jsonl"))
    for device, wanted in groups.items():
        os.mkdir(os.path.dirname(lists[device]), 0o700)
        repository.restore_all(
            snapshot.id,
            {**wanted, LISTING: lists[device]},
            progress.follow(),
            total_bytes=total,
            meanwhile=lambda scratch: Writeback(scratch + LISTING, scratch + VOLUMES),
        )
    progress.phase("compare")

    def make_exact(target: Target) -> None:
        beside = target.beside(operation)
        repair(os.path.join(beside, "new"), lists[os.stat(beside).st_dev], target.key)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(make_exact, targets))


def fetch_path(
    repository: Repository, snapshot: Snapshot, target: Target, path: str, operation: str, progress: Progress
) -> list[str]:
    """Fetch one path of a volume, and what belongs to it, into the directory "new" of ours; the names that came.

    Names are paths relative to the volume's root. Raises StackError if the snapshot does not have the path.
    """
    beside = target.beside(operation)
    os.mkdir(os.path.join(beside, "meta"), 0o700)
    file = os.path.join(beside, "meta", "listing.jsonl")
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(repository.dump(snapshot.id, LISTING))
    sizes = _sizes(file, target.key, path_names(path))
    names = list(sizes)
    if path not in names:
        raise StackError(
            f"path is {path}, which the snapshot {snapshot.short_id} does not have in {target.key}; in the root it has "
            f"{', '.join(_roots(file, target.key)) or 'nothing'}."
        )
    size, files = (sum(numbers) for numbers in zip(*sizes.values()))
    require_room(beside, size + OVERHEAD * files)
    progress.phase("fetch", size)
    wanted = {f"{VOLUMES}/{target.key}/{name}": os.path.join(beside, "new", os.path.basename(name)) for name in names}
    repository.restore_all(snapshot.id, wanted, progress.follow())
    progress.phase("compare")
    for name in names:
        repair(os.path.join(beside, "new", os.path.basename(name)), file, target.key, name)
    return names


def check(targets: Sequence[Target], operation: str, scratch: str, kind: str | None = None) -> dict[str, CheckResult]:
    """The stores' own checks of what was fetched, by key. kind: of the store, where it is not that of the volume.

    Raises StackError for damage in what was sound when it was captured; of what was not checked then, the results tell.
    """
    staged = {target.key: (kind or target.store, os.path.join(target.beside(operation), "new")) for target in targets}
    results = check_staged(staged, scratch, QUICK)
    known = [target for target in targets if kind in (None, target.store)]
    sound = {target.key for target in known if (target.about.get("check") or {}).get("ok") is True}
    problem = refusal({key: result for key, result in results.items() if key in sound})
    if problem:
        raise StackError(f"{problem} Nothing was put in place; restore another snapshot, and check the repository.")
    return results


def _sizes(file: str, key: str, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(bytes, entries) at and below those of names that the listing has; hard links count once."""
    found: dict[str, tuple[int, int]] = {}
    seen: set[int] = set()
    for entry in listing.read(file, key):
        name = next((one for one in names if covers(one, entry.path)), None)
        if name is not None:
            size, number = found.get(name, (0, 0))
            found[name] = size + (0 if entry.group in seen else entry.size), number + 1
            seen |= {entry.group} - {0}
    return found


def _roots(file: str, key: str) -> list[str]:
    names = {entry.path.split("/")[0] for entry in listing.read(file, key) if entry.path}
    return sorted(map(listing.show, names))[:20]
