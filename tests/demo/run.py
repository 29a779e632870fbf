"""The demo: two lab hosts, the stack, 1,000 memories, the guide's scenarios, backup, loss, restore, drill, move."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build/demo"
INVENTORY = ["-i", "build/lab/inventory.yml", "-i", "tests/demo/settings.yml"]


def password() -> str:
    """The lab stacks' Neo4j password: made once, so that a second demo can open what the first left."""
    kept = OUT / "neo4j_password"
    if not kept.exists():
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(18))
    return kept.read_text()


def step(title: str, *command: str, env: dict[str, str], quiet: bool = True) -> float:
    """Run one step with its output in build/demo/, say how long it took (seconds); end the demo where it fails."""
    print(f"demo: {title} …", flush=True)
    log = OUT / (title.split(",")[0].replace(" ", "-") + ".log")
    started = time.monotonic()
    with log.open("w") as out:
        target = out if quiet else None
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=target, stderr=target, check=False
        )
    seconds = time.monotonic() - started
    if done.returncode:
        if quiet:
            print("".join(log.open().readlines()[-40:]), file=sys.stderr)
        where = f"; its whole output is in {log.relative_to(ROOT)}" if quiet else ""
        sys.exit(f"demo: the step '{title}' failed (exit {done.returncode}){where}.")
    print(f"demo: {title}: {seconds:.1f} s", flush=True)
    return seconds


def taken(found: dict[str, str]) -> float:
    """Seconds of a scenario without the writing before it, or of the writing where that is all there is."""
    if not found["scenario"].startswith("write"):
        return float(found["seconds"])
    hours, minutes, seconds = found["write_time"].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def summary(times: dict[str, float]) -> bool:
    """Print what persisted and how long it took; true when every scenario ended as it should."""
    good = True
    print("\nWhat persisted (every acknowledged memory looked up in SQLite, Qdrant and Neo4j)\n")
    row = "  {:<6} {:<34} {:<16} {:>13} {:>20} {:>9}"
    print(row.format("host", "scenario", "outcome", "acknowledged", "sqlite/qdrant/neo4j", "seconds"))
    for file in sorted(OUT.glob("lab*.json")):
        for found in json.loads(file.read_text()):
            good = good and found["outcome"] == found["expect"]
            outcome = "lost, as asked" if (found["outcome"], found["expect"]) == ("lost", "lost") else found["outcome"]
            counts = f"{found['sqlite']}/{found['qdrant']}/{found['neo4j']}"
            seconds = f"{taken(found):.1f}"
            print(row.format(file.stem, found["scenario"], outcome, found["acknowledged"], counts, seconds))
    backups()
    moved()
    print("\nHow long each step took\n")
    for title, seconds in times.items():
        print(f"  {title:<60} {seconds:>8.1f} s")
    return good


def backups() -> None:
    """Print what each host's backup, restore and drill came to; they have failed by now if anything was missing."""
    print("\nBackup while memories were written, and its restore (acknowledged before it, and all read back)\n")
    row = "  {:<6} {:>14} {:>10} {:>10} {:>9} {:<28} {:>9} {:>9}  {}"
    head = ("writes blocked", "snapshot", "stored", "memories", "restored", "took", "down", "drill")
    print(row.format("host", *head))
    for file in sorted(OUT.glob("backup-*.json")):
        found = json.loads(file.read_text())
        sizes = [f"{found[name] / 1e6:.1f} MB" for name in ("snapshot_bytes", "stored_bytes")]
        down = f"{found['downtime_s']:.1f} s" if found["downtime_s"] else "-"
        drill = f"ok, {found['drill']['memories']} memories read in {found['drill']['seconds']:.0f} s"
        took = f"{found['restore_s']:.1f} s"
        counts = (f"{found['freeze_s']:.2f} s", *sizes, found["acknowledged"])
        print(row.format(file.stem.removeprefix("backup-"), *counts, found["restored"], took, down, drill))


def moved() -> None:
    """Print what the move from host one to host two came to; it has failed by now if a memory was missing."""
    found = json.loads((OUT / "move.json").read_text())
    print("\nHost one's stack moved to host two while memories were written\n")
    start = f"{found['start_s']:.1f} s of them for the start until all was healthy"
    print(f"  cut-over: {found['cutover_s']:.1f} s in which requests waited, {start}")
    print(f"  memories: {found['acknowledged']} acknowledged on host one, and all read back on host two")


NEXT = """
The stack is on host two now, and retired on host one. Look at it:
  .venv/bin/ansible-playbook -i build/lab/inventory.yml -i tests/demo/settings.yml playbooks/status.yml
  ssh -i build/lab/id_ed25519 -o UserKnownHostsFile=build/lab/known_hosts root@127.0.1.2      (host one: 127.0.1.1)
    cd /opt/openmemory && docker compose ps
    python3 /tmp/openmemory_memories.py read --user persistence --log /tmp/openmemory_demo.log
    openmemory-stack status; openmemory-stack list; openmemory-stack restore --help
Remove it, the lab hosts and the registry:
  make lab-destroy
"""


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*.json"):
        old.unlink()
    env = dict(os.environ, PYTHONPATH="molecule", NEO4J_PASSWORD=password())
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env.setdefault("GOOGLE_API_KEY", "demo-key-the-stand-in-never-calls-out")
    play = ["ansible-playbook", *INVENTORY]
    times: dict[str, float] = {}

    def run(title: str, *command: str, quiet: bool = True) -> None:
        times[title] = step(title, *command, env=env, quiet=quiet)

    lab = (sys.executable, "-m", "lab", "up", "--hosts", "2")
    run("bring up two lab hosts, a registry and the images", *lab, quiet=False)
    run("clear what an earlier demo left", *play, "tests/demo/remove.yml")
    run("deploy on both hosts", *play, "playbooks/site.yml")
    run("deploy again, nothing to change", *play, "playbooks/site.yml")
    unchanged = len(re.findall(r"changed=0 ", (OUT / "deploy-again.log").read_text())) == 2
    if not unchanged:
        sys.exit("demo: the second deployment changed something; see build/demo/deploy-again.log.")
    run("write 1000 memories, play the four scenarios", *play, "-e", f"demo_results={OUT}", "tests/demo/scenarios.yml")
    saved = (*play, "-e", f"demo_results={OUT}", "tests/demo/backup.yml")
    run("back up under load, lose it, restore, drill", *saved)
    room = ("-e", "target=lab2", "-e", "purge_confirm=openmemory", "-e", "purge_snapshot=none")
    run("make room on host two, purge its stack", *play, *room, "playbooks/purge.yml")
    # the scenarios have brought host one to this version, and no database is taken back one
    newer = ("-e", "stack_openmemory_tag=1.1")
    run("move the stack under load to host two", *play, *newer, "-e", f"demo_results={OUT}", "tests/demo/migrate.yml")
    run("back it up on host two, too", *play, "-e", "target=lab2", "playbooks/backup.yml")
    run("status", *play, "playbooks/status.yml", quiet=False)
    good = summary(times)
    print(NEXT)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
