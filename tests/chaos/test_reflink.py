# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole backups where volumes and staging share blocks, on a real XFS; and what check mode says of other places."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from loop_device import mounted
from restore_stack import PROJECT, Stack

MIB = 1 << 20
ON_XFS = [{"name": "place"}, {"name": "disk"}]
LARGE = 8 * MIB


@pytest.fixture(scope="module")
def sharing(image: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with mounted(tmp_path_factory.mktemp("xfs") / "image", "xfs") as place:
        stack = Stack(place / "om")
        stack.clean()
        stack.directory.mkdir()
        stack.make()
        yield stack
        stack.clean()


def run(stack: Stack, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
    where = str(stack.directory / "repository"), str(stack.password)
    options = {"state_dir": str(stack.state), "volumes": ON_XFS, **asked}
    found: dict[str, Any] = backup.run(BackupRequest(PROJECT, *where, **options), stack.engine, Progress(), check_mode)
    return found


def test_nothing_is_read_and_what_changed_is_told(sharing: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose_health, "_STABLE_SECONDS", 0.3)
    large = sharing.root("place") / "large"
    large.write_bytes(os.urandom(LARGE))
    first = run(sharing, capture="reflink")
    assert (first["way"], first["bytes_read"]) == ("reflink", 0)
    assert LARGE <= first["bytes_changed"] < LARGE + MIB
    with large.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(os.urandom(MIB))
    second = run(sharing)
    assert (second["way"], second["bytes_read"]) == ("reflink", 0)
    assert 1 <= second["files_read"] < first["files_read"]
    assert 1 <= second["files_changed"] < second["files_stored"]
    assert MIB <= second["bytes_changed"] < 2 * MIB
    kept = sharing.trees()
    large.write_bytes(b"lost")
    sharing.restore(snapshot=second["snapshot_id"])
    assert sharing.trees() == kept


def everything(stack: Stack) -> list[str]:
    return sorted(str(place) for place in stack.directory.rglob("*") if "/data" not in str(place))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "reflink": ({"capture": "reflink", "volumes": None}, "capture is reflink, but the volume omrest_d"),
    "room": ({"staging_dir": "{small}"}, r"no room for staging at .*: needed .*, free .*, missing .*; make room"),
    "password": ({}, "password"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_check_mode_refuses_what_a_run_would(sharing: Stack, tmp_path: Path, why: str) -> None:
    asked, says = REFUSED[why]
    run(sharing)  # there is a repository
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], check=True)
    right = sharing.password.read_text()
    try:
        asked = {name: str(small) if value == "{small}" else value for name, value in asked.items()}
        if why == "password":
            sharing.password.write_text("wrong")
        before = everything(sharing), sharing.running()
        for check_mode in (True, False):
            with pytest.raises(StackError, match=says) as found:
                run(sharing, check_mode, **asked)
            assert "\n" not in str(found.value)
            if check_mode:
                assert (everything(sharing), sharing.running(), os.listdir(small)) == (*before, [])
    finally:
        sharing.password.write_text(right)
        subprocess.run(["umount", small], check=True)
