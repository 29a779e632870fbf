# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for services, with a clock that tests can turn."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_health import Waiter, is_settled
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_secrets import Mask


class Containers(Engine):
    """An engine whose containers follow a script: seconds -> state."""

    def __init__(self, **services: dict[int, str]):
        super().__init__(None, "", "tcp://fake")
        self.services = services
        self.now = 0.0
        self.streak = 3  # of failed checks, of one that is unhealthy

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def status(self, service: str) -> str:
        script = self.services[service]
        return script[max(second for second in script if second <= self.now)]

    def containers(self) -> list[dict[str, Any]]:
        found = []
        for service in self.services:
            status = self.status(service)
            labels = {"com.docker.compose.project": "om", "com.docker.compose.service": service}
            state = "exited" if status.startswith("Exited") else "restarting" if status == "Restarting" else "running"
            found.append(
                {"Id": service, "Names": [f"/om-{service}-1"], "Labels": labels, "State": state, "Status": status}
            )
        return found

    def inspect_container(self, name: str) -> dict[str, Any]:
        status = self.status(name)
        state: dict[str, Any] = {"Status": "running", "ExitCode": 0, "StartedAt": "t"}
        if "(" in status and status.startswith("Up"):
            word = "unhealthy" if "unhealthy" in status else "starting" if "starting" in status else "healthy"
            state["Health"] = {"Status": word, "Log": [{"Output": "connection refused\nby hunter22"}]}
            state["Health"]["FailingStreak"] = self.streak if word == "unhealthy" else 0
        if status.startswith("Exited"):
            state.update(Status="exited", ExitCode=int(status[8:-1]))
        if status == "Restarting":
            state.update(Status="restarting", ExitCode=1)
        policy = {"RestartPolicy": {"Name": "always" if status == "Restarting" else "no"}}
        return {
            "Name": f"/om-{name}-1", "State": state, "HostConfig": policy, "RestartCount": 4,
            "Config": {"Image": "x", "Env": []}, "NetworkSettings": {"Networks": {}},
        }  # fmt: skip

    def waiter(self, **services: dict[str, Any]) -> Waiter:
        wanted = services or {name: {} for name in self.services}
        return Waiter(
            self, "om", wanted, lambda _name: "line 1\nhunter22\n", Mask(["hunter22"]), self.clock, self.sleep
        )


HEALTHY, STARTING, UNHEALTHY = "Up 9 minutes (healthy)", "Up 1 second (health: starting)", "Up 2 minutes (unhealthy)"


def test_it_returns_when_the_last_one_is_healthy() -> None:
    engine = Containers(a={0: HEALTHY}, b={0: STARTING, 7: HEALTHY})
    engine.waiter().wait(60)
    assert 7 <= engine.now < 8


@pytest.mark.parametrize("streak", [0, 3])
def test_one_that_was_paused_is_waited_for_until_its_next_check(streak: int) -> None:
    """Right after a backup, with checks half a minute apart."""
    engine = Containers(a={0: UNHEALTHY, 29: HEALTHY})
    engine.streak = streak
    if streak:
        with pytest.raises(StackError, match="is running and unhealthy"):
            engine.waiter().wait(60)
        assert engine.now < 29
    else:
        engine.waiter().wait(60)
        assert engine.now >= 29


def test_without_a_health_check_running_for_a_while_counts() -> None:
    engine = Containers(a={0: "Up 1 second"})
    engine.waiter().wait(60)
    assert 3 <= engine.now < 4


def test_a_short_spell_of_bad_health_is_forgiven_and_a_long_one_is_not() -> None:
    engine = Containers(a={0: UNHEALTHY, 5: HEALTHY})
    engine.waiter().wait(60)
    engine = Containers(a={0: UNHEALTHY})
    with pytest.raises(StackError) as failed:
        engine.waiter().wait(60)
    assert 10 <= engine.now < 11
    assert str(failed.value).splitlines() == [
        "The stack om is not healthy.",
        "Service a: container om-a-1 is running and unhealthy; its last health check said: "
        "connection refused by ********.",
        "  Last lines of its log:",
        "    line 1",
        "    ********",
    ]


def test_what_never_gets_healthy_fails_at_the_timeout() -> None:
    engine = Containers(a={0: STARTING}, b={0: HEALTHY})
    with pytest.raises(StackError, match=r"^The stack om is not healthy after 20 s\.\nService a: ") as failed:
        engine.waiter().wait(20)
    assert "Service b" not in str(failed.value)


def test_a_crash_is_final_sooner_where_nothing_restarts_it() -> None:
    engine = Containers(a={0: "Exited (3)"})
    with pytest.raises(StackError, match=r"container om-a-1 is exited \(exit code 3, restarted 4 times\)"):
        engine.waiter().wait(300)
    assert 10 <= engine.now < 11
    engine = Containers(a={0: "Restarting"})
    with pytest.raises(StackError, match="is restarting"):
        engine.waiter().wait(300)
    assert 60 <= engine.now < 61


def test_a_job_that_has_ended_well_is_done() -> None:
    engine = Containers(job={0: "Exited (0)"})
    engine.waiter(job={"restart": "no"}).wait(5)
    with pytest.raises(StackError):
        engine.waiter(job={"restart": "always"}).wait(5)


def test_a_service_without_a_container_is_named() -> None:
    engine = Containers(a={0: HEALTHY})
    with pytest.raises(StackError, match="Service b: it has no container"):
        engine.waiter(a={}, b={}).wait(1)


def test_the_list_alone_proves_only_what_has_run_for_a_minute() -> None:
    def listed(status: str, state: str = "running") -> dict[str, Any]:
        return {"State": state, "Status": status}

    assert is_settled(listed("Up 3 hours"), {})
    assert is_settled(listed("Up About a minute"), {})
    assert not is_settled(listed("Up 59 seconds"), {})
    assert not is_settled(listed("Up Less than a second"), {})
    assert not is_settled(listed("Up 3 hours (unhealthy)"), {})
    assert not is_settled(listed("Up 3 hours (Paused)", "paused"), {})
