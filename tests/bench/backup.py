"""Measures backups and restores beside what they are compared with: the same stack, one run, under write load.

For each file system (a loop image of its own) and size: our freeze window, and the downtime of stop + `tar -z` + start
and of stop + rsync + start; a first backup and one after 1 % of change beside bare restic's; a restore beside bare
restic's; a restore's downtime beside the stack's own stop and start; and the peak memory of our Python. The rows go to
build/bench/backup.json, a picture beside it; the exit code says whether all is as promised.

    SIZES=1G,5G FILESYSTEMS=ext4,xfs ROUNDS=3     what is measured, and how often each side of a comparison
    KEEP_SEEDS=1                                  leaves the filled stores in build/ for the next run
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backup_plot import draw, table
from bench_path import ROOT
from measured_stack import PORT, PROJECT, Contents, FileSystem, MeasuredStack, Writer, call, data_bytes

RESULTS = ROOT / "build" / "bench"
WORK = ROOT / "build" / "ombench"
SEEDS = WORK / "seeds"  # filled stores, so that the second file system of a size needs no filling
VOLUMES = ("openmemory_data", "qdrant_storage", "neo4j_data", "neo4j_logs")
ROUNDS = int(os.environ.get("ROUNDS", "3"))
LARGE = 3e9  # bytes: from here on the bounds of 5 GB hold
MOST_RSS = 80 * 2**20
UNITS = {"M": 1e6, "G": 1e9}
# As on a host, where the command is installed: only its first run compiles it.
BYTECODE_KEPT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "PYTHONPYCACHEPREFIX": str(WORK / "bytecode"),
}
Row = dict[str, Any]


def wanted_sizes() -> list[int]:
    return [int(float(size[:-1]) * UNITS[size[-1]]) for size in os.environ.get("SIZES", "1G,5G").split(",")]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.monotonic()
    result = action()
    return time.monotonic() - begun, result


class Case:
    """One file system with a stack of one size on it, and everything that is measured there."""

    def __init__(self, system: FileSystem, size: int):
        self.system = system
        self.mount = system.mount
        self.size = size
        self.data = self.mount / "volumes"
        self.password = self.mount / "password"
        places = {key: self.data / key for key in VOLUMES}
        self.stack = MeasuredStack(PROJECT, WORK / "project", PORT, places)
        self.contents = Contents(self.stack, size)
        self.peak = 0
        self.freezes: list[float] = []
        self.details: dict[str, Any] = {}

    def prepare(self) -> None:
        """The filled stack, up."""
        self.password.write_text("bench")
        self.password.chmod(0o600)
        seed = SEEDS / str(self.size)
        if not (seed / "whole").exists():
            shutil.rmtree(seed, ignore_errors=True)
            say(f"filling {self.size / 1e9:g} GB")
            self.contents.fill()
            self.stack.compose("down", "--volumes")
            seed.mkdir(parents=True)
            call("cp", "--archive", "--sparse=always", str(self.data), str(seed / "volumes"))
            (seed / "whole").touch()
        else:
            for place in self.stack.places.values():
                shutil.rmtree(place)
            call("cp", "--archive", "--sparse=always", *map(str, (seed / "volumes").iterdir()), str(self.data))
        self.settle()
        self.stack.up()

    def measure(self) -> Row:
        """All figures, in seconds and bytes. A writer goes on all the while."""
        writer = Writer(self.stack.url)
        writer.begin()
        try:
            row: Row = {"filesystem": self.system.kind, "size_bytes": data_bytes(self.data)}
            say(f"{self.system.kind}, {row['size_bytes'] / 1e9:.2f} GB of data")
            restarts = [writer.outage(self.stack.restart)[0]]
            row["stop_tar_start_s"] = self.stop_tar_start(writer)
            row.update(self.first_backups())
            row.update(self.deltas())
            row["stop_rsync_start_s"] = self.stop_rsync_start(writer)
            restarts.append(writer.outage(self.stack.restart)[0])
            row.update(self.restores(writer))
            restarts.append(writer.outage(self.stack.restart)[0])
            row["stack_restart_s"] = statistics.median(restarts)
            row["freeze_s"] = max(self.freezes)
            row["peak_rss_bytes"] = self.peak
            self.details.update(freezes=self.freezes, restarts=restarts, acknowledged=len(writer.acknowledged))
            return {key: round(row[key], 3) if isinstance(row[key], float) else row[key] for key in KEYS}
        finally:
            writer.stop()

    def settle(self) -> None:
        """What somebody else has left to be written is no burden for who is measured next."""
        call("sync", "--file-system", str(self.mount))

    def core(self, verb: str, **options: Any) -> tuple[float, dict[str, Any]]:
        """Seconds and result of one run of our core, in a process of its own."""
        same = {
            "project": PROJECT, "repository": str(self.mount / "ours"), "password_file": str(self.password),
            "state_dir": str(self.mount / "state"),
        }  # fmt: skip
        asked = json.dumps({"verb": verb, "options": {**same, **options}})
        command = [sys.executable, str(ROOT / "tests/bench/core_run.py")]
        self.settle()
        seconds, done = timed(
            lambda: subprocess.run(
                command, input=asked, capture_output=True, text=True, check=False, cwd=ROOT, env=BYTECODE_KEPT
            )
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        said = json.loads(done.stdout)
        self.peak = max(self.peak, said["peak_rss_bytes"])
        result: dict[str, Any] = said["result"]
        self.details.setdefault(f"{verb}_timings", []).append({"all": round(seconds, 3), **result["timings"]})
        return seconds, result

    def backup(self) -> float:
        seconds, result = self.core("backup")
        self.freezes.append(result["freeze_s"])
        say(f"backup {seconds:.2f} s, way {result['way']}, frozen {result['freeze_s']:.3f} s")
        return seconds

    def restic(self, *arguments: str) -> str:
        options = ["--repo", str(self.mount / "bare"), "--password-file", str(self.password)]
        command = ["restic", "--quiet", *options, "--cache-dir", str(self.mount / "cache"), *arguments]
        # 3: a file vanished under it, as SQLite's journal does
        return call(*command, cwd=self.data, accepted=(0, 3))

    def restic_backup(self, *verbs: str) -> float:
        """Bare restic on the live directories: its speed is compared, what it reads there would not be one instant."""
        targets = {"backup": VOLUMES}
        self.settle()
        seconds = timed(lambda: [self.restic(verb, *targets.get(verb, ())) for verb in verbs])[0]
        say(f"restic {' and '.join(verbs)} {seconds:.2f} s")
        return seconds

    def first_backups(self) -> dict[str, float]:
        """Medians of first backups, ours and bare restic's by turns in changing order; the last ones are kept."""

        def bare() -> float:
            self.system.give_back(*(path for path in (self.mount / "bare", self.mount / "cache") if path.exists()))
            return self.restic_backup("init", "backup")

        def ours() -> float:
            self.forget_ours()
            return self.backup()

        return self.by_turns("restic_backup_s", bare, "backup_s", ours)

    def by_turns(self, bare: str, its: Callable[[], float], name: str, our: Callable[[], float]) -> dict[str, float]:
        """Medians in seconds: who comes first may find more of the memory or of the disk ready."""
        found: dict[str, list[float]] = {bare: [], name: []}
        for number in range(ROUNDS):
            for key, run in [(bare, its), (name, our)][:: -1 if number % 2 else 1]:
                found[key].append(run())
        self.details.update(found)
        return {key: statistics.median(values) for key, values in found.items()}

    def forget_ours(self) -> None:
        """As if we had never made a backup here."""
        self.system.give_back(*(path for path in (self.mount / "ours", self.mount / "state") if path.exists()))

    def deltas(self) -> dict[str, float]:
        """Medians of backups after 1 % of change, which both find: whoever comes second has no other change."""
        changed = [False]

        def after_change(run: Callable[[], float]) -> float:
            changed[0] = not changed[0]
            if changed[0]:
                self.contents.change()
            return run()

        return self.by_turns(
            "restic_delta_s", lambda: after_change(lambda: self.restic_backup("backup")),
            "backup_delta_s", lambda: after_change(self.backup),
        )  # fmt: skip

    def stop_tar_start(self, writer: Writer) -> float:
        archive = self.mount / "volumes.tar.gz"
        command = ["tar", "--create", "--gzip", "--sparse", "--file", str(archive), *VOLUMES]
        seconds = writer.outage(lambda: self.stack.restart(lambda: call(*command, cwd=self.data)))[0]
        self.system.give_back(archive)
        say(f"stop, tar -z, start {seconds:.2f} s")
        return seconds

    def stop_rsync_start(self, writer: Writer) -> float:
        """Onto a copy from before 1 % of change, as every night."""
        copy = self.mount / "copy"
        command = ["rsync", "-aHAXS", "--delete", f"{self.data}/", str(copy)]
        call(*command, accepted=(0, 23, 24))  # files vanish under it
        self.contents.change()
        seconds = writer.outage(lambda: self.stack.restart(lambda: call(*command)))[0]
        self.system.give_back(copy)
        say(f"stop, rsync, start {seconds:.2f} s")
        return seconds

    def restic_restore(self) -> float:
        target = self.mount / "bare-restored"
        self.settle()
        seconds = timed(lambda: self.restic("restore", "latest", "--target", str(target)))[0]
        self.system.give_back(target)
        say(f"restic restore {seconds:.2f} s")
        return seconds

    def restores(self, writer: Writer) -> dict[str, float]:
        """Ours in place, without the safety capture: the downtime as the writer sees it, and all the rest."""
        outages: list[float] = []

        def ours() -> float:
            outage, (seconds, result) = writer.outage(lambda: self.core("restore", force=True, safety=False))
            say(f"restore {seconds:.2f} s, of it down {result['downtime_s']:.2f} s, as seen {outage:.2f} s")
            outages.append(outage)
            rest: float = seconds - result["downtime_s"]
            return rest

        found = self.by_turns("restic_restore_s", self.restic_restore, "restore_s", ours)
        self.details["outages"] = outages
        return {**found, "restore_downtime_s": statistics.median(outages)}


