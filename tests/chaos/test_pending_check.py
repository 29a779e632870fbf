# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A health check that is started as its container freezes: the engine waits for its timeout, and nobody else does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.freeze import Freeze
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import departure_undo
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.beside import beside
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.journal import Journal
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.recover import recover
from sleepers import DIRECTORY, PREFIX, PROMISED_S, Sleepers, image

TIMEOUT_S = 15
CHECK = f"--health-cmd true --health-interval 20ms --health-timeout {TIMEOUT_S}s"
TRIES = 100
AT_ONCE_S = 5.0  # far from both, also on a busy machine: the engine answers in some ms, or after the check, in 14 s


@pytest.fixture(scope="module", autouse=True)
def _image() -> Iterator[None]:
    with image():
        yield


@pytest.fixture
def places() -> Iterator[Places]:
    sleepers = Sleepers()
    sleepers.clean()
    sleepers.start("a", options=CHECK)
    yield Places.of(PREFIX, f"{DIRECTORY}/state", f"{DIRECTORY}/run")
    sleepers.clean()
    shutil.rmtree(DIRECTORY, ignore_errors=True)


@pytest.fixture
def held(places: Places) -> tuple[Freeze, Journal]:
    """A freeze for which the engine waits: another connection gets no answer to an inspection."""
    engine = Engine.connect()
    for _number in range(TRIES):
        journal = Journal.begin(places, "migrate", "b1")
        frozen = Freeze(engine, PREFIX, places, journal, [f"{PREFIX}-a"])
        frozen.__enter__()
        asked = beside(lambda: Engine.connect().inspect_container(f"{PREFIX}-a"))
        time.sleep(0.3)
        if not asked.done():
            return frozen, journal
        frozen.__exit__(None, None, None)
        journal.end()
    raise AssertionError("no health check was ever under way")


def is_running() -> bool:
    return Sleepers().states() == {"a": "running"}


def took(act: Any) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def test_who_ends_a_freeze_does_not_wait(held: tuple[Freeze, Journal]) -> None:
    frozen, _journal = held
    assert took(lambda: frozen.__exit__(None, None, None)) < AT_ONCE_S
    assert is_running()


def test_who_keeps_it_and_goes_back_does_not_wait(held: tuple[Freeze, Journal]) -> None:
    """At the point of no return of a move, where the other side has said that it did not take over."""
    frozen, journal = held
    stage = {"stage": departure_undo.COMMITTING}
    assert took(lambda: frozen.keep(lambda entries: {"migrate": {**stage, "frozen": entries}})) < AT_ONCE_S
    assert not is_running()
    assert took(lambda: departure_undo.resolve(Engine.connect(), journal, accepted=False)) < PROMISED_S
    assert is_running()


def test_nor_does_a_recovery_where_all_else_is_dead(held: tuple[Freeze, Journal], places: Places) -> None:
    frozen, _journal = held
    guard, frozen._guard = frozen._guard, None
    assert guard is not None
    guard.end()
    assert not is_running()
    said: list[str] = []
    assert took(lambda: said.extend(recover(Engine.connect(), places))) < PROMISED_S
    assert f"Resumed container {PREFIX}-a." in said
    assert is_running()
