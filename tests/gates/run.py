"""Runs the project's gates and tests in phases and says how long each took: run.py [PHASE …], all phases without one.

Those that need an engine run two at a time; those that deploy whole stacks on the lab's hosts follow, one on the hosts
and one on their twins at a time. All others run beside them in a lane of their own, at a low priority: they use what
those leave of the machine. More at a time takes longer, as two cores are busy all the time, and what lasts longer asks
more often. The lab goes down at the end only if it came up here. After the first failing phase none begins, and the
output of every phase is in build/test/PHASE.log.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "test"
PYTHON = ".venv/bin/python"
PYTEST = (PYTHON, "-m", "pytest", "-q")
TYPED = ("plugins/module_utils/_core", "molecule/lab", "tests/gates", "tests/bench", "tests/chaos", "tests/monitoring")
LIMIT_S = 4500  # CI ends a run after 90 minutes without saying where it was; stop before that and say it
TAIL_LINES = 120
SHORT_TAIL_LINES = 40
LOW = ("nice", "-n", "10")
BESIDE, SHARED, HOSTS, TWINS = "beside", "shared", "hosts", "twins"
# What each lane takes, the first kind first. A scenario uses most of two cores, the others less than one.
LANES = ((BESIDE,), (SHARED, HOSTS, TWINS), (SHARED, HOSTS, TWINS))
# Scenarios that run on the twins of the hosts, beside one on the hosts themselves: about half of them, by time.
ON_TWINS = (
    "backup", "convert", "purge", "repositories", "restore", "restore_host", "stack_managed", "stack_own_compose"
)  # fmt: skip
# Tests in tests/chaos of repositories and of files: no container is involved.
WITHOUT_ENGINE = (
    "append_only",
    "commit_ahead",
    "copies",
    "known_snapshots",
    "repository_faults",
    "rest_login",
    "retention",
)
# Tests in tests/chaos that wait for each other by a lock, as their names on an engine are fixed: a lane that began a
# second one would only wait. The first row is so long that it begins early.
ONE_AT_A_TIME = (
    (
        "backup_faults", "command_kills", "convert", "convert_kills", "handover", "head_start", "purge", "random_kills",
        "reflink", "restore", "restore_disk_full", "restore_faults", "restore_kills", "short_lived",
    ),
    ("dockerd_killed", "migrate", "whole_kills"),
    ("update", "update_kills", "update_steps"),
    ("guard", "pending_check"),
)  # fmt: skip
# The row of those that kill the engines of the lab's hosts, or move stacks between them by leases of 1.6 seconds: there
# is no scenario on these meanwhile, nor on their twins, which would take the processor from them.
ON_HOSTS = 1
ASK_HOSTS = ("round_trip",)  # for another restic


@dataclass(frozen=True)
class Phase:
    """One command. where: BESIDE, SHARED, HOSTS or TWINS; lab: it needs running lab hosts; optional: only by name.

    row: of the phases in ONE_AT_A_TIME, of which one runs at a time; None for all others.
    """

    name: str
    command: tuple[str, ...]
    where: str
    lab: bool = True
    optional: bool = False
    row: int | None = None


def _beside(name: str, *command: str, lab: bool = False) -> Phase:
    return Phase(name, (*LOW, *command), BESIDE, lab)


def _asked_for(name: str, *command: str, lab: bool = True) -> Phase:
    return Phase(name, command, HOSTS, lab, optional=True)


UP = ("-m", "lab", "up", "--temporary", "--hosts", "2", "--bare", "bookworm,trixie")
LAB_UP = Phase("lab up", (PYTHON, *UP), SHARED, lab=False)
LAB_DOWN = Phase("lab down", (PYTHON, "-m", "lab", "down", "--temporary"), SHARED)


@dataclass
class Result:
    """What a phase did: exit code, wall-clock seconds, and the tests its output counts (1 where it counts none)."""

    phase: Phase
    code: int
    seconds: float
    passed: int = 0
    failed: int = 0


def phases() -> list[Phase]:
    """Every phase, in order; the Molecule scenarios are those of SCENARIO, or all."""
    static = [
        _beside("ruff", "sh", "-c", "ruff check . && ruff format --check ."),
        _beside("mypy", "mypy", "--no-error-summary", *TYPED),
        _beside("yamllint", "yamllint", "--strict", "."),
        _beside("shell", "sh", "-c", "git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck"),
        _beside("ansible-lint", "ansible-lint", "--nocolor", "-q"),
        _beside("sanity", PYTHON, "tests/gates/sanity.py"),
        _beside("unit", *PYTEST, "tests/unit"),
        _beside("docs", *PYTEST, "tests/gates/test_docs_examples.py"),
        _beside("messages", *PYTEST, "tests/gates/test_messages.py"),
        _beside("docsite", PYTHON, "tests/gates/docsite.py"),
        _beside("execution-environment", PYTHON, "tests/gates/execution_environment.py"),
        _beside("simulation", *PYTEST, "tests/gates/test_simulation.py"),
        _beside("browser", *PYTEST, "tests/browser"),
        _beside("monitoring", *PYTEST, "tests/monitoring"),
        _beside("collection", *PYTEST, "tests/gates/test_collection.py"),
        *(_beside(f"chaos:{name}", *PYTEST, f"tests/chaos/test_{name}.py", lab=True) for name in WITHOUT_ENGINE),
    ]
    wanted = os.environ.get("SCENARIO") or "all"
    found = sorted(path.parent.name for path in ROOT.glob("molecule/*/converge.yml"))
    molecule = ("molecule", "test", "--destroy", "never", "-s")
    return [
        *static,
        *(
            Phase(f"molecule:{name}", (*molecule, name), TWINS if name in ON_TWINS else HOSTS)
            for name in (found if wanted == "all" else [wanted])
        ),
        Phase("infra_repo", (*PYTEST, "tests/gates/test_infra_repo.py"), HOSTS),
        Phase("integration", (*PYTEST, "tests/integration"), SHARED, lab=False),
        *(
            _chaos(name)
            for name in sorted((path.stem[5:] for path in ROOT.glob("tests/chaos/test_*.py")), key=_longest_first)
            if name not in WITHOUT_ENGINE
        ),
        _asked_for("soak", *PYTEST, "-rP", "tests/chaos/test_under_load.py", "tests/chaos/test_random_kills.py"),
        _asked_for("bench", PYTHON, "tests/bench/converge.py"),
        _asked_for("bench-backup", PYTHON, "tests/bench/backup.py"),
        _asked_for("bench-move", PYTHON, "tests/bench/move.py"),
        _asked_for("bench-fleet", PYTHON, "tests/bench/fleet.py"),
        _asked_for("bench-simulation", PYTHON, "tests/bench/simulate.py", lab=False),
    ]


def _chaos(name: str) -> Phase:
    lab = _row(name) == ON_HOSTS or name in ASK_HOSTS
    return Phase(f"chaos:{name}", (*PYTEST, f"tests/chaos/test_{name}.py"), SHARED, lab, row=_row(name))


def _longest_first(name: str) -> tuple[bool, bool, bool, str]:
    """The rows come first, as one of each runs at a time, and the test under load, which takes longest."""
    return _row(name) != ON_HOSTS, _row(name) != 0, name != "under_load", name


def _row(name: str) -> int | None:
    return next((number for number, row in enumerate(ONE_AT_A_TIME) if name in row), None)


@dataclass
class Run:
    """One run: the results so far, and how much time is left."""

    started: float = field(default_factory=time.monotonic)
    results: list[Result] = field(default_factory=list)

    def do(self, phase: Phase) -> int:
        """Run one phase into its log; a failing one prints the end of that log."""
        log = log_of(phase)
        begun = time.monotonic()
        left = max(1.0, LIMIT_S - (begun - self.started))
        with log.open("w") as out:
            try:
                code = call(phase, stdout=out, stderr=out, timeout=left).returncode
            except subprocess.TimeoutExpired:
                code = 124
                out.write(f"\nStopped: the whole run was over its {LIMIT_S} seconds.\n")
            except OSError as error:
                code = 127
                out.write(f"{phase.command[0]} cannot be run: {error.strerror}.\n")
        text = log.read_text(errors="replace")
        result = Result(phase, code, time.monotonic() - begun, *counts(text, code))
        self.results.append(result)
        print(f"{phase.name:<28} {'ok' if not code else 'FAILED':<7} {result.seconds:7.1f} s", flush=True)
        if code:
            print("\n".join(text.splitlines()[-TAIL_LINES:]), flush=True)
        return code

    @property
    def failed(self) -> bool:
        return any(result.code for result in self.results)


def environment(phase: Phase) -> dict[str, str]:
    """The environment of a phase: .venv's tools first, the lab importable, nothing of the caller's Ansible."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    path = f"{ROOT / '.venv/bin'}:{kept.get('PATH', '')}"
    own = {"PATH": path, "PYTHONPATH": "molecule", "PY_COLORS": "0", "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
    if phase.where == TWINS:  # with a state of Molecule's own, as another scenario runs meanwhile
        own.update(LAB_INVENTORY="twins.yml", MOLECULE_EPHEMERAL_DIRECTORY=str(ROOT / "build/lab/molecule-twins"))
    return {**kept, **own}


def call(phase: Phase, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        phase.command, cwd=ROOT, env=environment(phase), stdin=subprocess.DEVNULL, check=False, **options
    )


def counts(text: str, code: int) -> tuple[int, int]:
    """(passed, failed) by pytest's closing line, else one for the phase itself."""
    closing = re.findall(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+) in [\d.]+s", text, re.MULTILINE)
    found = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", closing[-1])} if closing else {}
    passed, failed = found.get("passed", 0), found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
    if code:
        return passed, max(failed, 1)
    return max(passed, 1), failed


def chosen(names: list[str]) -> list[Phase]:
    """The phases that were named (`molecule` and `chaos` mean all of their kind), or all that are not optional."""
    every = phases()
    known = {phase.name for phase in every} | {"molecule", "chaos"}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"Unknown phase {', '.join(unknown)}: choose from {', '.join(sorted(known))}.")
    if not names:
        return [phase for phase in every if not phase.optional]
    return [phase for phase in every if phase.name in names or phase.name.split(":")[0] in names]


