# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""While restic fetches, what has come is written out: data of large files, no holes, nothing from outside the tree."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
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
        return Writeback(str(self.listing), str(self.volumes))

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
    told = next(entry for entry in listing.read(str(fetched.listing), "v") if entry.path == "holes")
    assert len(told.holes) == 3
    large = [(at, length) for at, length in writeback.data_pieces(told) if length >= MIB]
    assert len(large) == 2
    wanted = fetched.of("plain", (0, 2 * MIB)) + fetched.of("holes", *large)
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


def test_in_slices_that_nobody_waits_for_at_the_end(
    fetched: Fetched, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writeback, "_AT_ONCE", MIB)
    fetched.capture("plain", (0, b"x" * (3 * MIB + 5)))
    fetched.write_listing()
    fetched.restore("plain")
    begin = writeback.begin_writing
    left = threading.Event()

    def slow(file: int, offset: int, length: int) -> None:
        begin(file, offset, length)
        if len(begun) == 6:  # in the second round
            left.wait(SOON_S)

    monkeypatch.setattr(writeback, "begin_writing", slow)
    with fetched.writeback() as work:
        soon(lambda: len(begun) == 4)
        assert begun == fetched.of("plain", (0, MIB), (MIB, MIB), (2 * MIB, MIB), (3 * MIB, 5))
        os.utime(fetched.tree / "plain")  # as restic does at the end
        soon(lambda: len(begun) == 6)
        work._over.set()
        left.set()
    assert len(begun) == 6


def test_a_listing_that_is_not_there_in_whole_yet(
    fetched: Fetched, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    whole = fetched.write_listing()
    read: list[str] = []
    really = listing.read

    def noted(file: str, key: str | None = None) -> Iterator[listing.Entry]:
        read.append(file)
        return really(file, key)

    monkeypatch.setattr(listing, "read", noted)
    fetched.restore("plain")
    with fetched.writeback():
        for part in (whole[:-20], whole[: whole.rindex(b'{"entries"')]):
            fetched.listing.write_bytes(part)
            rounds()
        assert read == []
        fetched.listing.write_bytes(bytes(100) + whole[100:])  # the beginning comes last
        rounds()
        assert (bool(read), begun) == (True, [])
        fetched.listing.write_bytes(whole)
        soon(lambda: len(begun) == 1)


@pytest.mark.parametrize("most", [0, -1])
def test_one_that_is_very_long_is_left_alone(
    fetched: Fetched, begun: Begun, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    monkeypatch.setattr(writeback, "_MOST_LISTED", len(fetched.write_listing()) + most)
    fetched.restore("plain")
    with fetched.writeback():
        rounds()
    assert len(begun) == 1 + most


def link(place: Path, outside: Path) -> None:
    place.symlink_to(outside)


def pipe(place: Path, _outside: Path) -> None:
    os.mkfifo(place)


def device(place: Path, _outside: Path) -> None:
    os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero


@pytest.mark.parametrize("make", [link, pipe, device])
def test_what_is_no_file_is_not_opened(
    fetched: Fetched, begun: Begun, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    fetched.capture("odd", (0, b"x" * 2 * MIB))
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.write_listing()
    (tmp_path / "outside").write_bytes(b"x" * 2 * MIB)
    fetched.restore("plain")
    make(fetched.tree / "odd", tmp_path / "outside")
    with fetched.writeback():
        rounds()
    assert begun == fetched.of("plain", (0, 2 * MIB))


@pytest.mark.parametrize("make", [link, pipe, device])
def test_nor_a_listing_that_is_none(
    fetched: Fetched, begun: Begun, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.write_listing()
    fetched.restore("plain")
    fetched.listing.rename(tmp_path / "outside")
    make(fetched.listing, tmp_path / "outside")
    with fetched.writeback():
        rounds()
    assert begun == []
    with pytest.raises(StackError, match="cannot be read"):
        list(listing.read(str(fetched.listing)))


@pytest.mark.parametrize(("code", "told"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.EINVAL, False)])
def test_what_the_disk_refuses_is_told(
    fetched: Fetched, monkeypatch: pytest.MonkeyPatch, begun: Begun, code: int, told: bool
) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.write_listing()
    fetched.restore("plain")
    asked: list[int] = []

    def refuse(file: int, _offset: int, _length: int) -> None:
        asked.append(file)
        raise OSError(code, os.strerror(code))

    def run() -> None:
        with fetched.writeback():
            soon(lambda: len(asked) > 1)

    monkeypatch.setattr(writeback, "begin_writing", refuse)
    if told:
        with pytest.raises(StackError, match=r"What was fetched of v cannot be written out \(plain: .*\); check"):
            run()
    else:
        run()


def test_what_nobody_expected_ends_no_restore(fetched: Fetched, monkeypatch: pytest.MonkeyPatch, begun: Begun) -> None:
    fetched.capture("plain", (0, b"x" * 2 * MIB))
    fetched.write_listing()
    fetched.restore("plain")
    asked: list[str] = []

    def fail(file: str) -> bool:
        asked.append(file)
        raise RecursionError

    monkeypatch.setattr(writeback, "_is_whole", fail)
    with fetched.writeback():
        soon(lambda: len(asked) > 1)


def test_an_error_of_the_fetch_is_passed_on(fetched: Fetched) -> None:
    with pytest.raises(StackError, match="no room"), fetched.writeback():
        raise StackError("no room")
