# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""state=absent: what is refused, and what goes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.absent import (
    apply_absent,
    describe_absent,
    plan_absent,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError


def test_what_is_used_is_refused_with_the_names_of_its_users(engine: Any) -> None:
    engine.add("ab")
    engine.use({"ab": "/data"}, name="one")
    engine.use({"ab": "/data"}, name="two", state="exited")
    with pytest.raises(StackError, match=r"volume ab: is used by one \(running\), two \(exited\); remove"):
        plan_absent(engine, ["ab"])


@pytest.mark.parametrize("bound", [False, True])
def test_what_is_not_empty_is_refused_with_how_much_is_in_it(engine: Any, tmp_path: Path, bound: bool) -> None:
    volume = engine.add_path("ab", tmp_path) if bound else engine.add("ab")
    place = tmp_path / "data" if bound else Path(volume["Mountpoint"])
    place.mkdir(exist_ok=True)
    (place / "one").write_bytes(b"x" * 2048)
    (place / "two").write_bytes(b"x" * 1024)
    engine.add("first")
    with pytest.raises(StackError, match=r"is not empty, .* holds 2 files with 3 KiB"):
        plan_absent(engine, ["first", "ab"])
    assert "remove first" not in engine.calls


def test_what_cannot_be_seen_is_refused(engine: Any) -> None:
    engine.add("ab", options={"type": "nfs", "o": "addr=192.0.2.1", "device": ":/x"})
    with pytest.raises(StackError, match=r"nobody can say whether it is empty.*NFS at :/x"):
        plan_absent(engine, ["ab"])
    engine.docker_host = "tcp://192.0.2.1:2376"
    engine.add("cd")
    with pytest.raises(StackError, match="nobody can say whether it is empty"):
        plan_absent(engine, ["cd"])


def test_empty_ones_go_and_their_directories_stay(engine: Any, tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "directories" / "only").mkdir(parents=True)
    engine.add_path("bound", place)
    engine.add("managed")
    plan = plan_absent(engine, ["bound", "gone", "managed"])
    told = (plan.changed, plan.actions, plan.diff, describe_absent(plan))
    assert engine.calls == ["volumes", "containers"]
    apply_absent(plan)
    assert engine.known == {}
    assert place.is_dir()
    assert plan.actions == [f"remove volume bound; its host directory {place} is left", "remove volume managed"]
    assert describe_absent(plan) == [
        {"name": "bound", "removed": True, "directory_left": str(place)},
        {"name": "gone", "removed": False, "directory_left": None},
        {"name": "managed", "removed": True, "directory_left": None},
    ]
    assert plan.diff["before"]["volumes"]["managed"]["driver"] == "local"
    assert plan.diff["after"]["volumes"] == {"bound": None, "managed": None}
    assert (plan.changed, plan.actions, plan.diff, describe_absent(plan)) == told
    assert not plan_absent(engine, ["bound", "gone", "managed"]).changed


def test_a_volume_whose_directory_is_gone_can_go(engine: Any) -> None:
    shutil.rmtree(engine.add("ab")["Mountpoint"])
    assert plan_absent(engine, ["ab"]).changed
