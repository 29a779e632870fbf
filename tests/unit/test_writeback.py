# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""While restic fetches, what has come is written out: data of large files, no holes, nothing from outside the tree."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import listing
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import writeback
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.writeback import Writeback

MIB = 1 << 20
SOON_S = 10.0
Begun = list[tuple[str, int, int]]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """(path, offset, length) of what the kernel was really asked to write."""
    calls: Begun = []
    really = writeback.begin_writing

    def begin(file: int, offset: int, length: int) -> None:
        really(file, offset, length)
        calls.append((os.readlink(f"/proc/self/fd/{file}"), offset, length))

    monkeypatch.setattr(writeback, "begin_writing", begin)
    monkeypatch.setattr(writeback, "_EVERY_S", 0.01)
    return calls


class Fetched:
    """A captured volume "v", its listing, and the directory in which restic makes it again."""

    def __init__(self, root: Path):
        self.captured, self.listing, self.volumes = root / "captured/v", root / "listing", root / "volumes"
        self.captured.mkdir(parents=True)
        self.tree = self.volumes / "v"

    def capture(self, name: str, *data: tuple[int, bytes], size: int = 0) -> None:
        with open(self.captured / name, "wb") as file:
            for offset, what in data:
                file.seek(offset)
                file.write(what)
            file.truncate(max(size, file.tell()))

    def write_listing(self) -> bytes:
        listing.write(str(self.captured.parent), ["v"], str(self.listing))
        return self.listing.read_bytes()

    def restore(self, *names: str) -> None:
        self.tree.mkdir(parents=True, exist_ok=True)
        for name in names:
            (self.tree / name).write_bytes((self.captured / name).read_bytes())

    def writeback(self) -> Writeback:
        return Writeback(str(self.listing), str(self.volumes), ["v"])

    def of(self, name: str, *pieces: tuple[int, int]) -> Begun:
        return [(str(self.tree / name), offset, length) for offset, length in pieces]


@pytest.fixture
def fetched(tmp_path: Path) -> Fetched:
    return Fetched(tmp_path)


def soon(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def rounds() -> None:
    time.sleep(0.2)  # some twenty of them


def test_data_between_holes_in_pieces_that_are_large(fetched: Fetched, begun: Begun) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.capture("holes", (0, b"x" * MIB), (4 * MIB, b"y" * 4096), (6 * MIB, b"z" * 2 * MIB), size=16 * MIB)
    fetched.capture("small", (0, b"x" * 4096))
    fetched.write_listing()
    fetched.restore("plain", "holes", "small")
    wanted = fetched.of("plain", (0, 2 * MIB)) + fetched.of("holes", (0, MIB), (6 * MIB, 2 * MIB))
    with fetched.writeback():
        soon(lambda: len(begun) >= len(wanted))
        rounds()
    assert sorted(begun) == sorted(wanted)  # each once, as nothing was written meanwhile


def test_what_has_grown_once_more(fetched: Fetched, begun: Begun) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.write_listing()
    with fetched.writeback():
        rounds()
        fetched.restore("plain")
        soon(lambda: len(begun) >= 1)
        rounds()
        before = len(begun)
        with open(fetched.tree / "plain", "r+b") as file:
            file.write(b"y")
        soon(lambda: len(begun) > before)


def test_a_listing_that_is_not_there_in_whole_yet(fetched: Fetched, begun: Begun) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    whole = fetched.write_listing()
    fetched.listing.write_bytes(whole[:-20])
    fetched.restore("plain")
    with fetched.writeback():
        rounds()
        fetched.listing.write_bytes(bytes(100) + whole[100:])  # the beginning comes last
        rounds()
        assert begun == []
        fetched.listing.write_bytes(whole)
        soon(lambda: len(begun) == 1)


def test_one_that_is_very_long_is_left_alone(fetched: Fetched, begun: Begun, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    monkeypatch.setattr(writeback, "_MOST_LISTED", len(fetched.write_listing()) - 1)
    fetched.restore("plain")
    with fetched.writeback():
        rounds()
    assert begun == []


def test_a_link_leads_nowhere(fetched: Fetched, begun: Begun, tmp_path: Path) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.write_listing()
    (tmp_path / "outside").write_bytes(b"x" * 2 * MIB)
    fetched.restore()
    (fetched.tree / "plain").symlink_to(tmp_path / "outside")
    with fetched.writeback():
        rounds()
    assert begun == []


def test_what_fails_is_left_to_the_flush_at_the_end(
    fetched: Fetched, monkeypatch: pytest.MonkeyPatch, begun: Begun
) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.write_listing()
    fetched.restore("plain")
    asked: list[int] = []

    def refuse(file: int, _offset: int, _length: int) -> None:
        asked.append(file)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(writeback, "begin_writing", refuse)
    with fetched.writeback():
        soon(lambda: len(asked) > 1)


def test_an_error_of_the_fetch_is_passed_on(fetched: Fetched) -> None:
    with pytest.raises(StackError, match="no room"), fetched.writeback():
        raise StackError("no room")
