"""Runs the project's gates and tests in phases and says how long each took: run.py [PHASE …], all phases without one.

The quick phases run two at a time; what needs the lab follows one after the other. The lab goes down at the end only if
it came up here. The first failing phase stops the run, and the output of every phase is in build/test/PHASE.log.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "test"
PYTHON = ".venv/bin/python"
LIMIT_S = 4500  # CI ends a run after 90 minutes without saying where it was; stop before that and say it
TAIL_LINES = 120
SHORT_TAIL_LINES = 40


@dataclass(frozen=True)
class Phase:
    """One command; `lab` says that it needs running lab hosts."""

    name: str
    command: tuple[str, ...]
    lab: bool = False
    beside: bool = False  # needs the lab, and nothing that another such phase uses: two run at a time
    optional: bool = False  # runs only when it is asked for by name


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
        Phase("sanity", (PYTHON, "tests/gates/sanity.py")),
        Phase("ansible-lint", ("ansible-lint", "--nocolor", "-q")),
        Phase("unit", (PYTHON, "-m", "pytest", "-q", "tests/unit")),
        Phase(
            "mypy",
            (
                "mypy",
                "--no-error-summary",
                "plugins/module_utils/_core",
                "molecule/lab",
                "tests/gates",
                "tests/bench",
                "tests/chaos",
            ),
        ),
        Phase("ruff", ("sh", "-c", "ruff check . && ruff format --check .")),
        Phase("yamllint", ("yamllint", "--strict", ".")),
        Phase("shell", ("sh", "-c", "git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck")),
        Phase("docs", (PYTHON, "-m", "pytest", "-q", "tests/gates/test_docs_examples.py")),
        Phase("collection", (PYTHON, "-m", "pytest", "-q", "tests/gates/test_collection.py")),
    ]
    wanted = os.environ.get("SCENARIO") or "all"
    found = sorted(path.parent.name for path in ROOT.glob("molecule/*/converge.yml"))
    scenarios = found if wanted == "all" else [wanted]
    return [
        *static,
        Phase("integration", (PYTHON, "-m", "pytest", "-q", "tests/integration"), lab=True),
        *(
            Phase(f"chaos:{path.stem[5:]}", (PYTHON, "-m", "pytest", "-q", str(path.relative_to(ROOT))), True, True)
            for path in sorted(ROOT.glob("tests/chaos/test_*.py"), key=_longest_first)
        ),
        *(
            Phase(f"molecule:{name}", ("molecule", "test", "-s", name, "--destroy", "never"), lab=True)
            for name in scenarios
        ),
        Phase("infra_repo", (PYTHON, "-m", "pytest", "-q", "tests/gates/test_infra_repo.py"), lab=True),
        Phase("soak", (PYTHON, "-m", "pytest", "-q", "-rP", "tests/chaos/test_under_load.py"), lab=True, optional=True),
        Phase("bench", (PYTHON, "tests/bench/converge.py"), lab=True, optional=True),
        Phase("bench-backup", (PYTHON, "tests/bench/backup.py"), lab=True, optional=True),
    ]


def _longest_first(path: Path) -> tuple[bool, str]:
    """The test under load takes as long as all others together, so it starts first."""
    return path.stem != "test_under_load", path.stem


@dataclass
class Run:
    """One run: the results so far, and how much time is left."""

    started: float = field(default_factory=time.monotonic)
    results: list[Result] = field(default_factory=list)

    def do(self, phase: Phase) -> Result:
        """Run one phase into its log; a failing one prints the end of that log."""
        log = log_of(phase)
        begun = time.monotonic()
        left = max(1.0, LIMIT_S - (begun - self.started))
        with log.open("w") as out:
            try:
                code = call(phase.command, stdout=out, stderr=out, timeout=left).returncode
            except subprocess.TimeoutExpired:
                code = 124
                out.write(f"\nStopped: the whole run was over its {LIMIT_S} seconds.\n")
        text = log.read_text(errors="replace")
        result = Result(phase, code, time.monotonic() - begun, *counts(text, code))
        self.results.append(result)
        print(f"{phase.name:<28} {'ok' if not code else 'FAILED':<7} {result.seconds:7.1f} s", flush=True)
        if code:
            print("\n".join(text.splitlines()[-TAIL_LINES:]), flush=True)
        return result

    @property
    def failed(self) -> bool:
        return any(result.code for result in self.results)


def environment() -> dict[str, str]:
    """The environment of every phase: .venv's tools first, the lab importable, nothing of the caller's Ansible."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_"))}
    path = f"{ROOT / '.venv/bin'}:{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "PYTHONPATH": "molecule", "PY_COLORS": "0", "NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}


def call(command: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, check=False, **options)


def counts(text: str, code: int) -> tuple[int, int]:
    """(passed, failed) by pytest's closing line, else one for the phase itself."""
    closing = re.findall(r"^(?:=+ )?((?:\d+ \w+(?:, )?)+) in [\d.]+s", text, re.MULTILINE)
    found = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", closing[-1])} if closing else {}
    passed, failed = found.get("passed", 0), found.get("failed", 0) + found.get("error", 0) + found.get("errors", 0)
    if code:
        return passed, max(failed, 1)
    return max(passed, 1), failed


def lab(*arguments: str) -> Phase:
    return Phase(f"lab {arguments[0]}", (PYTHON, "-m", "lab", *arguments), lab=True)


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


def in_lab(run: Run, todo: list[Phase]) -> None:
    """Run what needs the lab; of the lab, only what came up for it goes down again."""
    try:
        if run.do(lab("up", "--temporary", "--hosts", "2", "--bare", "bookworm,trixie")).code:
            return
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(run.do, [phase for phase in todo if phase.beside]))
        for phase in todo:
            if run.failed:
                return
            if not phase.beside:
                run.do(phase)
    finally:
        run.do(lab("down", "--temporary"))


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
    with ThreadPoolExecutor(max_workers=2) as pool:
        list(pool.map(run.do, [phase for phase in todo if not phase.lab]))
    needs_lab = [phase for phase in todo if phase.lab]
    if needs_lab and not run.failed:
        in_lab(run, needs_lab)
    summary(run)
    return int(run.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
