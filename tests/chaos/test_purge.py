# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Purges on the real engine: refused, done, failed, and killed at every phase."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.backup import open_repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge import purge, trees
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge import undo as undoing
from ansible_collections.openmemory.stack.plugins.module_utils._core.purge.request import PurgeRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from killing import Arm, after, at_phase, killed
from restore_stack import LABELS, PATHS, PROJECT, VOLUMES, Stack

BOTH = ["omrest-app", "omrest-store"]


@pytest.fixture
def whole(image: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack that runs, with a network, and with a repository that has a snapshot of it."""
    monkeypatch.setattr(compose_health, "_STABLE_SECONDS", 0.1)
    stack = Stack(Path("/var/tmp") / PROJECT)
    stack.clean()
    forget_networks(stack)
    stack.directory.mkdir()
    stack.make()
    stack.client.create_network(f"{PROJECT}_default", labels={f"{LABELS}project": PROJECT})
    stack.snapshot = stack.backup()
    yield stack
    stack.clean()
    forget_networks(stack)


def forget_networks(stack: Stack) -> None:
    for network in stack.client.networks(filters={"label": f"{LABELS}project={PROJECT}"}):
        stack.client.remove_network(network["Id"])


def request(stack: Stack, **asked: Any) -> PurgeRequest:
    return PurgeRequest(
        **{
            "project": PROJECT,
            "confirm": PROJECT,
            "repository": str(stack.directory / "repository"),
            "password_file": str(stack.password),
            "state_dir": str(stack.state),
            **asked,
        }
    )


def run(stack: Stack, check_mode: bool = False, **asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = purge.run(request(stack, **asked), stack.engine, Progress(), check_mode)
    return found


def there(stack: Stack) -> dict[str, list[str]]:
    """What Docker and the disk have of the stack. disk is a mount point, which stays, empty."""
    own = {"label": f"{LABELS}project={PROJECT}"}
    places = sorted(entry.name for entry in stack.directory.iterdir() if entry.name not in ("repository", "password"))
    return {
        "containers": sorted(each["Names"][0] for each in stack.client.containers(all=True, filters=own)),
        "networks": sorted(each["Name"] for each in stack.client.networks(filters=own)),
        "volumes": sorted(each["Name"] for each in stack.client.volumes(filters=own)["Volumes"] or []),
        "state": sorted(entry.name for entry in stack.state.iterdir()),
        "places": places,
        "disk": sorted(entry.name for entry in (stack.directory / "disk").iterdir()),
    }


NOTHING = {"containers": [], "networks": [], "volumes": [], "state": ["cache"], "places": ["disk", "state"], "disk": []}


def snapshots(stack: Stack) -> list[tuple[str, ...]]:
    found = open_repository(request(stack).backup(), Places.of(PROJECT, str(stack.state), create=False))
    return [each.tags for each in found.snapshots(PROJECT)]


def test_confirmed_all_goes_and_the_snapshot_brings_it_back(whole: Stack) -> None:
    whole.restore()  # which keeps old data
    assert len(whole.left()) == len(VOLUMES)
    wanted, before = whole.trees(), there(whole)
    predicted = run(whole, check_mode=True, confirm="")
    assert there(whole) == before
    result = run(whole)
    assert (result["changed"], result["removed"]) == (True, predicted["removed"])
    assert result["removed"]["volumes"] == [f"{PROJECT}_{name}" for name in VOLUMES]
    assert {str(whole.directory / name) for name in PATHS} <= {*result["removed"]["paths"]}
    again = run(whole)
    assert (again["changed"], again["removed"]["volumes"]) == (False, [])
    assert there(whole) == NOTHING
    assert "before-purge" in snapshots(whole)[-1]
    whole.snapshot = result["snapshot_id"]
    whole.restore(start=False)
    assert whole.trees() == wanted


def test_without_a_snapshot(whole: Stack) -> None:
    count = len(snapshots(whole))
    result = run(whole, snapshot="none", repository=None, password_file=None)
    assert (result["snapshot_id"], there(whole)) == (None, NOTHING)
    assert len(snapshots(whole)) == count
    assert not run(whole, snapshot="none")["changed"]


def test_a_snapshot_that_cannot_be_relied_on_removes_nothing(whole: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, before = whole.trees(), there(whole)
    monkeypatch.setattr(Repository, "check", lambda _self: ["pack 5f0c is missing"])
    with pytest.raises(
        StackError, match=r"pack 5f0c is missing; .* snapshot: none .* Nothing was removed, and .* again"
    ):
        run(whole)
    assert (whole.running(), whole.trees()) == (BOTH, wanted)
    assert {**there(whole), "state": []} == {**before, "state": []}
    assert recover(whole.engine, whole.places) == []


def test_an_empty_volume_is_refused_before_anything_is_stopped(whole: Stack) -> None:
    whole.client.create_volume(f"{PROJECT}_empty", "local", {}, {f"{LABELS}project": PROJECT})
    with pytest.raises(StackError, match=rf"volume {PROJECT}_empty is empty, .* set snapshot: none"):
        run(whole)
    assert whole.running() == BOTH
    assert run(whole, snapshot="none")["changed"]
    assert there(whole) == NOTHING


def kill(stack: Stack, arm: Arm, **asked: Any) -> None:
    """A purge in a process of its own, which dies."""
    killed(arm, lambda: purge.run(request(stack, **asked), Engine.connect(), Progress()))


BEFORE = [
    *(
        pytest.param(at_phase(name, 0.0), id=f"phase-{name}")
        for name in ("stop", "copy", "commit", "read back", "look again")
    ),
    pytest.param(after(Engine, "stop", 1), id="one-stopped"),
]


@pytest.mark.parametrize("arm", BEFORE)
def test_killed_before_the_removal_all_runs_again(whole: Stack, arm: Arm) -> None:
    wanted = whole.trees()
    kill(whole, arm)
    said = recover(whole.engine, whole.places)
    assert "Nothing of the stack was removed." in said
    assert (whole.running(), whole.trees()) == (BOTH, wanted)
    assert recover(whole.engine, whole.places) == []


DURING = [
    pytest.param(at_phase("removing", 0.0), id="phase-removing"),
    pytest.param(after(Engine, "remove_container", 1), id="container"),
    pytest.param(after(Engine, "remove_network", 1), id="network"),
    pytest.param(after(Engine, "remove_volume", 2), id="volume"),
    pytest.param(after(undoing, "move_away", 1), id="moved"),
    pytest.param(after(trees, "_unlink", 3), id="in-a-directory"),
    pytest.param(after(Journal, "end", 1), id="at-the-end"),
]


@pytest.mark.parametrize("by", ["recover", "purge"])
@pytest.mark.parametrize("arm", DURING)
def test_killed_during_the_removal_it_is_finished(whole: Stack, arm: Arm, by: str) -> None:
    kill(whole, arm, snapshot="none")
    if by == "recover":
        said = recover(whole.engine, whole.places)
        ended = not os.path.exists(whole.places.journal) and said == []  # it died with nothing left to do
        assert ended or undoing.FINISHED in said
    run(whole, snapshot="none")
    assert there(whole) == NOTHING
    assert recover(whole.engine, whole.places) == []


def test_what_was_made_since_is_not_removed(whole: Stack) -> None:
    """The purge died in the middle, and the stack was deployed again before anybody looked."""
    kill(whole, after(Engine, "remove_container", 2), snapshot="none")
    whole.container("store", {"data": "/data"}, ["/data/run", "600"])
    with pytest.raises(StackError, match=r"container omrest-store was made since the purge began and uses"):
        recover(whole.engine, whole.places)
    assert whole.running() == ["omrest-store"]
    whole.client.remove_container("omrest-store", force=True)
    assert undoing.FINISHED in recover(whole.engine, whole.places)
    assert there(whole) == NOTHING


def test_a_directory_that_was_made_anew_is_not_touched(whole: Stack) -> None:
    kill(whole, after(undoing, "move_away", 1), snapshot="none")
    place = whole.directory / "place"
    assert not place.exists()
    place.mkdir()
    (place / "new").write_text("of the next stack")
    assert undoing.FINISHED in recover(whole.engine, whole.places)
    assert (place / "new").read_text() == "of the next stack"
    (place / "new").unlink()
    place.rmdir()
    assert there(whole) == NOTHING
