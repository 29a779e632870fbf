# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exchange of an update without an engine: what is on disk when, what counts as lost, and what is started again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_request import Request
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import ACTIVE
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import NotFoundError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.moving.rebuild import Recipe
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.crew import Crew
from ansible_collections.openmemory.stack.plugins.module_utils._core.update import exchange, update
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.record import KEY, REPLACING, Record
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.services import Image, Service
from ansible_collections.openmemory.stack.plugins.module_utils._core.update.versions import Way

MEMORY = "6f0e8a3c-0000-4000-8000-000000000001"


class Docker:
    """Containers by id; events is what happened, in order."""

    def __init__(self, events: list[str]):
        self.events = events
        self.found: dict[str, dict[str, Any]] = {}
        self.refuses: set[str] = set()

    def add(
        self, name: str, image: str = "x", volume: str = "", where: str = "/data", depends: str = ""
    ) -> dict[str, Any]:
        labels = {"com.docker.compose.project": "om", "com.docker.compose.service": name}
        self.found[name] = {
            "Id": name,
            "Name": f"/{name}",
            "Config": {"Image": image, "Env": [], "Labels": {**labels, "com.docker.compose.depends_on": depends}},
            "HostConfig": {},
            "State": {"Status": "running", "Running": True, "Pid": 1, "StartedAt": "t1"},
            "Mounts": [{"Type": "volume", "Name": volume, "Destination": where, "RW": True}] if volume else [],
        }
        return self.found[name]

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name not in self.found:
            raise NotFoundError("gone")
        return self.found[name]

    def stop(self, name: str, _grace: int) -> None:
        self.events.append(f"stop {name}")
        self.found[name]["State"].update(Status="exited", Running=False)

    def start(self, name: str) -> None:
        if name in self.refuses:
            raise StackError("the port is taken.")
        self.events.append(f"start {name}")
        self.found[name]["State"].update(Status="running", Running=True, StartedAt="t2")


class Notes:
    """A journal in memory."""

    def __init__(self, events: list[str]):
        self.data: dict[str, Any] = {}
        self.events = events

    def phase(self, name: str) -> None:
        """Not of interest."""

    def note(self, key: str, value: Any) -> None:
        self.data[key] = value
        if key == KEY:
            self.events.append(f"note {value['stage']}")


