# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restores keep: listed once, removed when its time is over, and never anything that is not ours."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import undo as undoing
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.swap import Move, Swap
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.undo import undo
from swapped import ID, NAME, record_of, swap_in


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))


def test_old_data_is_listed_once_and_only_where_there_is_some(places: Places, tmp_path: Path) -> None:
    full, empty = swap_in(tmp_path / "full"), swap_in(tmp_path / "empty")
    os.unlink(Path(empty.root) / "db")
    for swap in (full, empty):
        swap.forward()
    for _round in range(2):
        found = kept.remember(places, record_of(places, full, empty), now=1000.0)
    assert [entry.as_result() for entry in found] == [
        {
            "volume": "full",
            "path": full.beside,
            "until": "1970-01-01T00:33:20+00:00",
            "snapshot": "5f0c",
            "operation": ID,
        }
    ]
    assert kept.load(places) == found
    assert os.stat(places.kept).st_mode & 0o777 == 0o600


def test_it_goes_when_its_time_is_over_and_not_before(places: Places, tmp_path: Path) -> None:
    swap = swap_in(tmp_path / "v")
    swap.forward()
    kept.remember(places, record_of(places, swap), now=1000.0)
    assert kept.purge_expired(places, now=1999.0) == []
    assert Path(swap.beside, "old/db").read_text() == "old"
    (said,) = kept.purge_expired(places, now=2001.0)
    assert said == f"the old data of v in {swap.beside} was removed: its time is over"
    assert not os.path.lexists(swap.beside)
    assert Path(swap.root, "db").read_text() == "new"
    assert kept.purge_expired(places, now=2001.0) == []


def odd_link(place: Path) -> Path:
    (place / "elsewhere").mkdir()
    (place / NAME).symlink_to(place / "elsewhere")
    return place / NAME


def odd_content(place: Path) -> Path:
    (place / NAME / "_data").mkdir(parents=True)
    return place / NAME


def other_name(place: Path) -> Path:
    (place / "_data").mkdir()
    return place / "_data"


def almost_our_name(place: Path) -> Path:
    (place / f"{NAME}-and-more").mkdir()
    return place / f"{NAME}-and-more"


