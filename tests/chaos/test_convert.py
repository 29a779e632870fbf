# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Conversions on the real engine: every direction, every refusal, and whatever fails or dies in between."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.convert import convert, redefine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.moving import rebuild
from ansible_collections.openmemory.stack.plugins.module_utils._core.moving.standby import Standby
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.watcher import Watcher
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.crew import Crew
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import parse_volumes
from convert_stack import BOTH, contents, home, ids, left, request, run
from restore_stack import PROJECT, Stack

__all__ = ["home"]  # a fixture


def test_every_direction_and_back(home: Stack) -> None:
    """Managed to path, path to managed, path to path, a mount point to a path, and all of it back."""
    before = home.trees()
    new = home.directory / "new"
    about = ids(home)
    result = run(home, data=str(new / "data"), place=None, disk=str(new / "disk"))
    assert result["changed"]
    assert result["downtime_s"] > 0
    assert contents(new / "data") == before["data"]
    assert contents(new / "disk") == before["disk"]
    place = home.client.inspect_volume(f"{PROJECT}_place")
    assert not place["Options"]
    assert contents(place["Mountpoint"]) == before["place"]
    assert home.running() == BOTH
    assert not set(ids(home).values()) & set(about.values())
    entries = kept.load(home.places)
    assert sorted(entry.swap.key for entry in entries) == ["data", "disk", "place"]
    data = next(entry for entry in entries if entry.swap.key == "data")
    assert contents(data.swap.moves[0].old) == before["data"]
    assert os.listdir(home.directory / "disk") == [os.path.basename(data.path).replace(f"{PROJECT}_data-", "")]
    again = run(home, data=str(new / "data"), place=None, disk=str(new / "disk"))
    assert not again["changed"]
    for entry in entries:
        assert kept.remove(entry.path) is None
    kept.save(home.places, [])
    run(home, data=None, disk=str(home.directory / "disk"), place=str(home.directory / "place"))
    assert home.trees() == before
    assert home.running() == BOTH


def test_a_container_made_again_is_the_same(home: Stack) -> None:
    before = home.client.inspect_container("omrest-app")
    run(home, db=str(home.directory / "new" / "db"))
    after = home.client.inspect_container("omrest-app")
    own = ("Hostname",)
    assert {k: v for k, v in after["Config"].items() if k not in own} == {
        k: v for k, v in before["Config"].items() if k not in own
    }
    assert after["HostConfig"] == before["HostConfig"]
    assert after["Image"] == before["Image"]


def test_only_labels_differ_and_the_data_stays(home: Stack) -> None:
    before = home.trees()
    asked = request(home)
    entries = [{"name": f"{PROJECT}_data", "labels": {"tier": "gold"}}]
    asked.specs = parse_volumes(entries, PROJECT)
    result = convert.run(asked, home.engine, Progress())
    assert result["kept"] == []
    assert home.client.inspect_volume(f"{PROJECT}_data")["Labels"]["tier"] == "gold"
    assert home.trees() == before
    assert left(home) == []
    assert home.running() == BOTH


def test_other_labels_stay_and_composes_hash_goes(home: Stack) -> None:
    """With the hash of another definition Compose would offer to recreate the volume."""
    name = f"{PROJECT}_place"
    made = home.client.inspect_volume(name)
    labels = {**made["Labels"], "team": "search", "com.docker.compose.config-hash": "0" * 64}
    home.client.remove_container("omrest-app", force=True)
    home.client.remove_volume(name)
    home.client.create_volume(name, "local", made["Options"], labels)
    home.container("app", {"db": "/db", "disk": "/disk", "place": "/place"}, ["/bin/sleep", "600"])
    run(home, place=str(home.directory / "new" / "place"))
    after = home.client.inspect_volume(name)
    assert after["Labels"] == {**made["Labels"], "team": "search"}
    assert after["Options"]["device"] == str(home.directory / "new" / "place")