KEYS = (
    "filesystem", "size_bytes", "freeze_s", "stop_tar_start_s", "stop_rsync_start_s", "backup_s", "backup_delta_s",
    "restore_s", "restic_backup_s", "restic_delta_s", "restic_restore_s", "restore_downtime_s", "stack_restart_s",
    "peak_rss_bytes",
)  # fmt: skip


def promises(row: Row, nominal: int) -> dict[str, bool]:
    """Each bound of one row in words, and whether it holds."""
    large = nominal >= LARGE
    most = 1.0 if large and row["filesystem"] == "ext4" else 0.5
    found = {
        f"freeze_s <= {most}": row["freeze_s"] <= most,
        "stop_rsync_start_s >= 20 freeze_s": row["stop_rsync_start_s"] >= 20 * row["freeze_s"],
        "backup_s <= 1.6 restic_backup_s": row["backup_s"] <= 1.6 * row["restic_backup_s"],
        "backup_delta_s <= 1.5 restic_delta_s": row["backup_delta_s"] <= 1.5 * row["restic_delta_s"],
        "restore_s <= 1.3 restic_restore_s": row["restore_s"] <= 1.3 * row["restic_restore_s"],
        "restore_downtime_s <= stack_restart_s + 1": row["restore_downtime_s"] <= row["stack_restart_s"] + 1,
        "peak_rss_bytes < 80 MiB": row["peak_rss_bytes"] < MOST_RSS,
    }
    if large:
        found["stop_tar_start_s >= 100 freeze_s"] = row["stop_tar_start_s"] >= 100 * row["freeze_s"]
    return found


