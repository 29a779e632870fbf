# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What changes while a tree is read: an error in the freeze, and none before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import passing
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    return made


def mirror_of(source: Path, **options: Any) -> Mirror:
    return Mirror(str(source), str(source.parent / "copy"), str(source.parent / "index.json"), **options)


def write_at(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


MEANWHILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "vanishes": (lambda root: (root / "z-last").unlink(), "z-last in {} vanished while it was read: "),
    "grows": (
        lambda root: write_at(root / "file", 80_000, b"more"),
        "file in {} changed while it was read (size, mtime, ctime): something writes that was not paused.",
    ),
    "is written": (
        lambda root: write_at(root / "file", 0, b"new"),
        "file in {} changed while it was read (mtime, ctime): ",
    ),
}


@pytest.mark.parametrize("event", MEANWHILE)
def test_a_change_while_reading(source: Path, event: str) -> None:
    """It is an error in the freeze, and none before."""
    change, sentence = MEANWHILE[event]
    for name in ("file", "z-last"):
        (source / name).write_bytes(b"content" * 9999)
    order = os.listdir(source)
    if event == "vanishes" and order[0] != "file":
        os.rename(source / "z-last", source / "swap")
        os.rename(source / "file", source / "z-last")
        os.rename(source / "swap", source / "file")
    pending = [change]

    def on_bytes(count: int) -> None:
        assert count > 0
        if pending:
            pending.pop()(source)

    one = mirror_of(source, on_bytes=on_bytes)
    one.live_pass()
    one.frozen_pass()
    assert one.verify() == []
    for name in ("file", "z-last"):
        (source / name).write_bytes(b"content" * 9999)
    pending.append(change)
    with pytest.raises(StackError) as raised:
        one.frozen_pass()
    assert str(raised.value).startswith(sentence.format(source))
    assert one.frozen_pass().files == len(os.listdir(source))
    assert one.verify() == []


@pytest.mark.parametrize(("before", "after"), [("file", "directory"), ("directory", "file"), ("pipe", "file")])
def test_a_name_that_becomes_something_else_between_listing_and_reading(
    source: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    make: dict[str, Callable[[Path], object]] = {"file": Path.touch, "directory": Path.mkdir, "pipe": os.mkfifo}
    changing = source / "changing"
    make[before](changing)
    listed = os.scandir

    @contextmanager
    def scandir(directory: Any) -> Iterator[Any]:
        with listed(directory) as listing:
            entries = list(listing)
        if pending and "changing" in {entry.name for entry in entries}:
            pending.clear()
            remove_any(changing)
            make[after](changing)
        yield iter(entries)

    pending = ["once"]
    monkeypatch.setattr(passing.os, "scandir", scandir)
    one = mirror_of(source)
    one.live_pass()
    monkeypatch.undo()
    one.frozen_pass()
    assert one.verify() == []


def remove_any(path: Path) -> None:
    path.rmdir() if path.is_dir() else path.unlink()
