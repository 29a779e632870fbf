# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting until every service really works, and saying readably what does not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from .compose_containers import health_in, health_of, project_containers, service_of
from .engine import Engine
from .errors import StackError
from .project_secrets import Mask

_STABLE_SECONDS = 3.0  # how long a container without a health check must run before it counts as up
_UNHEALTHY_SECONDS = 10.0  # how long a container may stay unhealthy, or dead, before we give up
_CRASHING_SECONDS = 60.0  # the same while its restart policy tries again: it may be waiting for a database
_POLL_SECONDS = 0.15  # a look takes 0.01 s, and this is added to every downtime
_LOG_LINES = 8
_CHECK_CHARACTERS = 300  # of the end, where a traceback has its reason
_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")
_YOUNG = re.compile(r"^Up (Less than a second|\d+ seconds?)\b")

_NO_CONTAINER = "it has no container"
_JUST_STARTED = "has no health check and has just started"
NO_NEWS = (_NO_CONTAINER, _JUST_STARTED, " is created")  # ends of what is said of a service that waits for another

Logs = Callable[[str], str]


def is_settled(container: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    """Whether the list alone proves that this container works; if not, look closer with wait()."""
    if is_completed(container, service):
        return True
    if container["State"] != "running":
        return False
    health = health_of(container)
    return health == "healthy" or (health == "none" and not _YOUNG.match(str(container["Status"])))


def is_completed(container: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    """Whether it is a job that has done its work: ended with 0, and nobody asked to start it again."""
    ended = container["State"] == "exited" and str(container["Status"]).startswith("Exited (0)")
    return ended and service.get("restart", "no") in ("no", "on-failure")


class Waiter:
    """Waits for the services of one project; services are those of the resolved compose file."""

    def __init__(
        self,
        engine: Engine,
        project_name: str,
        services: Mapping[str, Mapping[str, Any]],
        logs: Logs,
        mask: Mask,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.engine = engine
        self.project_name = project_name
        self.services = services
        self.logs = logs
        self.mask = mask
        self._clock = clock
        self._sleep = sleep
        self._running_since: dict[tuple[str, str], float] = {}
        self._bad_since: dict[str, float] = {}

    def wait(self, timeout: float) -> None:
        """Return when all work; raise StackError with what is wrong when they do not within timeout seconds."""
        end = self._clock() + timeout
        while True:
            waiting, failed = self._look()
            if failed:
                raise StackError(self.diagnosis({**failed, **waiting}, "is not healthy"))
            if not waiting:
                return
            if self._clock() >= end:
                raise StackError(self.diagnosis(waiting, f"is not healthy after {timeout:g} s"))
            self._sleep(_POLL_SECONDS)

    def diagnosis(self, problems: Mapping[str, str], verdict: str) -> str:
        """The whole story of each failing service: its state, its last health check, its last lines of log."""
        parts = [f"The stack {self.project_name} {verdict}."]
        for service in sorted(problems):
            problem = problems[service].replace(verdict.partition(": ")[2] or "\0", "as said above")
            parts.append(f"Service {service}: {problem}.")
            lines = _readable(self.logs(service))[-_LOG_LINES:]
            if lines:
                parts += ["  Last lines of its log:", *(f"    {line}" for line in lines)]
        return self.mask("\n".join(parts))

    def problems(self) -> dict[str, str]:
        """What is wrong with each service right now."""
        waiting, failed = self._look()
        return {**waiting, **failed}

    def _look(self) -> tuple[dict[str, str], dict[str, str]]:
        """By service: what is not there yet, and what will not come any more."""
        by_service: dict[str, list[dict[str, Any]]] = {name: [] for name in self.services}
        for container in project_containers(self.engine, self.project_name):
            by_service.setdefault(service_of(container), []).append(container)
        waiting: dict[str, str] = {}
        failed: dict[str, str] = {}
        for name, service in self.services.items():
            if not by_service[name] and service.get("scale", 1) != 0:
                waiting[name] = _NO_CONTAINER
            for container in by_service[name]:
                problem, hopeless = self._judge(container, service)
                if problem:
                    (failed if hopeless else waiting)[name] = problem
        return waiting, failed

    def _judge(self, container: Mapping[str, Any], service: Mapping[str, Any]) -> tuple[str | None, bool]:
        identity = container["Id"]
        if is_settled(container, service) and health_of(container) == "healthy":
            self._bad_since.pop(identity, None)
            return None, False
        if is_completed(container, service):
            return None, False
        inspected = self.engine.inspect_container(identity)
        state = inspected["State"]
        name = inspected["Name"].lstrip("/")
        if state["Status"] == "running":
            health = health_in(state)
            if health in ("healthy", "none"):
                return self._judge_running(identity, name, inspected, health), False
            last = _readable((state["Health"].get("Log") or [{}])[-1].get("Output") or "")
            said = f"; its last health check said: {' '.join(last)[-_CHECK_CHARACTERS:]}" if last else ""
            text = f"container {name} is running and {health}{said}"
            return text, health == "unhealthy" and self._lasts(identity, _UNHEALTHY_SECONDS)
        text = f"container {name} is {state['Status']}"
        if state["Status"] in ("exited", "restarting", "dead"):
            text += f" (exit code {state['ExitCode']}"
            text += f", restarted {inspected['RestartCount']} times)" if inspected.get("RestartCount") else ")"
        if state.get("OOMKilled"):
            text += "; it was killed for using more memory than it may"
        if state.get("Error"):
            text += f"; {state['Error']}"
        crashing = state["Status"] in ("exited", "dead", "restarting") and state["ExitCode"] != 0
        policy = (inspected["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
        return text, crashing and self._lasts(identity, _UNHEALTHY_SECONDS if policy == "no" else _CRASHING_SECONDS)

    def _judge_running(self, identity: str, name: str, inspected: Mapping[str, Any], health: str) -> str | None:
        if health == "healthy":
            return None
        since = self._running_since.setdefault((identity, inspected["State"]["StartedAt"]), self._clock())
        if self._clock() - since < _STABLE_SECONDS:
            return f"container {name} {_JUST_STARTED}"
        self._bad_since.pop(identity, None)
        from .compose_probe import probe  # late: only services without a health check need it

        return probe(inspected) if self.engine.is_local else None

    def _lasts(self, identity: str, seconds: float) -> bool:
        return self._clock() - self._bad_since.setdefault(identity, self._clock()) >= seconds


def _readable(text: str) -> list[str]:
    """The lines without terminal codes, and without the repetitions of a crash loop."""
    lines = [line.rstrip() for line in _TERMINAL.sub("", text).splitlines()]
    return [line for number, line in enumerate(lines) if line and line not in lines[:number]]