@contextmanager
def case(kind: str, size: int) -> Iterator[Case]:
    """A case whose stack and file system are gone afterwards, whatever happened."""
    with FileSystem(kind, WORK / kind, int(size * 9 + 6e9)) as system:
        made = Case(system, size)
        made.stack.compose("down", "--volumes", "--timeout", "1", check=False)
        try:
            yield made
        finally:
            made.stack.compose("down", "--volumes", "--timeout", "1", check=False)


def write(name: str, content: Any) -> None:
    (RESULTS / name).write_text(json.dumps(content, indent=2) + "\n")


def bench() -> int:
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows, details, broken = [], [], 0
    for size in wanted_sizes():
        for kind in os.environ.get("FILESYSTEMS", "ext4,xfs").split(","):
            with case(kind, size) as made:
                made.prepare()
                row = made.measure()
                rows.append(row)
                details.append({"filesystem": kind, "size": size, **made.details})
                write("backup.json", rows)
                write("backup-details.json", details)
            print(json.dumps(row, indent=2), flush=True)
            for promise, holds in promises(row, size).items():
                broken += not holds
                print(f"{'kept' if holds else 'BROKEN'}: {kind}, {size / 1e9:g} GB: {promise}", flush=True)
    (RESULTS / "backup.svg").write_text(draw(rows))
    (RESULTS / "backup.md").write_text(table(rows))
    if "KEEP_SEEDS" not in os.environ:
        shutil.rmtree(SEEDS, ignore_errors=True)
    return 1 if broken else 0


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("The bench mounts file systems; run it as root.")
    WORK.mkdir(parents=True, exist_ok=True)
    with (Path(tempfile.gettempdir()) / "openmemory-bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return bench()


if __name__ == "__main__":
    sys.exit(main())
