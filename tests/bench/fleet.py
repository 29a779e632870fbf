"""Measures 10 light lab hosts: a converge that changes nothing beside community.docker's, a backup, the report.

The hosts run a light stack (light.yml: containers that sleep, a SQLite database, plain files), so that ten of them fit
on one small machine. Both sides of the converge run on all hosts by turns, whole `ansible-playbook` runs by the wall
clock; the medians are compared. The figures go to build/bench/fleet.json; the exit code says whether the ratio is as
promised.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_path
from simulated_fleet import MemoryWatch
from sleep_image import make_image

ROOT = bench_path.ROOT
HOSTS = int(os.environ.get("HOSTS", "10"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
MOST_RATIO = 0.5
IMAGE = "om_bench/sleep:1"
PROJECT = "om_bench"
TARGET = ROOT / "build" / "bench" / "fleet.json"
INVENTORY = ROOT / "build" / "lab" / "inventory.yml"
NAMES = ",".join(f"lab{number}" for number in range(1, HOSTS + 1))
# Every interface but the nested engine's own: what came and went since the host's start.
TRAFFIC = "cat /sys/class/net/eth0/statistics/rx_bytes /sys/class/net/eth0/statistics/tx_bytes"


@dataclass(frozen=True)
class Run:
    """A playbook's run: wall-clock seconds, output, and the most memory of the controller's processes in bytes.

    peak_rss_bytes is of the largest process; peak_pss_bytes of all together, what they share counted once.
    """

    seconds: float
    output: str
    peak_rss_bytes: int
    peak_pss_bytes: int


def play(playbook: str, *options: str) -> Run:
    """Run a playbook on the fleet. Exits if it fails on any host."""
    command = [
        *(".venv/bin/ansible-playbook", "-i", str(INVENTORY), "--limit", NAMES),
        *(playbook, "-e", "@tests/bench/fleet_settings.yml", *options),
    ]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        watch = MemoryWatch(process.pid)
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    pss = watch.end()
    if process.returncode:
        sys.exit(f"{playbook} failed:\n{said[-8000:]}")
    print(f"{playbook} {seconds:.1f} s", flush=True)
    return Run(seconds, said, usage.ru_maxrss * 1024, pss)


def unchanged(name: str, *options: str) -> Run:
    """A converge of one side, which must have changed nothing on any host."""
    run = play(f"tests/bench/{name}.yml", *options)
    if len(re.findall(r"^lab\d+\s.*changed=0 ", run.output, re.MULTILINE)) != HOSTS:
        sys.exit(f"{name}.yml changed something, so its time means nothing:\n{run.output[-8000:]}")
    return run


def traffic() -> int:
    """Bytes that all hosts together have received and sent."""
    total = 0
    for number in range(1, HOSTS + 1):
        said = subprocess.run(
            ["docker", "exec", f"omlab-lab{number}", "sh", "-c", TRAFFIC], capture_output=True, text=True, check=True
        )
        total += sum(int(line) for line in said.stdout.split())
    return total


def module_runs(run: Run) -> float:
    """How many modules a run at -vvv starts on each host: Ansible names the file of each."""
    found = run.output.count("Using module file ") / HOSTS
    return int(found) if found.is_integer() else round(found, 2)


def both_sides() -> dict[str, Any]:
    """The two sides by turns, after one unmeasured round in which modules and bytes are counted."""
    counted: dict[str, tuple[float, int]] = {}
    for side in ("ours", "peer"):
        before = traffic()
        runs = module_runs(unchanged(side, "-vvv"))
        counted[side] = runs, (traffic() - before) // HOSTS
    done: dict[str, list[Run]] = {"ours": [], "peer": []}
    for _number in range(ROUNDS):
        for side, measured in done.items():
            measured.append(unchanged(side))
    ours, peer = (statistics.median(run.seconds for run in done[side]) for side in ("ours", "peer"))
    return {
        "ours_s": round(ours, 2),
        "peer_s": round(peer, 2),
        "ratio": round(ours / peer, 3),
        "module_runs_per_host": counted["ours"][0],
        "peer_module_runs_per_host": counted["peer"][0],
        "bytes_per_host": counted["ours"][1],
        "peer_bytes_per_host": counted["peer"][1],
        "controller_peak_rss_bytes": max(run.peak_rss_bytes for run in done["ours"]),
        "controller_peak_pss_bytes": max(run.peak_pss_bytes for run in done["ours"]),
    }


def backups() -> dict[str, Any]:
    """The playbook of backups on the whole fleet: the first time, and when everything is in place."""
    project = ("-e", f"backup_project={PROJECT}")
    first = play("playbooks/backup.yml", *project)
    again = play("playbooks/backup.yml", *project)
    return {"backup_first_s": round(first.seconds, 2), "backup_s": round(again.seconds, 2)}


def report() -> dict[str, Any]:
    """The report of the whole fleet, or what there is of the kind."""
    name = "report" if (ROOT / "playbooks" / "report.yml").exists() else "status"
    run = play(f"playbooks/{name}.yml", "-e", f"stack_project={PROJECT} stack_dir=/opt/{PROJECT}")
    return {f"{name}_s": round(run.seconds, 2), f"{name}_peak_rss_bytes": run.peak_rss_bytes}


def main() -> int:
    with (Path(tempfile.gettempdir()) / "openmemory-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two benches at once would take each other's stacks away
        return bench()


def bench() -> int:
    lab = [sys.executable, "-m", "lab", "up", "--temporary", "--hosts", str(HOSTS)]
    subprocess.run(lab, cwd=ROOT, env={**os.environ, "PYTHONPATH": "molecule"}, check=True)
    play("tests/bench/remove.yml")
    play("tests/bench/prepare.yml")
    play("tests/bench/fleet_prepare.yml", "-e", json.dumps({"fleet_make_image": make_image(IMAGE)}))
    try:
        for side in ("ours", "peer"):
            play(f"tests/bench/{side}.yml")
        play("tests/bench/fleet_fill.yml")
        figures = {
            "hosts": HOSTS,
            **both_sides(),
            "rounds": ROUNDS,
            **backups(),
            **report(),
        }
    finally:
        play("tests/bench/remove.yml")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(figures, indent=2) + "\n")
    print(TARGET.read_text())
    kept = figures["ratio"] <= MOST_RATIO
    print(f"{'kept' if kept else 'BROKEN'}: ratio <= {MOST_RATIO}")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
