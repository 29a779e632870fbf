"""Measures a converge that changes nothing: the role beside the same stack written with community.docker.

Both sides run on the same lab host by turns, whole `ansible-playbook` runs by the wall clock; the medians are compared.
Also: how many modules one converge runs, and the module `volume` with a hundred volumes beside one.
The figures go to build/bench/converge.json; the exit code says whether they are as good as promised.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "tests" / "bench"
HOST = "lab1"
ROUNDS = 7
MOST_MODULE_RUNS = 5
MOST_RATIO = 0.5
MOST_VOLUME_RATIO = 2.0
VOLUMES = [{"name": f"om_bench_{number}"} for number in range(100)]


def play(name: str, *options: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    """Run one playbook of the bench on the host; its wall-clock seconds and output. Exits if it fails."""
    command = [
        ".venv/bin/ansible-playbook",
        "-i",
        "build/lab/inventory.yml",
        "--limit",
        HOST,
        f"tests/bench/{name}.yml",
    ]
    started = time.monotonic()
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{name}.yml failed:\n{done.stdout}\n{done.stderr}")
    return seconds, done.stdout


def unchanged(name: str) -> float:
    """Seconds of a converge, which must have changed nothing."""
    seconds, output = play(name)
    if not re.search(rf"^{HOST}\s.*changed=0 ", output, re.MULTILINE):
        sys.exit(f"{name}.yml changed something, so its time means nothing:\n{output}")
    return seconds


def both_sides() -> dict[str, Any]:
    """The two sides by turns, after one unmeasured round each."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(ROUNDS + 1):
        for side, measured in times.items():
            seconds = unchanged(side)
            if number:
                measured.append(seconds)
    ours, peer = statistics.median(times["ours"]), statistics.median(times["peer"])
    return {"ours_s": round(ours, 3), "peer_s": round(peer, 3), "ratio": round(ours / peer, 3), "rounds": ROUNDS}


def module_runs(name: str) -> int:
    """How many modules one run starts on the host: at -vvv Ansible names the file of each."""
    return play(name, "-vvv")[1].count("Using module file ")


def volume_counts() -> dict[str, Any]:
    """Medians of the module's task with one and with a hundred volumes that are there already."""
    with tempfile.TemporaryDirectory() as place:
        written = Path(place) / "durations.json"
        env = {
            "ANSIBLE_CALLBACK_PLUGINS": str(BENCH / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "durations",
            "BENCH_DURATIONS": str(written),
        }
        play("volumes", "-e", json.dumps({"bench_volumes": VOLUMES, "bench_rounds": ROUNDS + 1}), env=env)
        tasks = json.loads(written.read_text())
    one, hundred = (
        statistics.median([task["seconds"] for task in tasks if task["name"] == name][1:])
        for name in ("One volume", "A hundred volumes")
    )
    return {"volume_1_s": round(one, 3), "volume_100_s": round(hundred, 3), "volume_ratio": round(hundred / one, 3)}


def main() -> int:
    with (Path(tempfile.gettempdir()) / "openmemory-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two benches at once would take each other's stacks away
        return bench()


def bench() -> int:
    play("remove")
    play("prepare")
    try:
        for side in ("ours", "peer"):
            play(side)
        figures = {
            **both_sides(),
            "module_runs": module_runs("ours"),
            "peer_module_runs": module_runs("peer"),
            **volume_counts(),
        }
    finally:
        play("remove")
    target = ROOT / "build" / "bench" / "converge.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n")
    print(target.read_text())
    kept = {
        f"module_runs <= {MOST_MODULE_RUNS}": figures["module_runs"] <= MOST_MODULE_RUNS,
        f"ratio <= {MOST_RATIO}": figures["ratio"] <= MOST_RATIO,
        f"volume_ratio < {MOST_VOLUME_RATIO}": figures["volume_ratio"] < MOST_VOLUME_RATIO,
    }
    for promise, holds in kept.items():
        print(f"{'kept' if holds else 'BROKEN'}: {promise}")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
