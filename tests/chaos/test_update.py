# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Updates on the real engine: done, refused, and failed with the old versions back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_project import Project, Result
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.moving import rebuild
from ansible_collections.openmemory.stack.plugins.module_utils._core.moving.standby import Standby
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import kept
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.crew import Crew
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import exchange, update
from update_stack import (
    APP,
    BOTH,
    NEW,
    PROJECT,
    Updated,
    deployed,
    home,
    images,
    memories_in,
    migrate,
    write,
)  # fmt: skip

__all__ = ["deployed", "home", "images"]  # fixtures


def unhealthy(stack: Updated, patch: pytest.MonkeyPatch, act: Callable[[Updated], None]) -> None:
    """The new version starts, does something, and never becomes healthy."""
    real = Project.present

    def fails(project: Project) -> Result:
        real(project)
        act(stack)
        raise StackError("app is not healthy.")

    patch.setattr(Project, "present", fails)


def test_updated_and_the_copy_is_kept(home: Updated) -> None:
    before, old = home.trees(), home.ids()
    result = home.update(NEW)
    assert result["changed"]
    assert result["updated"] == ["app", "other"]
    assert home.running() == NEW
    assert home.trees() == before
    app = result["services"]["app"]
    assert (app["before"]["version"], app["after"]["version"]) == ("1.0", "1.1")
    assert app["before"]["id"] != app["after"]["id"]
    assert 0 < result["downtime_s"] < 20
    assert {entry.swap.key for entry in kept.load(home.places)} == {"data", "place", "disk"}
    assert len(home.left()) == 3
    assert read_last(home.places)["update"]["services"] == result["services"]
    assert not set(home.ids().values()) & set(old.values())
    assert "kept-in-dotenv" not in json.dumps(result)


def test_nothing_newer_nothing_restarts(home: Updated) -> None:
    before = home.ids()
    result = home.update({})
    assert (result["changed"], result["updated"], result["actions"]) == (False, [], [])
    assert home.ids() == before
    assert home.left() == []
    assert recover(home.engine, home.places) == []


def test_only_one_is_newer_and_the_other_is_not_made_anew(home: Updated) -> None:
    before = home.ids()
    result = home.update({"app": NEW["app"]}, keep_days=0)
    assert result["updated"] == ["app"]
    assert home.running() == {**BOTH, "app": NEW["app"]}
    assert home.ids()["other"][0] == before["other"][0]
    assert home.left() == []


def test_with_a_snapshot(home: Updated) -> None:
    where: dict[str, Any] = {
        "repository": str(home.directory / "repository"),
        "password_file": str(home.directory / "password"),
    }
    with pytest.raises(StackError, match=r"There is no repository at .*set snapshot: none .*Nothing was updated"):
        home.update(NEW, snapshot="make", **where)
    assert home.running() == BOTH
    repository = update.open_repository(home.request({}, snapshot="make", **where).backup(), home.places)
    repository.init()
    result = home.update(NEW, snapshot="make", **where)
    (snapshot,) = repository.snapshots(PROJECT)
    assert snapshot.id == result["snapshot_id"]
    assert {"before-update", "verified=quick"} <= set(snapshot.tags)
    assert result["actions"][0] == f"snapshot {snapshot.id[:8]} made"


def test_check_mode_tells_all_and_changes_nothing(home: Updated) -> None:
    before, trees = home.ids(), home.trees()
    found = home.update(NEW, check_mode=True)
    assert found["changed"]
    assert found["updated"] == ["app", "other"]
    assert f"container {PROJECT}-app-1 would be recreated" in found["actions"]
    assert "+" not in found["diff"][-1]["before"]
    assert NEW["app"] in found["diff"][-1]["after"]
    assert [one for one in found["warnings"] if f"-other-1 writes to {home.directory}/host of this host" in one]
    assert home.ids() == before
    assert home.trees() == trees
    assert home.left() == []
    assert not home.update({}, check_mode=True)["changed"]


