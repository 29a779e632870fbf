# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovery of a restore: what it stopped runs again before anything is removed, and no reason is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import PartlyDoneError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation import recover as recovering
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover, recover_from
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import exchange
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import undo as undoing
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.swap import Swap

from .swapped import ID, record_of, swap_in


class Docker:
    """Containers by name, running or not; what was there when one was started."""

    is_local = True

    def __init__(self, volume: Swap, *names: str):
        self.volume = volume
        self.states = dict.fromkeys(names, False)
        self.seen: list[tuple[str, str, bool]] = []

    def containers(self) -> list[dict[str, Any]]:
        return []

    def networks(self, label: str) -> list[dict[str, Any]]:
        return []

    def remove(self, name: str) -> None:
        raise AssertionError(name)

    remove_container = remove_network = remove_volume = remove

    def inspect_container(self, name: str) -> dict[str, Any]:
        return {"State": {"Running": self.states[name]}}

    def start(self, name: str) -> None:
        data = Path(self.volume.root, "db").read_text()
        self.seen.append((name, data, os.path.lexists(self.volume.beside)))
        self.states[name] = True


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))


def died(places: Places, swap: Swap, stage: str) -> None:
    stopped = [{"id": "db", "name": "db"}, {"id": "app", "name": "app"}]
    Journal.begin(places, "restore", ID).notes(
        {"restore": record_of(places, swap, stage=stage).as_json(), "stopped": stopped}
    )


@pytest.mark.parametrize(("stage", "data"), [("fetching", "old"), ("taken back", "old"), ("accepted", "new")])
def test_what_was_stopped_runs_again_before_anything_is_removed(
    places: Places, tmp_path: Path, stage: str, data: str
) -> None:
    swap = swap_in(tmp_path / "v")
    if stage == "accepted":
        swap.forward()
    died(places, swap, stage)
    docker: Any = Docker(swap, "db", "app")
    recover(docker, places)
    assert docker.seen == [("db", data, True), ("app", data, True)]
    assert os.path.lexists(swap.beside) == (stage == "accepted")
    assert Journal.load(places) is None


def test_also_where_what_was_fetched_cannot_be_removed(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> None:
        raise StackError(f"{path} cannot be removed (Input/output error).")

    swap = swap_in(tmp_path / "v")
    died(places, swap, "fetching")
    docker: Any = Docker(swap, "db", "app")
    with monkeypatch.context() as patched:
        patched.setattr(undoing, "remove_tree", broken)
        with pytest.raises(StackError, match=r"new cannot be removed \(Input/output error\)"):
            recover(docker, places)
    assert docker.states == {"db": True, "app": True}
    assert Journal.load(places) is not None
    recover(docker, places)
    assert not os.path.lexists(swap.beside)


def test_nothing_is_started_while_the_data_is_of_two_times(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = swap_in(tmp_path / "v")
    swap.forward()
    died(places, swap, "swapping")
    os.rename(swap.beside, f"{swap.beside}.away")
    docker: Any = Docker(swap, "db", "app")
    with pytest.raises(StackError, match="mount its disk"):
        recover(docker, places)
    assert docker.seen == []


class Crew:
    """No container, but one that was stopped."""

    ids = ("app",)

    def __init__(self, engine: Any):
        self.engine = engine

    def stop(self, journal: Journal, timeout: int | None) -> None:
        journal.note("stopped", [{"id": "app", "name": "app"}])

    def start(self, *_given: Any) -> None:
        """It runs."""

    wait = start


@pytest.mark.parametrize("start", [True, False])
def test_what_was_to_stay_stopped_is_not_started_by_a_recovery(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bool
) -> None:
    def dies(*_given: Any) -> None:
        raise KeyboardInterrupt

    swap = swap_in(tmp_path / "v")
    docker: Any = Docker(swap, "app")
    crew: Any = Crew(docker)
    record = record_of(places, swap)
    one = exchange.Exchange(crew, Journal.begin(places, "restore", ID), record, Progress())
    monkeypatch.setattr(exchange, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        one.run(lambda: [swap], start, lambda: "", lambda: None, 60.0)
    recover(docker, places)
    assert docker.states == {"app": start}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            StackError("The engine ended."),
            "The engine ended. What was left could not be put right: It is away. Run openmemory-stack recover",
        ),
        (KeyboardInterrupt(), "What was left could not be put right: It is away. Run openmemory-stack recover"),
        (PartlyDoneError("A copy failed.", {}), None),  # with its result
    ],
)
def test_a_recovery_that_fails_does_not_hide_the_reason(
    places: Places, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str | None
) -> None:
    def fails(*_given: Any, **_named: Any) -> None:
        raise StackError("It is away.")

    monkeypatch.setattr(recovering, "recover", fails)
    docker: Any = None
    if said is None:
        recover_from(error, docker, places)
    else:
        with pytest.raises(StackError) as raised:
            recover_from(error, docker, places)
        assert str(raised.value).startswith(said)
