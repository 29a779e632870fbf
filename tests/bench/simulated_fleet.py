"""A fleet whose hosts are faked (connection/faked.py): its inventory, its answers, and a playbook's run on it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "tests" / "bench"
MODULES = "ansible_collections.openmemory.stack.plugins.modules"
ANSWERS = BENCH / "simulated_host.yml"
SAMPLES = ROOT / "tests" / "unit" / "fleet_samples.py"
# What ModuleArgumentSpecValidator takes beside the spec itself.
RULES = ("mutually_exclusive", "required_together", "required_one_of", "required_if", "required_by")
SECRETS = {"stack_google_api_key": "simulated-key", "stack_neo4j_password": "simulated-password"}


class _Told(Exception):
    """Carries what a module gives to AnsibleModule."""

    def __init__(self, options: dict[str, Any]):
        super().__init__()
        self.options = options


def _tell(**options: Any) -> None:
    raise _Told(options)


def argument_spec(module: str) -> dict[str, Any]:
    """The argument spec, with its rules, that a module of ours really has: its main() is run up to AnsibleModule."""
    _find_collection()
    code: Any = importlib.import_module(f"{MODULES}.{module.rpartition('.')[2]}")
    real = code.AnsibleModule
    code.AnsibleModule = _tell
    try:
        code.main()
    except _Told as told:
        rules = {rule: told.options[rule] for rule in RULES if told.options.get(rule)}
        return {"argument_spec": _plain(told.options["argument_spec"]), **rules}
    finally:
        code.AnsibleModule = real
    raise AssertionError(f"{module} made no AnsibleModule.")


def _find_collection() -> None:
    """Have Python find this checkout as the collection, which pytest's conftest does for tests."""
    if not any(type(finder).__name__ == "_AnsibleCollectionFinder" for finder in sys.meta_path):
        _AnsibleCollectionFinder(paths=[str(ROOT / ".collections")])._install()


def _plain(spec: dict[str, Any]) -> dict[str, Any]:
    """Without fallbacks, which are functions that ask the environment for what was not given."""
    return {
        name: {key: _plain(value) if key == "options" else value for key, value in option.items() if key != "fallback"}
        for name, option in spec.items()
    }


@dataclass(frozen=True)
class Cost:
    """What a playbook's run cost the controller.

    seconds: wall clock. cpu_s: user and system, of all its processes. peak_rss_bytes: of its largest process.
    peak_pss_bytes: of all its processes together, what they share counted once. calls: by host and module or command.
    """

    hosts: int
    seconds: float
    cpu_s: float
    peak_rss_bytes: int
    peak_pss_bytes: int
    calls: Counter[tuple[str, str]]
    sent_bytes: int
    code: int
    output: str

    def figures(self) -> dict[str, Any]:
        """The row of a table."""
        return {
            "hosts": self.hosts,
            "seconds": round(self.seconds, 2),
            "cpu_s": round(self.cpu_s, 2),
            "cpu_ms_per_host": round(1000 * self.cpu_s / self.hosts, 1),
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_pss_bytes": self.peak_pss_bytes,
            "round_trips_per_host": round(sum(self.calls.values()) / self.hosts, 2),
            "sent_bytes_per_host": round(self.sent_bytes / self.hosts),
        }


def report_answer() -> dict[str, Any]:
    """What stack_info answers for the report, as the report's own tests have it; nothing where there is no report."""
    if not SAMPLES.exists():
        return {}
    sys.path.insert(0, str(SAMPLES.parent))
    samples: Any = importlib.import_module(SAMPLES.stem)
    return {"openmemory.stack.stack_info": samples.answer("a", samples.stack())["result"]}


@dataclass(frozen=True)
class Fleet:
    """hosts faked hosts, whose files are in place. settings: variables of all of them."""

    place: Path
    hosts: int
    settings: dict[str, Any]

    def prepare(self) -> None:
        """Write the inventory and the answers."""
        self.place.mkdir(parents=True, exist_ok=True)
        known = yaml.safe_load(ANSWERS.read_text())
        known["answers"].update(report_answer())
        known["specs"] = {module: argument_spec(module) for module in known["answers"]}
        (self.place / "answers.json").write_text(json.dumps(known))
        names = {f"host{number:05}": None for number in range(1, self.hosts + 1)}
        variables = {
            "ansible_connection": "faked",
            "ansible_pipelining": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            **SECRETS,
            **self.settings,
        }
        inventory = {"openmemory": {"hosts": names, "vars": variables}}
        (self.place / "inventory.json").write_text(json.dumps(inventory))  # JSON is YAML, and quick to read

    def play(self, playbook: str, *options: str, forks: int = 20, delay_s: float = 0.0) -> Cost:
        """Run a playbook on all hosts and say what it cost. It may fail: see code and output."""
        log = self.place / "calls.log"
        log.write_text("")
        env = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_CONNECTION_PLUGINS": str(BENCH / "connection"),
            "ANSIBLE_FORKS": str(forks),
            "FAKED_ANSWERS": str(self.place / "answers.json"),
            "FAKED_LOG": str(log),
            "FAKED_DELAY": str(delay_s),
        }
        command = [
            str(ROOT / ".venv/bin/ansible-playbook"),
            "-i",
            str(self.place / "inventory.json"),
            playbook,
            *options,
        ]
        begun = time.monotonic()
        with (self.place / "output.log").open("w") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            watch = MemoryWatch(process.pid)
            _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        lines = [line.split("\t") for line in log.read_text().splitlines()]
        return Cost(
            hosts=self.hosts,
            seconds=time.monotonic() - begun,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_rss_bytes=usage.ru_maxrss * 1024,
            peak_pss_bytes=watch.end(),
            calls=Counter((host, name) for host, name, _size in lines),
            sent_bytes=sum(int(size) for _host, _name, size in lines),
            code=process.returncode,
            output=(self.place / "output.log").read_text(),
        )


class MemoryWatch:
    """Looks twice a second at the memory of a process and its children, what they share counted once."""

    def __init__(self, pid: int):
        self._pid = pid
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """The most there was, in bytes."""
        self._over.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._over.wait(0.5):
            self._peak = max(self._peak, sum(pss(pid) for pid in (self._pid, *children(self._pid))))


def children(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


def pss(pid: int) -> int:
    """Bytes of memory of a process, its share of what it shares; 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
