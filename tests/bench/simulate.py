"""What fleets of 10, 100 and 1,000 hosts cost the controller, with the connection faked: CPU, memory, round trips.

Whole runs of the collection's playbooks where nothing changes. The hosts answer at once, so what is measured is the
controller's own work; once more with answers that take their time, for what forks do. Figures are in
build/bench/simulation.json. The exit code says whether the cost grows in proportion: a host beyond the hundredth may
cost at most MOST_GROWTH times one beyond the tenth. SIZES="10 100" in the environment runs other sizes.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from simulated_fleet import ROOT, Cost, Fleet

PLAYBOOKS = tuple(name for name in ("site", "status", "report") if (ROOT / "playbooks" / f"{name}.yml").exists())
SIZES = tuple(int(number) for number in os.environ.get("SIZES", "10 100 1000").split())
MOST_GROWTH = 1.5
FORKS = (5, 20, 50, 100)
FORKS_HOSTS = 100
FORKS_DELAY_S = 0.5  # about what a module takes on a host
TARGET = ROOT / "build" / "bench" / "simulation.json"


def run(playbook: str, hosts: int, **options: Any) -> Cost:
    """One run, which must have succeeded and changed nothing."""
    fleet = Fleet(TARGET.parent / "simulated" / str(hosts), hosts, {})
    fleet.prepare()
    given = ("-e", f"report_dir={TARGET.parent / 'simulated' / 'report'}") if playbook == "report" else ()
    cost = fleet.play(f"playbooks/{playbook}.yml", *given, **options)
    if cost.code or cost.output.count("changed=0 ") < hosts - bool(given):  # the page is new, on one host's account
        sys.exit(f"{playbook}.yml failed or changed something, so its cost means nothing:\n{cost.output[-6000:]}")
    return cost


def growth(rows: list[dict[str, Any]], figure: str) -> float:
    """What a host more costs from the middle to the largest size, as a part of that from the smallest to the middle."""
    small, middle, large = rows[-3:]
    first = (middle[figure] - small[figure]) / (middle["hosts"] - small["hosts"])
    then = (large[figure] - middle[figure]) / (large["hosts"] - middle["hosts"])
    return float(round(then / first, 2))


def sizes() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for playbook in PLAYBOOKS:
        found[playbook] = []
        for hosts in SIZES:
            found[playbook].append(run(playbook, hosts).figures())
            print(playbook, json.dumps(found[playbook][-1]), flush=True)
    return found


def forks() -> list[dict[str, Any]]:
    found = []
    for number in FORKS:
        cost = run("status", FORKS_HOSTS, forks=number, delay_s=FORKS_DELAY_S)
        found.append({"forks": number, "delay_s": FORKS_DELAY_S, **cost.figures()})
        print("forks", json.dumps(found[-1]), flush=True)
    return found


def main() -> int:
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {"playbooks": sizes(), "forks": forks()}
    kept = True
    if len(SIZES) > 2:
        figures["growth"] = {name: growth(rows, "cpu_s") for name, rows in figures["playbooks"].items()}
        for name, value in figures["growth"].items():
            kept = kept and value <= MOST_GROWTH
            print(f"{'kept' if value <= MOST_GROWTH else 'BROKEN'}: growth of {name} {value} <= {MOST_GROWTH}")
    TARGET.write_text(json.dumps(figures, indent=2) + "\n")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
