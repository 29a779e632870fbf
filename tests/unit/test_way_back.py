# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore's way back where the host is not as it was: a disk is away, containers are others, a clock is wrong."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.filesystem import Mount, MountTable
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import undo as undoing
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.swap import Swap
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.undo import undo
from swapped import ID, record_of, swap_in

from .conftest import FakeEngine

PROJECT = "com.docker.compose.project"
LATER = "20261126t021500-3fa9c1"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))


def died(places: Places, *swaps: Swap) -> Journal:
    """A restore that died after its renames."""
    for swap in swaps:
        swap.forward()
    journal = Journal.begin(places, "restore", ID)
    journal.note("restore", record_of(places, *swaps, stage="swapping").as_json())
    return journal


def test_stores_do_not_go_back_without_the_one_whose_disk_is_away(places: Places, tmp_path: Path) -> None:
    one, other = swap_in(tmp_path / "disk/one"), swap_in(tmp_path / "other")
    journal = died(places, one, other)
    os.rename(tmp_path / "disk", tmp_path / "away")
    for _round in range(2):
        with pytest.raises(StackError, match=r"The restore has .* the volume one is, is not there; mount"):
            undo(FakeEngine(tmp_path), journal)
    assert Path(other.root, "db").read_text() == "new"
    os.rename(tmp_path / "away", tmp_path / "disk")
    undo(FakeEngine(tmp_path), journal)
    assert [Path(swap.root, "db").read_text() for swap in (one, other)] == ["old", "old"]
    assert {entry.swap.volume for entry in kept.load(places)} == {"one", "other"}


class Running(FakeEngine):
    """A container that was made after the restore died."""

    def __init__(self, root: Path, project: str | None, writes: bool = True):
        super().__init__(root)
        labels = {PROJECT: project} if project else {}
        about = {"Id": "anew", "Names": ["/anew"], "State": "running", "Labels": labels}
        self.running = [{**about, "Mounts": [{"Type": "volume", "Name": "v", "RW": writes}]}]
        self.inspections["anew"] = {
            "Id": "anew",
            "Name": "/anew",
            "State": {"Status": "running"},
            "Config": {"Labels": labels},
            "HostConfig": {},
        }

    def is_active(self, container: str) -> bool:
        return container == "anew"


def test_a_container_that_was_made_anew_is_stopped_first(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = swap_in(tmp_path / "v")
    journal = died(places, swap)
    seen: list[tuple[list[str], str]] = []
    monkeypatch.setattr(
        undoing,
        "stop_if_active",
        lambda _engine, ids: seen.append((list(ids), Path(swap.root, "db").read_text())),
    )
    undo(Running(tmp_path, "om"), journal)
    assert seen == [([], "new"), (["anew"], "new")]
    assert Path(swap.root, "db").read_text() == "old"
    assert journal.data["stopped"] == [{"id": "anew", "name": "anew"}]  # recover() starts it again


@pytest.mark.parametrize("project", ["another", None])
def test_a_foreign_container_on_the_new_data_is_in_the_way(places: Places, tmp_path: Path, project: str | None) -> None:
    swap = swap_in(tmp_path / "v")
    journal = died(places, swap)
    with pytest.raises(StackError, match="The container anew uses the volume v, in which a restore has to be taken"):
        undo(Running(tmp_path, project), journal)
    assert Path(swap.root, "db").read_text() == "new"


def test_a_foreign_container_that_only_reads_is_not(places: Places, tmp_path: Path) -> None:
    swap = swap_in(tmp_path / "v")
    undo(Running(tmp_path, "another", writes=False), died(places, swap))
    assert Path(swap.root, "db").read_text() == "old"


def accepted(places: Places, place: Path, operation: str, now: float, until: float = 9e9) -> Swap:
    """A restore of one volume that was accepted; each has its own directory beside the data."""
    swap = swap_in(place, f".openmemory-restore-{operation}") if not place.exists() else again(place, operation)
    swap.forward()
    record = replace(record_of(places, swap, until=until), id=operation)
    kept.remember(places, record, now)
    kept.supersede(places, record)
    return swap


def again(place: Path, operation: str) -> Swap:
    made = swap_in(place.parent / f"{place.name}.made", f".openmemory-restore-{operation}")
    beside = place / os.path.basename(made.beside)
    os.rename(made.beside, beside)
    (move,) = made.moves
    moves = [replace(move, live=str(place / "_data"), new=str(beside / "new"), old=str(beside / "old"))]
    return replace(made, volume=place.name, key=place.name, root=str(place / "_data"), beside=str(beside), moves=moves)


def test_the_last_restore_is_told_by_the_order_and_not_by_a_clock(places: Places, tmp_path: Path) -> None:
    accepted(places, tmp_path / "v", ID, now=5000.0)
    accepted(places, tmp_path / "v", LATER, now=1000.0)
    assert [entry.operation for entry in kept.last(kept.load(places))] == [LATER]


def test_undo_does_not_go_back_past_a_restore_that_keeps_nothing(places: Places, tmp_path: Path) -> None:
    accepted(places, tmp_path / "v", ID, now=1000.0)
    accepted(places, tmp_path / "v", LATER, now=2000.0, until=3000.0)
    assert [entry.operation for entry in kept.last(kept.load(places))] == [LATER]
    kept.purge_expired(places, now=4000.0)
    assert [entry.operation for entry in kept.load(places)] == [ID]
    with pytest.raises(StackError, match="The last restore has kept no old data, or not any more"):
        kept.last(kept.load(places))


def test_a_restore_of_another_volume_leaves_the_way_back(places: Places, tmp_path: Path) -> None:
    accepted(places, tmp_path / "v", ID, now=1000.0)
    accepted(places, tmp_path / "w", LATER, now=2000.0, until=3000.0)
    kept.purge_expired(places, now=4000.0)
    assert [entry.operation for entry in kept.last(kept.load(places))] == [ID]


def test_what_is_kept_on_a_disk_that_is_away_stays_on_the_list(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swaps = [swap_in(tmp_path / "disk/one"), swap_in(tmp_path / "other")]
    for swap in swaps:
        swap.forward()
    with monkeypatch.context() as mounted:
        table = MountTable([Mount("/", "ext4"), Mount(str(tmp_path / "disk"), "ext4")])
        mounted.setattr(MountTable, "read", classmethod(lambda _cls: table))
        kept.remember(places, record_of(places, *swaps, until=9e9))
    os.rename(tmp_path / "disk", tmp_path / "away")
    (tmp_path / "disk").mkdir()
    assert kept.purge_expired(places) == []
    assert [entry.swap.volume for entry in kept.last(kept.load(places))] == ["one", "other"]
    assert kept.load(places)[0].is_away()


def test_names_that_are_no_utf8_are_written_and_read(places: Places, tmp_path: Path) -> None:
    swap = swap_in(tmp_path / os.fsdecode(b"\xff"))
    swap.forward()
    kept.remember(places, record_of(places, swap, until=9e9))
    (entry,) = kept.load(places)
    assert entry.path == swap.beside
    assert b"\xff" in os.fsencode(entry.path)
