# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner of the gates: it counts what ran, stops at a failure, and never calls a failure a success."""

from __future__ import annotations

import sys
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


def phase(name: str, code: str, lab: bool = False, alone: bool = False) -> gates.Phase:
    return gates.Phase(name, (sys.executable, "-c", code), lab, alone)


def test_a_failing_phase_shows_its_output_and_fails_the_run(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = gates.Run()
    run.do(phase("bad", "print('the reason'); raise SystemExit(3)"))
    assert run.failed
    assert "the reason" in capsys.readouterr().out
    assert (logs / "bad.log").read_text() == "the reason\n"


def test_a_failing_phase_stops_those_after_it(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the lab begin when that is up; it goes down whatever happened."""
    steps = [phase(name, f"raise SystemExit({name == 'bad'})", True, True) for name in ("good", "bad", "never")]
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


def test_two_run_at_a_time_and_some_alone(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first two fails unless the other comes, the last two if anything runs beside them."""
    place = str(logs / "here")
    wait = f"import os, time; open({place!r} + NAME, 'w'); time.sleep(0.5); ok = os.path.exists({place!r} + OTHER)"
    pair = [
        phase(name, wait.replace("NAME", repr(name)).replace("OTHER", repr(other)) + "; raise SystemExit(not ok)")
        for name, other in (("one", "other"), ("other", "one"))
    ]
    alone = f"import os, time; os.mkdir({place!r}); time.sleep(0.4); os.rmdir({place!r})"
    steps = [phase("third", alone, alone=True), *pair, phase("fourth", alone, alone=True)]
    monkeypatch.setattr(gates, "phases", lambda: steps)
    assert gates.main([]) == 0


def test_a_phase_ends_when_the_time_is_up(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "LIMIT_S", 0)
    run = gates.Run()
    assert run.do(phase("slow", "import time; time.sleep(60)")) == 124
    assert "over its 0 seconds" in (logs / "slow.log").read_text()


def test_an_unknown_phase_is_named(logs: Path) -> None:
    with pytest.raises(SystemExit, match="Unknown phase nonsense: choose from ansible-lint"):
        gates.main(["nonsense"])
