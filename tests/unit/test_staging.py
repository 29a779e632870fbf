# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Staging from run to run: a run of some volumes neither drops the copies of others nor hands them to restic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.staging import Staging


def run(staging: Staging, keys: Sequence[str], whole: bool) -> dict[str, str]:
    """What a backup of these volumes finds of earlier ones, and leaves."""
    staging.prepare(keys, whole)
    found = {}
    for key in keys:
        copy = Path(staging.volume(key), "copy")
        if copy.exists():
            found[key] = copy.read_text()
        else:
            copy.parent.mkdir()
            copy.write_text(f"of {key}")
            Path(staging.index(key)).write_text("{}")
    assert sorted(each.name for each in Path(staging.volumes).iterdir()) == sorted(keys)
    return found


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    made = Staging(str(tmp_path / "staging"))
    run(made, ["a", "b"], whole=True)
    return made


def test_a_run_of_some_volumes_leaves_the_copies_of_the_others(staging: Staging) -> None:
    assert run(staging, ["a"], whole=False) == {"a": "of a"}
    assert Path(staging.index("b")).exists()
    assert run(staging, ["b"], whole=False) == {"b": "of b"}
    assert run(staging, ["a", "b"], whole=True) == {"a": "of a", "b": "of b"}


def test_a_run_of_all_removes_what_the_project_has_no_more(staging: Staging) -> None:
    run(staging, ["a"], whole=False)
    run(staging, ["a", "c"], whole=True)
    assert not Path(staging.index("b")).exists()
    assert run(staging, ["a", "b", "c"], whole=True) == {"a": "of a", "c": "of c"}


def test_a_run_that_keeps_no_copy_removes_its_own_only(staging: Staging) -> None:
    run(staging, ["a"], whole=False)
    staging.discard(["a"])
    assert run(staging, ["a", "b"], whole=True) == {"b": "of b"}
    staging.discard(["a", "b"])
    assert not Path(staging.root).exists()


def test_a_copy_that_is_there_wins_over_one_that_rests(staging: Staging) -> None:
    """As where a run died; both are of the same volume, and the index vouches for nothing that changed since."""
    run(staging, ["a"], whole=False)
    Path(staging.volume("b")).mkdir()
    Path(staging.volume("b"), "copy").write_text("newer")
    assert run(staging, ["a"], whole=False) == {"a": "of a"}
    assert run(staging, ["a", "b"], whole=True) == {"a": "of a", "b": "newer"}
