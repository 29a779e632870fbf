"""Measures a move from host one of the lab to host two, beside bare rsync of the same tree over the same network.

For each size: how long the transfer takes while the stack runs, and bare rsync to an empty directory; how long requests
wait at the cut-over, and how much of that is the start; and the downtime of a conversion of the same volumes. The rows
go to build/bench/move.json; the exit code says whether all is as promised.

    SIZES=200M,2G     how much is filled in beside the stores' own
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "bench"
UNITS = {"M": 10**6, "G": 10**9}
MOST_BESIDE_S = 2.0  # what a cut-over, and a conversion's downtime, may take besides the start
MOST_GROWTH = 1.25  # a cut-over at the largest size, beside that at the smallest
LEAST_OF_RSYNC = 0.7  # the transfer's speed, beside bare rsync's


def play(name: str, **variables: Any) -> None:
    """Run one playbook of the bench; exits with its output if it fails."""
    command = [".venv/bin/ansible-playbook", "-i", "build/lab/inventory.yml", "-i", "tests/bench/move_inventory.yml"]
    command += ["-e", json.dumps(variables), f"tests/bench/{name}.yml"]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}.yml failed:\n{done.stdout}\n{done.stderr}")


def measured(size: int) -> dict[str, float]:
    """One size, on hosts that have nothing of it before and after."""
    play("move_remove")
    try:
        with tempfile.NamedTemporaryFile("r") as written:
            play("move", move_bytes=size, move_written=written.name)
            row: dict[str, float] = json.loads(Path(written.name).read_text())
            return row
    finally:
        play("move_remove")


def failures(rows: list[dict[str, float]]) -> list[str]:
    """What is not as promised, in sentences."""
    found = []
    for name, what in (("cutover_s", "A cut-over"), ("convert_downtime_s", "A conversion's downtime")):
        beside = max(row[name] - row["start_s"] for row in rows)
        if beside > MOST_BESIDE_S:
            found.append(f"{what} took {beside:.1f} s besides the start; {MOST_BESIDE_S:g} s are promised.")
    growth = rows[-1]["cutover_s"] / rows[0]["cutover_s"]
    if growth > MOST_GROWTH:
        found.append(f"The cut-over grows with the size, to {growth:.2f} times; {MOST_GROWTH:g} times are promised.")
    slowest = min(row["rsync_s"] / row["transfer_s"] for row in rows)
    if slowest < LEAST_OF_RSYNC:
        found.append(f"The transfer reached {slowest:.2f} of bare rsync's speed; {LEAST_OF_RSYNC:g} are promised.")
    return found


def main() -> int:
    sizes = [int(float(size[:-1]) * UNITS[size[-1]]) for size in os.environ.get("SIZES", "200M,2G").split(",")]
    with (Path(tempfile.gettempdir()) / "openmemory-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at a time measure each other
        rows = [measured(size) for size in sizes]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "move.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))
    wrong = failures(rows)
    print("\n".join(wrong) or "All as promised: a cut-over does not grow with what is stored.")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