def test_what_was_written_since_stays_where_the_format_did_not_move(
    home: Updated, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = home.files()
    with monkeypatch.context() as patch:
        unhealthy(home, patch, write)
        with pytest.raises(
            StackError, match=r"not healthy\. The update was taken back: the old versions run again with all"
        ):
            home.update({"app": NEW["app"]})
    assert home.running() == BOTH
    assert memories_in(home.database) == ["1", "2"]
    assert home.files() == files
    assert len(kept.load(home.places)) == 3  # the copies, for a day
    assert recover(home.engine, home.places) == []


def test_after_a_migration_the_data_of_before_comes_back(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    before, files = home.trees(), home.files()
    (home.root("disk") / "lives").write_text("before")  # written while the copy is followed
    before = home.trees()

    def both(stack: Updated) -> None:
        migrate(stack)
        write(stack)

    with monkeypatch.context() as patch:
        unhealthy(home, patch, both)
        with pytest.raises(StackError, match=r"run again on the data from before.*is kept in .* for a day") as failed:
            home.update({"app": NEW["app"]})
    assert "kept-in-dotenv" not in str(failed.value)
    assert home.running() == BOTH
    assert home.trees() == before
    assert home.files() == files
    entries = {entry.swap.key: entry for entry in kept.load(home.places)}
    assert set(entries) == {"data", "place", "disk"}
    assert memories_in(Path(entries["data"].path) / "new" / "openmemory.db") == ["1", "2"]
    assert (Path(entries["disk"].path) / "new" / "written").read_text() == "since"
    (home.root("disk") / "lives").unlink()


def test_a_store_of_no_known_kind_gets_its_data_back(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.trees()
    with monkeypatch.context() as patch:
        unhealthy(home, patch, write)
        with pytest.raises(StackError, match="on the data from before the update"):
            home.update({"other": NEW["other"]})
    assert (home.running(), home.trees()) == (BOTH, before)


def test_the_copy_has_what_was_written_until_the_stop(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Standby.catch_up

    def late(standby: Standby) -> int:
        read: int = real(standby)
        (home.root("disk") / "written").write_text("late")
        return read

    with monkeypatch.context() as patch:
        patch.setattr(Standby, "catch_up", late)
        unhealthy(home, patch, migrate)
        with pytest.raises(StackError, match="on the data from before the update"):
            home.update({"app": NEW["app"]})
    assert (home.root("disk") / "written").read_text() == "late"


def test_lost_data_brings_the_copy_back(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.trees()

    def loses(self: exchange.Exchange) -> None:
        write(home)
        self._refuse_loss(["data: 0 found, 1 expected."])

    with monkeypatch.context() as patch:
        patch.setattr(exchange.Exchange, "_prove", loses)
        with pytest.raises(StackError, match="does not hold what was there before: data: 0 found"):
            home.update({"app": NEW["app"]})
    assert (home.running(), home.trees()) == (BOTH, before)


def test_old_versions_that_do_not_work_on_it_get_the_copy(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format looks the same, and the old version does not like what is there."""
    before = home.trees()
    real, asked = Crew.wait, []

    def once(crew: Crew, *arguments: Any) -> None:
        asked.append(crew)
        if len(asked) == 1:
            raise StackError("app is not healthy either.")
        real(crew, *arguments)

    with monkeypatch.context() as patch:
        unhealthy(home, patch, write)
        patch.setattr(Crew, "wait", once)
        with pytest.raises(StackError, match="on the data from before the update"):
            home.update({"app": NEW["app"]})
    assert len(asked) == 2
    assert (home.running(), home.trees()) == (BOTH, before)


def test_a_tag_that_moved_means_the_old_image_again(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    moving = f"{APP}:latest"
    home.client.tag(f"{APP}:1.0", APP, "latest")
    home.deploy(app=moving)
    old = home.image(moving)
    pulled = Project.pull

    def pull(project: Project, config: Any) -> None:
        pulled(project, config)
        home.client.tag(f"{APP}:1.1", APP, "latest")

    with monkeypatch.context() as patch:
        patch.setattr(Project, "pull", pull)
        unhealthy(home, patch, write)
        with pytest.raises(StackError, match="taken back"):
            home.update({"app": moving})
    assert home.image(moving) == old
    assert home.running()["app"] == moving
    assert home.inspected()["app"]["Image"] == old
    ids = home.ids()
    home.deploy(app=moving)
    assert home.ids() == ids  # the next deployment does not bring the new one
    with monkeypatch.context() as patch:
        patch.setattr(Project, "pull", pull)
        home.forget()
        assert home.update({"app": moving})["updated"] == ["app"]
    assert home.inspected()["app"]["Image"] != old


def test_a_tag_that_had_moved_before_still_names_the_container(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an id alone nobody would know the store that it is; and what was pulled or loaded keeps its tag."""
    moving = f"{APP}:latest"
    home.client.tag(f"{APP}:1.0", APP, "latest")
    home.deploy(app=moving)
    old = home.image(moving)
    home.client.tag(f"{APP}:1.1", APP, "latest")
    with monkeypatch.context() as patch:
        unhealthy(home, patch, write)
        with pytest.raises(StackError, match="taken back"):
            home.update({"app": moving})
    assert home.running()["app"] == moving
    assert home.inspected()["app"]["Image"] == old
    assert home.image(moving) == home.image(f"{APP}:1.1")
    home.forget()
    assert home.update({"app": moving})["updated"] == ["app"]


@pytest.mark.parametrize(
    ("wanted", "asked", "said"),
    [
        ({"app": f"{APP}:0.9"}, {}, r"services\.app\.image is .*0\.9: OpenMemory 1\.0 runs, and its data is not taken"),
        ({}, {"snapshot": "make"}, "repository is not given"),
        ({}, {"steps": "perhaps"}, "steps is 'perhaps'; use one of auto, refuse"),
        ({}, {"keep_days": -1.0}, "keep_days is -1"),
        ({"app": f"{APP}:9.9"}, {}, r"9\.9 is not on this host and pull is never"),
    ],
)
def test_refusals(home: Updated, wanted: dict[str, str], asked: dict[str, Any], said: str) -> None:
    before = home.ids()
    home.client.tag(f"{APP}:1.1", APP, "0.9")
    with pytest.raises(StackError, match=said):
        home.update(wanted, **asked)
    assert home.ids() == before
    assert recover(home.engine, home.places) == []


def test_a_paused_container_is_refused(home: Updated) -> None:
    home.client.pause(f"{PROJECT}-app-1")
    try:
        with pytest.raises(StackError, match="is paused"):
            home.update(NEW)
    finally:
        home.client.unpause(f"{PROJECT}-app-1")


def test_what_cannot_be_made_again_is_not_stopped(home: Updated, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.ids()

    def refuses(*_: Any) -> None:
        raise StackError("Container omupd-app-1 could not be made again, so nothing was changed.")

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "rehearse", refuses)
        with pytest.raises(StackError, match="could not be made again"):
            home.update(NEW)
    assert home.ids() == before
    assert home.left() == []


def test_what_compose_does_not_start_runs_again(home: Updated) -> None:
    """A container of a one-off or of an inactive profile is stopped, as it may write, and is no service to Compose."""
    labels = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": "other"}
    labels["com.docker.compose.oneoff"] = "True"
    host = home.client.create_host_config(binds=[f"{PROJECT}_place:/place"], network_mode="none")
    made = home.client.create_container(
        BOTH["other"], ["/bin/sleep", "900"], name=f"{PROJECT}-other-run-1", labels=labels, host_config=host,
        stop_signal="SIGKILL",
    )  # fmt: skip
    home.client.start(made)
    try:
        assert home.update({"app": NEW["app"]}, keep_days=0)["updated"] == ["app"]
        found = home.client.inspect_container(made)
        assert found["State"]["Status"] == "running"
        assert found["RestartCount"] == 0
    finally:
        home.client.remove_container(made, force=True)