class Lanes:
    """Runs phases until one fails: in every lane the first that may begin, of the first kind of this lane."""

    def __init__(self, run: Run, todo: Sequence[Phase]):
        self._run = run
        self._pending = list(todo)
        self._busy: list[Phase] = []
        self._lab = False
        self._turn = threading.Condition()

    def work(self) -> None:
        """Do all of it."""
        lanes = [threading.Thread(target=self._lane, args=(places,)) for places in LANES]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    def _lane(self, places: Sequence[str]) -> None:
        while (phase := self._take(places)) is not None:
            code = self._run.do(phase)
            with self._turn:
                self._lab = self._lab or (phase.name == LAB_UP.name and not code)
                self._busy.remove(phase)
                self._turn.notify_all()

    def _take(self, places: Sequence[str]) -> Phase | None:
        with self._turn:
            while not self._run.failed and (mine := [one for one in self._pending if one.where in places]):
                for phase in sorted(mine, key=lambda one: places.index(one.where)):
                    if self._may_begin(phase):
                        self._pending.remove(phase)
                        self._busy.append(phase)
                        return phase
                self._turn.wait()
            return None

    def _may_begin(self, phase: Phase) -> bool:
        if phase.lab and not self._lab:
            return False
        if phase.where in (BESIDE, SHARED):
            return phase.row is None or all(one.row != phase.row for one in self._busy)
        before = any(one.where == SHARED for one in self._pending) or any(one.row == ON_HOSTS for one in self._busy)
        return not before and all(one.where != phase.where for one in self._busy)


