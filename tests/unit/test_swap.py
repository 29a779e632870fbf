# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The swap on real directories: killed at every step, the way back gives the tree that was there, byte for byte."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import swap
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.swap import (
    Move,
    Root,
    Swap,
    in_root_moves,
)

BESIDE = ".openmemory-stack-20261125t021500-3fa9c1"


class Killed(BaseException):
    """Nobody catches it, as nobody catches kill -9."""


def fill(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        place = root / name.replace("__", "/").replace("_dot_", ".")
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)


def tree(root: Path) -> dict[str, Any]:
    """Everything below and the directory itself: mode, time, attributes, and what is in it."""
    found: dict[str, Any] = {}
    for place in [root, *sorted(root.rglob("*"))] if root.exists() else []:
        about = place.lstat()
        content = place.read_bytes() if place.is_file() else None
        attributes = {name: os.getxattr(place, name) for name in os.listxattr(place)}
        # the time of a directory moves when something is renamed in it, and only its own volume root's matters
        time = about.st_mtime_ns if content is not None else None
        found[str(place.relative_to(root))] = (about.st_mode, about.st_uid, time, content, attributes)
    return found


def whole(top: Path) -> Swap:
    """A volume's directory changes places with another one."""
    live, beside = top / "volumes/v/_data", top / "volumes/v" / ".openmemory-restore-x"
    fill(live, db="old", sub__file="old too")
    live.chmod(0o2750)
    fill(beside / "new", db="new", other="more")
    move = Move(str(live), str(beside / "new"), str(beside / "old"), True, True)
    return Swap("v", "v", str(live), str(beside), [move])


def not_there(top: Path) -> Swap:
    """The volume has lost its directory."""
    made = whole(top)
    os.rename(made.root, top / "lost")
    move = made.moves[0]
    return Swap("v", "v", made.root, made.beside, [Move(move.live, move.new, move.old, False, True)])


def in_root(top: Path) -> Swap:
    """The volume's directory is a mount point, and stays."""
    root = top / "mnt"
    beside = root / BESIDE
    fill(root, same="old", gone="old", sub__file="old")
    fill(root / ".openmemory-stack-20260101t000000-aaaaaa", kept="kept by an earlier restore")
    fill(beside / "new", same="new", added="new", sub__other="new")
    (beside / "old").mkdir()
    os.setxattr(root, "user.is", b"old")
    root.chmod(0o750)
    (beside / "new").chmod(0o711)
    moves = in_root_moves(str(root), str(beside / "new"), str(beside / "old"))
    return Swap("v", "v", str(root), str(beside), moves, Root.read(str(root)), Root.read(str(beside / "new")))


def one_path(top: Path) -> Swap:
    """A database with its side files: those of the snapshot come, those of the live one go."""
    live, beside = top / "volumes/v/_data", top / "volumes/v/.openmemory-restore-x"
    fill(live, db="old", **{"db-wal": "stale", "db-shm": "stale", "other": "stays"})
    fill(beside / "new", db="new", **{"db-journal": "pending"})
    (beside / "old").mkdir()
    moves = []
    for name in ("db", "db-journal", "db-wal", "db-shm"):
        new = beside / "new" / name
        moves.append(Move(str(live / name), str(new), str(beside / "old" / name), (live / name).exists(), new.exists()))
    return Swap("v", "v", str(live), str(beside), moves)


SHAPES: list[Callable[[Path], Swap]] = [whole, not_there, in_root, one_path]


@contextmanager
def killed_at(step: int, before: bool) -> Iterator[list[str]]:
    """Dies before or after the rename (or change of the root) number step, counted from 0."""
    done: list[str] = []
    patch = pytest.MonkeyPatch()
    rename, apply = os.rename, Root.apply

    def die_around(name: str, act: Callable[[], None]) -> None:
        if len(done) == step and before:
            raise Killed
        act()
        done.append(name)
        if len(done) == step + 1:
            raise Killed

    with patch.context() as patched:
        patched.setattr(swap.os, "rename", lambda one, two: die_around(two, lambda: rename(one, two)))
        patched.setattr(Root, "apply", lambda self, path: die_around(path, lambda: apply(self, path)))
        yield done


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_puts_new_data_in_and_keeps_the_old(tmp_path: Path, shape: Callable[[Path], Swap]) -> None:
    made = shape(tmp_path)
    wanted = {move.live: tree(Path(move.new)) for move in made.moves if move.has_new}
    kept = {move.old: tree(Path(move.live)) for move in made.moves if move.had_live}
    made.forward()
    assert {move.live: tree(Path(move.live)) for move in made.moves if move.has_new} == wanted
    assert {move.old: tree(Path(move.old)) for move in made.moves if move.had_live} == kept
    assert not [move.live for move in made.moves if not move.has_new and os.path.lexists(move.live)]
    if made.after is not None:
        assert Root.read(made.root) == made.after


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_at_every_step_the_way_back_gives_what_was_there(
    tmp_path: Path, shape: Callable[[Path], Swap], before: bool
) -> None:
    step = 0
    while True:
        top = tmp_path / str(step)
        made = shape(top)
        was, root = tree(top), Root.read(made.root) if made.before else None
        try:
            with killed_at(step, before) as done:
                made.forward()
        except Killed:
            pass
        else:
            break
        found = Swap.from_json(json.loads(json.dumps(made.as_json())))  # as the next run reads it from the journal
        assert found == made
        assert found.back() == any(not name.endswith("mnt") for name in done)
        assert tree(top) == was
        assert not found.back()  # once more does nothing
        assert tree(top) == was
        assert root is None or Root.read(made.root) == root
        step += 1
    assert step == len([move for move in made.moves if move.had_live]) + len(
        [move for move in made.moves if move.has_new]
    ) + (made.after is not None)