def test_what_goes_during_the_copy_goes_from_it_too(home: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Onto another file system, where a file cannot be moved to our state directory."""
    new = home.directory / "tmpfs"
    new.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", new], check=True)
    try:
        real = Standby.follow

        def follows(standby: Standby) -> int:
            read: int = real(standby)
            shutil.rmtree(home.root("data") / "live")
            (home.root("data") / "same").write_text("later")
            return read

        with monkeypatch.context() as patch:
            patch.setattr(Standby, "follow", follows)
            patch.setattr(Standby, "catch_up", lambda _: 0)
            run(home, data=str(new))
        assert sorted(os.listdir(new)) == ["run", "same"]
        assert (new / "same").read_text() == "later"
        run(home, data=None)
    finally:
        subprocess.run(["umount", new], check=True)
        new.rmdir()


def test_check_mode_tells_all_and_changes_nothing(home: Stack) -> None:
    path = str(home.directory / "new" / "data")
    found = convert.run(request(home, data=path), home.engine, Progress(), check_mode=True)
    assert found["changed"]
    assert [action.split()[0] for action in found["actions"]] == ["convert", "stop", "start"]
    assert found["diff"]["after"]["volumes"][f"{PROJECT}_data"]["driver_opts"]["device"] == path
    assert not os.path.exists(path)
    assert left(home) == []


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"data": "/var/tmp/omrest/place/in"}, "inside"),
        ({"place": "/var/tmp/omrest/place/in"}, "lie in each other"),
        ({"data": "/var/tmp/omrest/full"}, "is not empty"),
    ],
)
def test_refusals(home: Stack, places: dict[str, str], said: str) -> None:
    full = home.directory / "full"
    full.mkdir(exist_ok=True)
    (full / "mine").write_text("mine")
    before = home.trees()
    with pytest.raises(StackError, match=said):
        run(home, **places)
    assert home.trees() == before
    assert home.running() == BOTH
    assert left(home) == []
    shutil.rmtree(full)


def test_old_data_of_a_restore_beside_it_is_not_removed(home: Stack) -> None:
    home.restore(volumes=["data"])
    with pytest.raises(StackError, match="lies beside its data"):
        run(home, data=str(home.directory / "new" / "data"))
    assert home.running() == BOTH


class DiedError(BaseException):
    """Stands for a death at a point: nothing of the run's own goes on after it."""


STEPS: dict[str, tuple[Any, str, bool]] = {
    "stop": (Crew, "stop", True),
    "remove": (rebuild, "remove", True),
    "first volume": (redefine.Redefinition, "forward", True),
    "volume removed": (redefine.Redefinition, "_define", False),
    "make": (rebuild, "make_all", False),
    "made": (rebuild, "make_all", True),
    "start": (Crew, "start", True),
    "prove": (convert._Convert, "_compare", False),
    "accepted": (convert, "finish", False),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_death_at_each_step_is_undone_or_finished(home: Stack, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.trees()
    new = home.directory / "new"
    die(home, step, monkeypatch, data=str(new / "data"), place=None)
    said = recover(home.engine, home.places)
    assert said
    assert home.running() == BOTH
    if step == "accepted":
        assert contents(new / "data") == before["data"]
        assert sorted(entry.swap.key for entry in kept.load(home.places)) == ["data", "place"]
    else:
        assert home.trees() == before
        assert not (new / "data").exists()
    assert recover(home.engine, home.places) == []


def die(home: Stack, step: str, monkeypatch: pytest.MonkeyPatch, **places: str | None) -> None:
    """A conversion that dies at a step."""
    owner, name, after = STEPS[step]
    real: Callable[..., Any] = getattr(owner, name)

    def dies(*arguments: Any, **options: Any) -> Any:
        if after:
            real(*arguments, **options)
        raise DiedError

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        patch.setattr(convert._Convert, "take_back", lambda *_: None)
        patch.setattr(Watcher, "_watch", lambda *_: None)  # it would be the first to recover
        with pytest.raises(DiedError):
            run(home, **places)


@pytest.mark.parametrize("step", ["volume removed", "made", "prove"])
def test_the_next_conversion_recovers_before_it_plans(home: Stack, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead run has left looks as if nothing differed, or as if the volume had to be made anew."""
    before = home.trees()
    new = home.directory / "new"
    die(home, step, monkeypatch, data=str(new / "data"))
    with pytest.raises(StackError, match="An operation has died on omrest; run openmemory-stack recover"):
        convert.run(request(home, data=str(new / "data")), home.engine, Progress(), check_mode=True)
    result = run(home, data=str(new / "data"))
    assert result["changed"]
    assert contents(new / "data") == before["data"]
    assert home.running() == BOTH
    assert any("old definition and data again" in action for action in result["actions"])


def test_what_was_written_after_a_death_in_the_swap_is_kept(home: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody started the stack on the new place before recovery came."""
    before = home.trees()
    new = home.directory / "new"
    die(home, "first volume", monkeypatch, data=str(new / "data"))
    (new / "data" / "written").write_text("by a client")
    recover(home.engine, home.places)
    assert home.trees() == before
    (entry,) = kept.load(home.places)
    assert contents(entry.swap.moves[0].old).keys() - before["data"].keys() == {"written"}


def test_a_container_that_cannot_be_made_again_is_not_removed(home: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    before, about = home.trees(), ids(home)
    real = rebuild.recipe

    def odd(*arguments: Any) -> rebuild.Recipe:
        found = real(*arguments)
        return replace(found, body={**found.body, "Image": "nobody/has:this"})

    monkeypatch.setattr(rebuild, "recipe", odd)
    with pytest.raises(StackError, match=r"could not be made again.*Nothing was converted"):
        run(home, data=str(home.directory / "new" / "data"))
    assert home.trees() == before
    assert ids(home) == about
    assert home.running() == BOTH


def test_a_container_that_was_made_anew_during_the_copy_stops_it(home: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Standby.follow

    def follows(standby: Standby) -> int:
        home.client.remove_container("omrest-store", force=True)
        home.container("store", {"data": "/data"}, ["/data/run", "600"])
        read: int = real(standby)
        return read

    with monkeypatch.context() as patch:
        patch.setattr(Standby, "follow", follows)
        with pytest.raises(StackError, match="removed or made anew"):
            run(home, data=str(home.directory / "new" / "data"))
    assert home.running() == BOTH


def test_who_shares_a_containers_network_is_refused(home: Stack) -> None:
    settings = home.client.create_host_config(network_mode="container:omrest-store")
    labels = {"com.docker.compose.project": PROJECT}
    home.client.create_container(
        "omrest/sleep", ["/bin/sleep", "9"], name="omrest-side", labels=labels, host_config=settings
    )
    with pytest.raises(StackError, match="omrest-side shares the network"):
        run(home, data=str(home.directory / "new" / "data"))
    home.client.remove_container("omrest-side", force=True)


def test_a_side_that_does_not_start_is_taken_back(home: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was written there is kept: a client may have been told so."""
    before = home.trees()
    new = home.directory / "new"

    def fails(crew: Crew, *_: Any, **__: Any) -> None:
        if (new / "data").exists():
            (new / "data" / "written").write_text("by a client")
            raise StackError("app is unhealthy.")
        real(crew, *_, **__)

    real = Crew.wait
    monkeypatch.setattr(Crew, "wait", fails)
    with pytest.raises(StackError, match=r"app is unhealthy.*Nothing was converted.*is kept in"):
        run(home, data=str(new / "data"))
    assert home.trees() == before
    assert home.running() == BOTH
    (entry,) = kept.load(home.places)
    assert contents(entry.swap.moves[0].old).keys() - before["data"].keys() == {"written"}