def summary(run: Run) -> None:
    print(f"\n{'phase':<28} {'passed':>6} {'failed':>6} {'seconds':>8}")
    for result in run.results:
        print(f"{result.phase.name:<28} {result.passed:>6} {result.failed:>6} {result.seconds:>8.1f}")
    print(f"{'all':<28} {'':>6} {'':>6} {time.monotonic() - run.started:>8.1f}\n")
    for result in run.results:
        if result.code:  # again, and last: of a long output only its end may be kept
            print(f"The end of {result.phase.name}:\n{_telling(log_of(result.phase))}\n")
    print(f"{sum(r.passed for r in run.results)} passed, {sum(r.failed for r in run.results)} failed", flush=True)


def log_of(phase: Phase) -> Path:
    return LOGS / f"{phase.name.replace(':', '-')}.log"


def _telling(log: Path) -> str:
    """What Ansible or pytest say of a failure, or else just the last lines."""
    lines = log.read_text(errors="replace").splitlines()
    first = next((at for at, line in enumerate(lines) if re.search(r"fatal: \[|^E  |^FAILED |Traceback", line)), 0)
    return "\n".join(lines[max(0, first - 5) if first else -SHORT_TAIL_LINES :][:SHORT_TAIL_LINES])


def main(names: list[str]) -> int:
    todo = chosen(names)
    LOGS.mkdir(parents=True, exist_ok=True)
    run = Run()
    needs_lab = any(phase.lab for phase in todo)
    up = [replace(LAB_UP, command=(*LAB_UP.command, "--twins")) if any(one.where == TWINS for one in todo) else LAB_UP]
    try:
        Lanes(run, [*(up if needs_lab else []), *todo]).work()
    finally:
        if needs_lab:
            run.do(LAB_DOWN)
    summary(run)
    return int(run.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
