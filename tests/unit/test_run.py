# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner of the gates: it counts what ran, stops at a failure, and never calls a failure a success."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import run as gates

COUNTS = {
    "12 passed in 0.31s": (0, (12, 0)),
    "1 failed, 308 passed in 17.81s": (1, (308, 1)),
    "== 2 failed, 3 passed, 1 error in 1.0s ==": (1, (3, 3)),
    "42 passed, 1 warning in 4.42s": (0, (42, 0)),
    "nothing that counts": (0, (1, 0)),
    "no tests ran in 0.01s": (5, (0, 1)),
    "": (1, (0, 1)),
}


@pytest.mark.parametrize("text", COUNTS)
def test_counts(text: str) -> None:
    code, expected = COUNTS[text]
    assert gates.counts(f"something\n{text}\n", code) == expected


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gates, "LOGS", tmp_path)
    return tmp_path


def phase(name: str, code: str, where: str = gates.SHARED, lab: bool = False) -> gates.Phase:
    return gates.Phase(name, (sys.executable, "-c", code), where, lab)


def test_a_failing_phase_shows_its_output_and_fails_the_run(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gates.Run()
    run.do(phase("bad", "print('the reason'); raise SystemExit(3)"))
    assert run.failed
    assert "the reason" in capsys.readouterr().out
    assert (logs / "bad.log").read_text() == "the reason\n"


def test_a_failing_phase_stops_those_after_it(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the lab begin when that is up; it goes down whatever happened."""
    steps = [phase(name, f"raise SystemExit({name == 'bad'})", gates.HOSTS, True) for name in ("good", "bad", "never")]
    monkeypatch.setattr(gates, "phases", lambda: steps)
    monkeypatch.setattr(gates, "LAB_UP", phase("lab up", "pass"))
    monkeypatch.setattr(gates, "LAB_DOWN", phase("lab down", "pass"))
    assert gates.main([]) == 1
    assert sorted(path.stem for path in logs.iterdir()) == ["bad", "good", "lab down", "lab up"]


def test_nothing_of_the_lab_begins_without_it(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "phases", lambda: [phase("never", "pass", lab=True)])
    monkeypatch.setattr(gates, "LAB_UP", phase("lab up", "raise SystemExit(1)"))
    monkeypatch.setattr(gates, "LAB_DOWN", phase("lab down", "pass"))
    assert gates.main([]) == 1
    assert sorted(path.stem for path in logs.iterdir()) == ["lab down", "lab up"]


def meet(logs: Path, name: str, others: str, where: str, seconds: float = 1.2) -> gates.Phase:
    """A phase that fails unless exactly these others run at some moment while it does."""
    code = f"""
import os, sys, time
here = {str(logs)!r}
open(here + "/at-{name}", "w").close()
seen = set()
until = time.monotonic() + {seconds}
while time.monotonic() < until:
    seen |= {{one[3:] for one in os.listdir(here) if one.startswith("at-")}} - {{"{name}"}}
    time.sleep(0.02)
os.unlink(here + "/at-{name}")
sys.exit(sorted(seen) != sorted({others.split()!r}) and f"{name} met {{seen}}")
"""
    return phase(name, code, where)


def test_two_at_a_time_then_one_on_the_hosts_and_one_on_their_twins_and_one_beside_all(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        meet(logs, "twin", "host beside", gates.TWINS),
        meet(logs, "host", "other twin beside", gates.HOSTS, 3.0),  # it need not wait for the last of the others
        meet(logs, "one", "other beside", gates.SHARED),
        meet(logs, "other", "one host beside", gates.SHARED, 3.0),
        meet(logs, "beside", "one other host twin", gates.BESIDE, 6.0),
    ]
    monkeypatch.setattr(gates, "phases", lambda: steps)
    assert gates.main([]) == 0


@pytest.mark.parametrize("where", [gates.HOSTS, gates.TWINS])
def test_no_scenario_runs_while_engines_are_killed(logs: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    steps = [
        meet(logs, "scenario", "", where),
        *(replace(meet(logs, name, "", gates.SHARED), row=gates.ON_HOSTS) for name in ("one", "other")),
    ]
    monkeypatch.setattr(gates, "phases", lambda: steps)
    assert gates.main([]) == 0
    assert "dockerd_killed" in gates.ONE_AT_A_TIME[gates.ON_HOSTS]


def test_two_of_the_hosts_follow_each_other(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "phases", lambda: [meet(logs, name, "", gates.HOSTS) for name in ("one", "other")])
    assert gates.main([]) == 0


def test_those_that_wait_for_each_other_are_not_begun_together(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [
        replace(meet(logs, "one", "third", gates.SHARED, 3.0), row=0),
        replace(meet(logs, "other", "", gates.SHARED), row=0),
        meet(logs, "third", "one", gates.SHARED),
    ]
    monkeypatch.setattr(gates, "phases", lambda: steps)
    assert gates.main([]) == 0
    monkeypatch.undo()
    known = {one.name.partition(":")[2] for one in gates.phases() if one.row is not None}
    assert known == {name for row in gates.ONE_AT_A_TIME for name in row}


def test_only_scenarios_on_the_twins_read_the_inventory_of_those() -> None:
    places = {one.name.partition(":")[2]: one.where for one in gates.phases() if one.name.startswith("molecule:")}
    assert {name for name, where in places.items() if where == gates.TWINS} == set(gates.ON_TWINS) < set(places)
    for name in gates.ON_TWINS:
        files = [path.read_text() for path in (gates.ROOT / "molecule" / name).rglob("*.yml")]
        assert not [text for text in files if "build/lab/inventory.yml" in text]
    assert gates.environment(phase("x", "", gates.TWINS))["LAB_INVENTORY"] == "twins.yml"
    assert "LAB_INVENTORY" not in gates.environment(phase("x", "", gates.HOSTS))


def test_a_phase_ends_when_the_time_is_up(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "LIMIT_S", 0)
    run = gates.Run()
    assert run.do(phase("slow", "import time; time.sleep(60)")) == 124
    assert "over its 0 seconds" in (logs / "slow.log").read_text()


def test_a_command_that_is_not_there_fails_its_phase(logs: Path) -> None:
    assert gates.Run().do(gates.Phase("gone", ("no-such-command-at-all",), gates.SHARED)) == 127


def test_an_unknown_phase_is_named(logs: Path) -> None:
    with pytest.raises(SystemExit, match="Unknown phase nonsense: choose from ansible-lint"):
        gates.main(["nonsense"])
