# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counting, compared with du and find."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.sizes import is_empty, measure

LATER = time.monotonic() + 1000


def test_hard_links_count_once_and_holes_are_not_allocated(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "data").write_bytes(os.urandom(300_000))
    os.link(tmp_path / "deep" / "er" / "data", tmp_path / "again")
    with open(tmp_path / "sparse", "wb") as stream:
        stream.truncate(50_000_000)
    (tmp_path / "link").symlink_to("/etc")
    size = measure(str(tmp_path), LATER)
    command = ["find", tmp_path, "!", "-type", "d", "!", "-name", "again", "-printf", "%s %b\n"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert size.files == len(found) == 3
    assert size.bytes == sum(int(line.split()[0]) for line in found) == 300_000 + 50_000_000 + len("/etc")
    assert size.allocated_bytes == sum(int(line.split()[1]) for line in found) * 512 < 400_000
    assert size.complete


def test_the_deadline_ends_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    size = measure(str(tmp_path), time.monotonic() - 1)
    assert (size.files, size.complete) == (0, False)


def test_what_vanishes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "file").write_text("x")
    scandir = os.scandir

    def vanishing(path: str) -> Any:
        if path.endswith("gone"):
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    size = measure(str(tmp_path), LATER)
    assert (size.files, size.complete) == (1, True)


def test_empty_is_without_files_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "lost+found" / "deep").mkdir(parents=True)
    assert is_empty(str(tmp_path))
    (tmp_path / "lost+found" / "deep" / "link").symlink_to("nowhere")
    assert not is_empty(str(tmp_path))