@pytest.mark.parametrize("shape", SHAPES)
def test_killed_on_the_way_back_too(tmp_path: Path, shape: Callable[[Path], Swap]) -> None:
    step = 0
    while True:
        top = tmp_path / str(step)
        made = shape(top)
        was = tree(top)
        made.forward()
        try:
            with killed_at(step, before=False):
                made.back()
        except Killed:
            pass
        else:
            break
        made.back()
        assert tree(top) == was
        step += 1
    assert step >= len([move for move in made.moves if move.has_new])


def test_what_somebody_made_in_between_is_neither_lost_nor_taken_for_data(tmp_path: Path) -> None:
    made = whole(tmp_path)
    old = tree(Path(made.root))
    with pytest.raises(Killed), killed_at(1, before=True):  # the old is out, the new not yet in
        made.forward()
    fill(Path(made.root), surprise="made by the engine")
    assert made.back()
    assert tree(Path(made.root)) == old
    assert (Path(made.beside) / "stray-0/surprise").read_text() == "made by the engine"


def test_nothing_is_ever_replaced(tmp_path: Path) -> None:
    made = one_path(tmp_path)
    Path(made.beside, "old/db").write_text("of another restore")
    was = tree(tmp_path)
    with pytest.raises(StackError, match="is there already"):
        made.forward()
    assert tree(tmp_path) == was


def test_a_damaged_record_is_said() -> None:
    with pytest.raises(StackError, match="record of a restore is damaged"):
        Swap.from_json({"volume": "v"})


def single_path(top: Path) -> Swap:
    """One file in a directory of a volume, as a restore of a path has it."""
    root, beside = top / "volumes/v/_data", top / "volumes/v" / ".openmemory-restore-x"
    fill(root, conf__passwd="old")
    fill(beside / "new", passwd="new")
    (beside / "old").mkdir()
    move = Move(str(root / "conf/passwd"), str(beside / "new/passwd"), str(beside / "old/passwd"), True, True)
    return Swap("v", "v", str(root), str(beside), [move])


@pytest.mark.parametrize("swapped", [False, True])
def test_a_link_in_place_of_a_directory_leads_no_rename_out_of_the_volume(tmp_path: Path, swapped: bool) -> None:
    made = single_path(tmp_path)
    if swapped:
        made.forward()
    fill(tmp_path / "etc", passwd="of the host")
    conf = Path(made.root) / "conf"
    conf.rename(conf.with_name("moved"))
    conf.symlink_to(tmp_path / "etc")
    with pytest.raises(StackError, match="conf: is a link by now"):
        (made.back if swapped else made.forward)()
    assert (tmp_path / "etc/passwd").read_text() == "of the host"


MADE_SINCE = {
    whole: ("other-made", "sub/made"),
    in_root: ("made", "gone", "sub/made"),  # gone: of the old data, and made again
    one_path: ("db-wal", "db-shm"),
}


@pytest.mark.parametrize("name", ["new", "old", ""])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_link_in_place_of_a_directory_of_ours_leads_no_rename_out_of_a_mount_point(
    tmp_path: Path, name: str, swapped: bool
) -> None:
    made = in_root(tmp_path)
    if swapped:
        made.forward()
    ours = Path(made.beside, name)
    ours.rename(tmp_path / "host")
    ours.symlink_to(tmp_path / "host")
    was = tree(tmp_path / "host")
    with pytest.raises(StackError, match="is a link by now"):
        (made.back if swapped else made.forward)()
    assert tree(tmp_path / "host") == was


@pytest.mark.parametrize("shape", MADE_SINCE)
def test_what_was_made_beside_the_new_data_goes_with_it(tmp_path: Path, shape: Callable[[Path], Swap]) -> None:
    """Killed at every step of the way back, too, and never in the old data; then it can be swapped in again."""
    step = 0
    while True:
        top = tmp_path / str(step)
        made = shape(top)
        old = tree(Path(made.root))
        made.forward()
        for name in MADE_SINCE[shape]:
            fill(Path(made.root), **{name.replace("/", "__"): f"a client's {name}"})
        assert made.lived()
        killed = False
        try:
            with killed_at(step, before=False):
                made.back()
        except Killed:
            killed = True
        found = Swap.from_json(json.loads(json.dumps(made.as_json())))
        found.back()
        assert without_ours(tree(Path(made.root))) == without_ours(old)
        assert not found.lived()
        assert not found.back()
        turned = found.turned()
        assert turned.keeps_old
        assert (turned.before, turned.after) == (made.after, made.before)
        for name in MADE_SINCE[shape]:
            place = next(
                Path(move.old) / os.path.relpath(Path(made.root) / name, move.live)
                for move in turned.moves
                if move.had_live and f"{made.root}/{name}/".startswith(f"{move.live}/")
            )
            assert place.read_text() == f"a client's {name}"
        if not killed:
            break
        step += 1
    assert step >= len(MADE_SINCE[shape])


def without_ours(found: dict[str, Any]) -> dict[str, Any]:
    """The names in a volume that are not of restores."""
    return {name: about for name, about in found.items() if not name.startswith(".openmemory-") and name != "."}


def test_old_data_that_came_back_is_left_alone_whatever_is_made_in_it(tmp_path: Path) -> None:
    """The way back was done, the run died before it said so, and the engine started the containers on the old data."""
    made = in_root(tmp_path)
    made.forward()
    Path(made.root, "added").unlink()  # of the new data: its move can never be told from one that is not done
    made.back()
    fill(Path(made.root), journal="of the old data")
    now = tree(Path(made.root))
    assert not made.back()
    assert tree(Path(made.root)) == now
