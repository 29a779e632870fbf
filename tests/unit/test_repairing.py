# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Repairing a restored tree that is hostile: whatever lies in it, nothing outside of it changes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import repairing
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.inside import Inside
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.listing import Entry
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repairing import repair

OWNER = os.getuid(), os.getgid()
ROOT = Entry("", "dir", 0o755, *OWNER, 5)
DIRECTORY = Entry("a", "dir", 0o755, *OWNER, 5)
LONG_AGO = 1_000_000_000


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host that nothing may reach."""
    place = tmp_path / "host"
    place.mkdir()
    (place / "passwd").write_text("of the host")
    (place / "passwd").chmod(0o600)
    with (place / "zeros").open("wb") as out:
        out.write(bytes(1 << 20))
    (place / "below").mkdir(mode=0o700)
    for path in (place / "passwd", place / "zeros", place / "below", place):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return place


@pytest.fixture
def tree(tmp_path: Path, host: Path) -> Path:
    """A restored tree in which a directory is a link to that of the host."""
    place = tmp_path / "ours" / "new"
    place.mkdir(parents=True)
    (place / "a").symlink_to(host)
    return place


def state(host: Path) -> object:
    """All but the times of access."""
    found = {}
    for path in [host, *sorted(host.iterdir())]:
        about = path.lstat()
        numbers = about.st_mode, about.st_nlink, about.st_uid, about.st_mtime_ns, about.st_ctime_ns, about.st_blocks
        found[str(path)] = numbers, path.is_file() and path.read_bytes()
    return found


def write(tmp_path: Path, entries: Sequence[Entry]) -> str:
    lines = [json.dumps({"listing": 1, "volumes": ["v"]}), *(entry.to_line("v") for entry in entries)]
    (tmp_path / "listing").write_text("\n".join([*lines, json.dumps({"entries": len(entries)})]) + "\n")
    return str(tmp_path / "listing")


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("a/passwd", "file", 0o666, *OWNER, 7, 11)],
        [Entry("a/passwd", "file", 0o600, *OWNER, 7, 11, xattrs={"user.more": b"x"})],
        [Entry("a/zeros", "file", 0o644, *OWNER, LONG_AGO, 1 << 20, allocated=0)],
        [Entry("a/below", "dir", 0o777, *OWNER, 7)],
        [Entry("a/empty", "file", 0o644, *OWNER, 7)],
        [Entry("a/made", "dir", 0o755, *OWNER, 7)],
        [Entry("a/pipe", "fifo", 0o644, *OWNER, 7)],
        [Entry("a/link", "link", 0o777, *OWNER, 7, target="passwd")],
        [Entry("a/passwd", "file", 0o600, *OWNER, 7, 11, group=1), Entry("b", "file", 0o644, *OWNER, 7, 11, group=1)],
        [Entry("b", "file", 0o644, *OWNER, 7, 11, group=1), Entry("a/passwd", "file", 0o600, *OWNER, 7, 11, group=1)],
    ],
    ids=["mode", "attribute", "holes", "directory", "empty", "made", "pipe", "link", "leader", "name"],
)
def test_a_link_in_place_of_a_directory_leads_nowhere(
    tmp_path: Path, tree: Path, host: Path, entries: list[Entry]
) -> None:
    (tree / "b").write_text("of the host")
    before = state(host)
    with pytest.raises(StackError, match="cannot be made exact: a/"):
        repair(str(tree), write(tmp_path, [ROOT, DIRECTORY, *entries]), "v")
    assert state(host) == before
    assert not (tree / "b").samefile(host / "passwd")


@pytest.mark.parametrize("path", ["../host/passwd", "a/../../host/passwd", "/etc/passwd", "a//passwd", "./b", "a/"])
def test_a_listing_with_a_path_that_leads_out_is_damaged(tmp_path: Path, tree: Path, host: Path, path: str) -> None:
    before = state(host)
    (tree / "a").unlink()
    (tree / "a").mkdir()
    with pytest.raises(StackError, match="is cut off or damaged"):
        repair(str(tree), write(tmp_path, [ROOT, DIRECTORY, Entry(path, "file", 0o666, *OWNER, 7, 11)]), "v")
    assert state(host) == before
    with Inside(str(tree)) as inside, pytest.raises(ValueError, match="is not a path inside a tree"):
        inside.place(path)


@pytest.mark.parametrize("harm", ["mode", "holes", "contents"])
def test_what_becomes_a_link_while_it_is_repaired_is_not_followed(
    tmp_path: Path, tree: Path, host: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """As a container can do it that has the mount point in which the tree lies."""
    (tree / "a").unlink()
    for name in ("a", "b"):
        with (tree / name).open("wb") as out:
            out.write(bytes(1 << 20))
    to = {"mode": "passwd", "holes": "zeros", "contents": "zeros"}[harm]
    step = {"mode": "_set_mode", "contents": "_same_contents"}.get(harm, "")
    entry = Entry("a", "file", 0o666, *OWNER, 7, 1 << 20)
    entries = {
        "mode": [entry],
        "holes": [replace(entry, allocated=0)],
        "contents": [replace(entry, path="b", group=1), replace(entry, group=1)],
    }[harm]

    def becomes_a_link(act: Callable[..., object]) -> Callable[..., object]:
        def acting(*arguments: object, **more: object) -> object:
            (tree / "a").unlink(missing_ok=True)
            (tree / "a").symlink_to(host / to)
            return act(*arguments, **more)

        return acting

    if harm == "holes":
        (tree / "b").unlink()
        monkeypatch.setattr(Inside, "open", becomes_a_link(Inside.open))
    else:
        monkeypatch.setattr(repairing, step, becomes_a_link(getattr(repairing, step)))
    before = state(host)
    with pytest.raises(StackError, match=r"cannot be made exact: a|is not what was captured: a: kind"):
        repair(str(tree), write(tmp_path, [ROOT, *entries]), "v")
    assert state(host) == before
