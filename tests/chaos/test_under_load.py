# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Promise 2, measured: whatever was acknowledged before the freeze is in the snapshot, in all stores, under one id.

A writer never stops. Each round makes a snapshot, restores it into directories of its own and starts the real stores on
them; what they hold is compared with the log of acknowledgements as it was right before the first container was paused.
ROUNDS says how many (25); `make soak ROUNDS=n` runs any number. In a fifth of them all is on one XFS, where the copy
shares blocks.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import freeze
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from loop_device import mounted

from live_stack import MOUNTS, LiveStack

ROUNDS = int(os.environ.get("ROUNDS", "25"))
WRITER_SECONDS = 60.0 + ROUNDS * 40  # it is ended with the test; this bounds it if the test is killed
PAUSE_S = 0.1  # of each of its four workers: one write or more is under way at most of the freezes
WAYS = {"own": ("auto", "two_pass", "single"), "xfs": ("auto",)}  # by the file system
SHARES = {"own": ROUNDS - ROUNDS // 5, "xfs": ROUNDS // 5}
XFS_MIB = 16384  # sparse
ROOT = Path("/var/tmp/omload")
PROJECT = "omload"


@pytest.fixture(scope="module", params=[kind for kind, rounds in SHARES.items() if rounds])
def kind(request: pytest.FixtureRequest) -> str:
    """Of the file system of everything but what is restored."""
    return str(request.param)


@pytest.fixture(scope="module")
def stack(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    LiveStack(PROJECT, ROOT / "stack", 28790).down()
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    with ExitStack() as until_end:
        home, places = ROOT, {}
        if kind == "xfs":
            home = until_end.enter_context(mounted(tmp_path_factory.mktemp("xfs") / "image", "xfs", XFS_MIB))
            places = {key: home / "volumes" / key for key in MOUNTS}
        made = LiveStack(PROJECT, home / "stack", 28790, places)
        until_end.callback(made.down)
        made.up()
        made.write(200)
        yield made
    shutil.rmtree(ROOT)


def restored(number: int, snapshot: str, request: BackupRequest) -> dict[str, dict[str, str]]:
    """What the real stores hold when they start on a snapshot, and have recovered; their database is sound."""
    directory = ROOT / f"restored{number}"
    places = {key: directory / "volumes" / key for key in MOUNTS}
    repository = backup.open_repository(request, Places.of(PROJECT, request.state_dir))
    for key, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        repository.restore(snapshot, f"/volumes/{key}", str(place))
    copy = LiveStack(f"{PROJECT}{number}", directory / "stack", 28791 + number % 2, places)
    try:
        copy.up()
        found = copy.stores()
        with closing(sqlite3.connect(places["openmemory_data"] / "openmemory.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return found
    finally:
        copy.down()
        shutil.rmtree(directory)


def test_every_snapshot_holds_what_was_acknowledged_before_its_freeze(
    kind: str, stack: LiveStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, ways, count = stack.directory.parent, WAYS[kind], SHARES[kind]
    password = home / "password"
    password.write_text("chaos")
    password.chmod(0o600)
    known: list[int] = []
    enter = freeze.Freeze.__enter__

    def note_then_freeze(self: Any) -> Any:
        known.append(stack.log.stat().st_size)
        return enter(self)

    monkeypatch.setattr(freeze.Freeze, "__enter__", note_then_freeze)
    writer = stack.writer(WRITER_SECONDS, PAUSE_S)
    windows = []
    try:
        with ThreadPoolExecutor(max_workers=1) as readers:
            rounds = []
            for number in range(count):
                request = BackupRequest(
                    PROJECT,
                    str(home / "repository"),
                    str(password),
                    capture=ways[number % len(ways)],
                    state_dir=str(home / "state"),
                    tags=[f"round-{number}"],
                )
                made = backup.run(request, Engine.connect(), Progress())
                assert (made["way"] == "reflink") == (kind == "xfs"), made["way"]
                windows.append(made["freeze_s"])
                expected = stack.acknowledged(known[-1])
                assert len(known) == number + 1
                future = readers.submit(restored, number, made["snapshot_id"], request)
                rounds.append((number, made["way"], expected, future))
            assert writer.poll() is None, "the writer ended before the rounds, so they were not under load"
            for number, way, expected, future in rounds:
                problems = differences(expected, future.result())
                assert not problems, f"round {number} ({way}): {problems[:5]}"
    finally:
        writer.terminate()
        writer.wait()
    grown = len(stack.acknowledged()) - 200
    assert grown > count * 5, f"only {grown} memories were written meanwhile: that is no load"
    found = stack.read()
    assert not found["missing_count"], found
    median = sorted(windows)[count // 2]
    print(f"freeze windows of {count} rounds on {kind}: median {median:.3f} s, most {max(windows):.3f} s")


def differences(expected: dict[str, str], stores: dict[str, dict[str, str]]) -> list[str]:
    """What of the acknowledged a store lacks, and rows that have no point or node."""
    lost = [
        f"{store} lacks {identity}"
        for store, held in stores.items()
        for identity, text in expected.items()
        if held.get(identity) != text
    ]
    rows = stores["sqlite"]
    torn = [f"{store} lacks row {key}" for store in ("qdrant", "neo4j") for key in rows if key not in stores[store]]
    return lost + torn


def test_a_lost_write_would_be_seen() -> None:
    held = {"a": "1", "b": "2"}
    whole = {"sqlite": dict(held), "qdrant": dict(held), "neo4j": dict(held)}
    assert differences(held, whole) == []
    for store in whole:
        broken = {**whole, store: {"a": "1"}}
        assert differences(held, broken)
