# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the lab's host that a stack leaves: one migration, told line by line, that may die at a step.

Its one argument is JSON: library (where the core is), request (see MigrateRequest), project, state_dir, and at: the
step at which this process kills itself, or "ask VERB" and "asked VERB" right before and right after a request; wait:
the one at which it waits for a line on standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from typing import Any

asked = json.loads(sys.argv[1])
sys.path.insert(0, asked["library"])


def core(name: str) -> Any:
    return importlib.import_module(f"openmemory_stack.{name}")


def tell(**what: Any) -> None:
    print(json.dumps({**what, "time": time.time()}), flush=True)


def reach(step: str) -> None:
    tell(step=step)
    if step == asked.get("wait"):
        sys.stdin.readline()
    if step == asked.get("at"):
        os.kill(os.getpid(), signal.SIGKILL)


departure = core("migrate.departure")
phase, ask = departure._Departure._phase, departure.Line.ask


def told_phase(self: Any, name: str, total: int | None = None) -> None:
    phase(self, name, total)
    reach(name)


def told_ask(self: Any, verb: str, *arguments: Any, **about: Any) -> Any:
    reach(f"ask {verb}")
    answer = ask(self, verb, *arguments, **about)
    reach(f"asked {verb}")
    return answer


departure._Departure._phase, departure.Line.ask = told_phase, told_ask
departure._ANSWER_S = asked.get("patience", departure._ANSWER_S)
engine = core("engine").Engine.connect()
try:
    if "request" in asked:
        request = core("migrate.request").MigrateRequest(**asked["request"])
        tell(result=departure.run(request, engine, core("operation.progress").Progress()))
    else:
        prepare = core("migrate.preparation").prepare
        tell(result=prepare(asked["project"], asked["state_dir"], engine, "lab2", False))
except core("errors").StackError as error:
    tell(failed=str(error))