@pytest.mark.parametrize("make", [odd_link, odd_content, other_name, almost_our_name])
def test_what_is_not_ours_is_never_removed(places: Places, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    entry = kept.Kept(ID, "5f0c", 1.0, 2.0, Swap("v", "v", "/nowhere", str(path), []))
    kept.save(places, [entry])
    (said,) = kept.purge_expired(places, now=3.0)
    assert said.endswith("was left alone")
    assert os.path.lexists(path)
    assert kept.load(places) == [entry]


@pytest.mark.parametrize("path", ["relative/" + NAME, f"/a/../{NAME}", f"/{NAME}/", "/"])
def test_paths_that_are_not_plain_are_not_ours(path: str) -> None:
    assert not kept.is_ours(path)


@pytest.mark.parametrize("name", [NAME, f".openmemory-stack-{ID}", f".openmemory-stack-om_qdrant.storage-{ID}"])
def test_the_three_names_are_ours(name: str) -> None:
    assert kept.is_ours(f"/srv/{name}")


def test_a_list_that_cannot_be_read_removes_nothing(places: Places) -> None:
    Path(places.kept).write_text(json.dumps({"kept": [{"volume": "v"}]}))
    with pytest.raises(StackError, match="cannot be read"):
        kept.purge_expired(places)


def test_nothing_to_go_back_to(places: Places) -> None:
    with pytest.raises(StackError, match="No restore has kept old data"):
        kept.last(kept.load(places))


class NoEngine(Engine):
    """There are no containers, and nothing may be asked."""

    def __init__(self) -> None:
        super().__init__(None, "", "unix:///none.sock")

    def volumes(self) -> list[dict[str, object]]:
        return []

    def containers(self) -> list[dict[str, object]]:
        return []


@pytest.mark.parametrize(
    ("stage", "swapped", "data", "left"),
    [
        ("fetching", False, "old", False),  # what was fetched goes
        ("swapping", False, "old", False),
        ("swapping", True, "old", True),  # not accepted: back, and what was live is kept
        ("accepted", True, "new", True),  # accepted: finished
    ],
)
def test_undo_ends_at_one_of_two_ends(
    places: Places, tmp_path: Path, stage: str, swapped: bool, data: str, left: bool
) -> None:
    swap = swap_in(tmp_path / "v")
    (tmp_path / "v" / NAME / "meta").mkdir()
    journal = Journal.begin(places, "restore", ID)
    if swapped:
        swap.forward()
    journal.note("restore", record_of(places, swap, stage=stage).as_json())
    for _round in range(2):
        undo(NoEngine(), journal)
        assert Path(swap.root, "db").read_text() == data
        assert os.path.lexists(swap.beside) == left
        assert [entry.path for entry in kept.load(places)] == ([swap.beside] if left else [])
    assert sorted(os.listdir(swap.beside) if left else []) == ([("new", "old")[stage == "accepted"]] if left else [])


def test_undo_leaves_old_data_whatever_the_record_says(places: Places, tmp_path: Path) -> None:
    swap = swap_in(tmp_path / "v")
    swap.forward()
    journal = Journal.begin(places, "restore", ID)
    journal.note("restore", record_of(places, swap, stage="fetching").as_json())  # as if a write had been lost
    (said,) = undo(NoEngine(), journal)
    assert said == f"Left {swap.beside}, which holds data that the restore did not bring: look at it."
    assert Path(swap.beside, "old/db").read_text() == "old"


def test_what_runs_on_the_old_data_again_is_not_stopped_by_the_next_undo(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[list[str]] = []
    monkeypatch.setattr(undoing, "stop_if_active", lambda engine, ids: stopped.append(list(ids)))
    swap = swap_in(tmp_path / "v")
    swap.forward()
    journal = Journal.begin(places, "restore", ID)
    journal.notes(
        {"restore": record_of(places, swap, stage="swapping").as_json(), "stopped": [{"id": "1", "name": "a"}]}
    )
    for _round in range(2):
        undo(NoEngine(), journal)
    assert stopped == [["1"]]


def written_to(places: Places, tmp_path: Path, *names: str) -> tuple[Journal, list[Swap]]:
    """A restore that died after its containers were started on the new data, and were told that a write is done."""
    swaps = [swap_in(tmp_path / name) for name in names]
    journal = Journal.begin(places, "restore", ID)
    for swap in swaps:
        swap.forward()
        Path(swap.root, "db").write_text("new, and a client's write")
    journal.note("restore", record_of(places, *swaps, stage="swapping").as_json())
    return journal, swaps


def test_what_clients_wrote_to_the_new_data_is_kept_and_said(places: Places, tmp_path: Path) -> None:
    journal, (swap,) = written_to(places, tmp_path, "v")
    back, sentence = undo(NoEngine(), journal)
    assert back == "Brought the old data of the volume v back."
    assert f"is kept in {swap.beside} until " in sentence
    (entry,) = kept.load(places)
    assert (entry.path, entry.snapshot) == (swap.beside, "5f0c")
    assert entry.until - entry.created == kept.LEAST_KEPT_S
    assert Path(swap.beside, "new/db").read_text() == "new, and a client's write"
    kept.purge_expired(places)
    (move,) = [Move(move.live, move.old, move.new, True, True) for move in entry.swap.moves]
    Swap("v", "v", swap.root, swap.beside, [move]).forward()  # as undo of the command has it
    assert Path(swap.root, "db").read_text() == "new, and a client's write"
    assert Path(swap.beside, "old/db").read_text() == "old"


def test_as_long_as_the_restore_would_have_kept_the_old_data(places: Places, tmp_path: Path) -> None:
    journal, _swaps = written_to(places, tmp_path, "v")
    journal.note("restore", {"keep_seconds": 7 * kept.LEAST_KEPT_S})
    undo(NoEngine(), journal)
    (entry,) = kept.load(places)
    assert entry.until - entry.created == 7 * kept.LEAST_KEPT_S


@pytest.mark.parametrize("dies_in", ["back", "note", "save", "remove_tree"])
def test_what_clients_wrote_is_kept_though_the_undo_dies_too(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    journal, swaps = written_to(places, tmp_path, "one", "two")
    for swap in swaps:
        (Path(swap.beside) / "meta").mkdir()
    where = {"back": Swap, "note": Journal, "save": kept, "remove_tree": undoing}[dies_in]
    act, done = getattr(where, dies_in), []

    def dying(*arguments: object) -> object:
        if len(done) == 1:  # the second time, before it
            raise KeyboardInterrupt
        done.append(act(*arguments))
        if dies_in == "save":  # after it
            raise KeyboardInterrupt
        return done[-1]

    with monkeypatch.context() as patched:
        patched.setattr(where, dies_in, dying)
        with pytest.raises(KeyboardInterrupt):
            undo(NoEngine(), journal)
    found = Journal.load(places)
    assert found is not None
    undo(NoEngine(), found)
    assert sorted(entry.path for entry in kept.load(places)) == sorted(swap.beside for swap in swaps)
    for swap in swaps:
        assert Path(swap.root, "db").read_text() == "old"
        assert Path(swap.beside, "new/db").read_text() == "new, and a client's write"
        assert os.listdir(swap.beside) == ["new"]


def test_the_stores_that_were_not_in_yet_are_kept_with_those_that_were(places: Places, tmp_path: Path) -> None:
    journal, (one, two) = written_to(places, tmp_path, "one", "two")
    os.rename(two.root, Path(two.beside) / "new")  # as if it had died between two volumes
    os.rename(Path(two.beside) / "old", two.root)
    undo(NoEngine(), journal)
    assert [entry.path for entry in kept.load(places)] == [one.beside, two.beside]


class OneVolume(NoEngine):
    def __init__(self, place: str):
        super().__init__()
        self.place = place
        self.removed: list[str] = []

    def inspect_volume(self, name: str) -> dict[str, object]:
        return {"Name": name, "Options": {}, "Mountpoint": self.place}

    def remove_volume(self, name: str) -> None:
        self.removed.append(name)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_volume_that_the_restore_made_stays_with_what_is_kept_of_it(
    places: Places, tmp_path: Path, swapped: bool
) -> None:
    """Docker removes the directory of a volume with all that is in it."""
    swap = swap_in(tmp_path / "v")
    os.unlink(Path(swap.root) / "db")
    if swapped:
        swap.forward()
    journal = Journal.begin(places, "restore", ID)
    record = record_of(places, swap, stage="swapping")
    journal.note("restore", {**record.as_json(), "created": ["v"]})
    engine = OneVolume(swap.root)
    undo(engine, journal)
    assert engine.removed == ([] if swapped else ["v"])
    assert os.path.lexists(swap.beside) == swapped