class Stand:
    """The exchange of the project om; census_now is what its stores say."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.events: list[str] = []
        self.engine: Any = Docker(self.events)
        self.journal: Any = Notes(self.events)
        self.census_now: list[dict[str, Any]] = [{}]
        self.composed: Any = lambda: None
        self.compose = SimpleNamespace(stop_timeout=None, wait_timeout=0.0, project_src="/src", files=[])
        request = SimpleNamespace(project="om", compose=self.compose, deployment=None)
        self.plan: Any = SimpleNamespace(
            request=request,
            targets=[],
            newer=[],
            recipes=[],
            stores={},
            keys={},
            touched={},
            warnings=[],
            containers={},
        )
        progress: Any = SimpleNamespace(phase=lambda *_: None)
        places: Any = SimpleNamespace(scratch="/scratch", state="/state")
        self.made = exchange.Exchange(self.plan, Record("u1", "/state"), self.engine, places, self.journal, progress)
        standby: Any = SimpleNamespace(
            settle=lambda: self.events.append("settle"), sync=lambda: self.events.append("sync")
        )
        self.made._standby = standby

        def ask(_engine: Any, _containers: Any, _keys: Any, notes: list[str] | None = None) -> dict[str, Any]:
            self.events.append("census")
            found = self.census_now.pop(0) if len(self.census_now) > 1 else self.census_now[0]
            if notes is not None:
                notes += [f"{key} was not counted: it refuses." for key, value in found.items() if value is None]
            return found

        def present() -> Any:
            self.composed()
            return SimpleNamespace(actions=[], diff=[])

        patch.setattr(exchange, "refuse_active", lambda *_: None)
        patch.setattr(exchange.rebuild, "rehearse", lambda *_: None)
        patch.setattr(exchange, "check_staged", lambda *_: {})
        patch.setattr(exchange, "refusal", lambda *_: None)
        patch.setattr(exchange.files, "save", lambda *_: {})
        patch.setattr(exchange, "Project", lambda *_: SimpleNamespace(present=present))
        patch.setattr(exchange, "State", lambda *_: SimpleNamespace(volumes={"om_m": {}, "om_q": {}}))
        patch.setattr(exchange, "project_containers", lambda *_: list(self.engine.found.values()))
        patch.setattr(exchange.census, "ask", ask)
        patch.setattr(exchange, "_POLL_S", 0.0)

    def plan_all(self) -> None:
        """All containers are of the plan, as they are now."""
        self.plan.containers = {name: {**about} for name, about in self.engine.found.items()}
        self.plan.crew = Crew(self.engine, "om", self.plan.containers)
        self.plan.recipes = [SimpleNamespace(id=name) for name in self.plan.containers]

    def run(self) -> float:
        self.plan_all()
        return self.made.run()


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


def test_the_copies_are_on_disk_before_anything_new_may_write(stand: Stand) -> None:
    stand.engine.add("app")
    stand.run()
    settled = stand.events.index("settle")
    assert stand.events[settled : settled + 3] == ["settle", "sync", f"note {REPLACING}"]


def test_what_compose_leaves_stopped_is_started_again(stand: Stand) -> None:
    """app is made anew; job has run once more and ended; done ended before the stop; debug is of no active profile."""
    for name in ("app", "debug", "done", "job"):
        stand.engine.add(name)

    def compose() -> None:
        del stand.engine.found["app"]
        stand.engine.add("new-app")
        stand.engine.found["job"]["State"].update(StartedAt="t2")

    stand.composed = compose
    stand.plan_all()
    stand.engine.found["done"]["State"].update(Status="exited", Running=False)
    stand.made.run()
    assert [event for event in stand.events if event.startswith("start ")] == ["start debug"]
    assert stand.engine.found["debug"]["State"]["Status"] in ACTIVE


def test_what_does_not_start_again_is_said(stand: Stand) -> None:
    stand.engine.add("debug")
    stand.engine.refuses.add("debug")
    with pytest.raises(StackError, match=r"container debug was stopped and does not start: the port is taken\."):
        stand.run()


OPENMEMORY, QDRANT = "mem0/openmemory-mcp:1.0", "qdrant/qdrant:v1.20.0"


def with_memories(stand: Stand, image: str) -> None:
    stand.plan.keys = {"om_m": "m", "om_q": "q"}
    stand.engine.add("app", image, "om_m")["Config"]["Env"] = ["DATABASE_URL=sqlite:////data/openmemory.db"]
    stand.made._owners = {"alice": {MEMORY}}


def test_no_openmemory_on_the_volume_of_before_is_not_passed_over(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_memories(stand, OPENMEMORY)
    monkeypatch.setattr(exchange.memories, "read_back", lambda *_, **__: (1, []))
    stand.plan_all()
    stand.made._prove()  # it is read
    stand.engine.found["app"]["State"].update(Running=False)
    with pytest.raises(StackError, match="No running OpenMemory has its database on the volume of before"):
        stand.made._prove()
    assert not stand.made.record.lost
    stand.engine.found["app"]["State"].update(Running=True)
    stand.engine.found["app"]["Mounts"][0]["Destination"] = "/elsewhere"
    with pytest.raises(StackError, match=r"in container app writes to .*, inside the container only"):
        stand.made._prove()


def test_an_application_that_was_not_known_before_is_warned_of(stand: Stand) -> None:
    with_memories(stand, "unknown/thing")
    stand.engine.found["app"]["Config"]["Env"] = []
    stand.plan_all()
    stand.made._prove()
    assert "no memory was read back" in stand.plan.warnings[0]


Q5, Q4 = ({"q": {"collections": {"mem": number}}} for number in (5, 4))


def test_who_cannot_be_asked_yet_is_asked_again_and_has_lost_nothing(stand: Stand) -> None:
    stand.compose.wait_timeout = 20.0
    stand.made._expected = dict(Q5)
    stand.census_now = [{"q": None}, {}, Q5]
    stand.made._prove()
    assert stand.events == ["census"] * 3
    stand.compose.wait_timeout = 0.0
    stand.census_now = [{"q": None}]
    with pytest.raises(StackError, match=r"What q holds now could not be asked\. q was not counted: it refuses\."):
        stand.made._prove()
    assert not stand.made.record.lost
    stand.census_now = [Q4]
    with pytest.raises(StackError, match="does not hold what was there before: q: collection mem: 4 found"):
        stand.made._prove()
    assert stand.made.record.lost


def test_what_clients_delete_before_the_stop_is_no_loss(stand: Stand) -> None:
    stand.plan.keys = {"om_q": "q"}
    stand.engine.add("q", QDRANT, "om_q", "/qdrant/storage")
    stand.engine.add("app", depends="q:service_healthy:false")
    stand.made._expected = dict(Q5)
    stand.census_now = [{}, Q4]
    stand.run()
    assert stand.events[:4] == ["census", "stop app", "census", "stop q"]
    assert stand.made._expected == Q4
    stand.census_now = [{"q": None}]
    stand.made._count_again(["q"])
    assert stand.made._expected == Q4  # who does not answer any more still has to hold what it held


def test_check_mode_refuses_a_step_that_must_not_be_pulled(stand: Stand) -> None:
    asked: list[str] = []

    def inspect_image(_name: str) -> Any:
        raise NotFoundError("none")

    engine: Any = SimpleNamespace(inspect_image=inspect_image, registry_digest=asked.append)
    image = Image("qdrant/qdrant:v1.22.0", None, None, "1.22.0")
    service = Service("q", "qdrant", image, image, True, Way(steps=("1.21",)))
    with pytest.raises(StackError, match=r"it is not on this host, and pull is never"):
        update.with_steps(service, lambda one: update._ask_for(engine, one, "never"))
    assert asked == []
    assert update.with_steps(service, lambda one: update._ask_for(engine, one, "always")).steps == tuple(asked)


def test_without_a_watcher_compose_does_not_end_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    found = SimpleNamespace(changed=False, actions=[], diff=[])

    def project(request: Any, *_: Any) -> Any:
        asked.append(request.ends_with_us)
        return SimpleNamespace(present=lambda: found)

    monkeypatch.setattr(update, "Project", project)
    connection: Any = None
    compose = Request("om", "/src", connection, "/src", [{"name": "compose.yml", "content": "services: {}"}])
    request = update.UpdateRequest(compose, snapshot="none")
    assert request.deployment.ends_with_us
    plan: Any = SimpleNamespace(request=request, services=[], newer=[], actions=[], warnings=[])
    engine: Any = None
    update._deploy(plan, engine)
    assert asked == [False]


@pytest.mark.parametrize(
    ("name", "tags", "image", "names"),
    [
        ("q:1", {"q:1": "old"}, "q:1", {}),
        ("q:1", {"q:1": "other"}, "q:1", {"q:1": "old"}),
        ("q:1", {}, "q:1", {"q:1": "old"}),
        ("q@sha256:1", {}, "old", {}),
        ("0123456789ab", {}, "old", {}),
    ],
)
def test_by_which_name_a_container_is_made_again(
    name: str, tags: dict[str, str], image: str, names: dict[str, str]
) -> None:
    one = Recipe("c", "om-q-1", {"Image": "old"})
    me: Any = SimpleNamespace(
        plan=SimpleNamespace(containers={"c": {"Config": {"Image": name}, "Image": "old"}}),
        record=Record("u1", "/state", tags=tags),
        engine=SimpleNamespace(inspect_image=lambda _: {"Id": "new"}),
    )
    assert update._Update._named(me, one).body["Image"] == image
    assert me.record.names == names
    assert not names or me.record.tags["q:1"] != "old"  # what the tag means comes back afterwards
