# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source's part: send while it runs, freeze, the rest, let the target start and prove it, and retire."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ..backup.description import images_of
from ..byte_sizes import show_bytes
from ..capture.freeze import Freeze
from ..capture.plan import CapturePlan, refuse_others
from ..capture.plan import make_plan as make_capture_plan
from ..engine import Engine
from ..errors import StackError
from ..hidden import is_hidden
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import Places, require_local
from ..operation.progress import Progress
from ..operation.recover import recover
from ..operation.retired import read_retirement
from ..operation.watcher import Watcher
from ..proof import census
from ..restore.crew import service_of
from ..volumes import PROJECT_LABEL
from .departure_undo import COMMITTING, KEY, MOVING, RETIRED, InDoubtError, finish, outcome, resolve
from .layer import find_elsewhere
from .ledger import Ledger
from .line import FENCED_S, LEASE_S, Line, LineLostError
from .request import Key, MigrateRequest
from .transfer import send, sweep

_GREETING_S = 60.0
_ANSWER_S = 120.0
_BYE_S = 10.0
_SYNC_S = 3600.0
_START_MARGIN_S = 60.0
_SHORT_PASS_S = 1.0
_PARALLEL = 4


def run(request: MigrateRequest, engine: Engine, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """Move the stack to the target; {changed, target, volumes, cutover_s, start_s, census, timings, actions, warnings}.

    Raises StackError, with the stack running here as before and nothing left on the target, where anything fails.
    InDoubtError where only the target could tell which side counts: neither runs then, until recover() has reached it.
    """
    request.check()
    require_local(engine)
    places = Places.of(request.project, request.state_dir, create=False)
    said = recover(engine, places) if os.path.exists(places.journal) and not check_mode else []
    retired = read_retirement(places)
    if retired is not None:
        return {**retired.as_result(), "changed": bool(said), "actions": said}
    if check_mode:
        return _predict(request, make_plan(request.project, engine))
    key = Key(places, request.operation)
    if not key.exists:
        raise StackError(f"There is no key of the migration {request.operation} here; run migrate.yml from its start.")
    key.know(request.host_keys)
    with OperationLock(places, "migrate"):
        progress.attach(places.progress)
        said += recover(engine, places, lock_held=True)
        progress.phase("plan")
        plan = make_plan(request.project, engine)
        journal = Journal.begin(places, "migrate", request.operation)
        journal.note(KEY, {"stage": MOVING, "request": request.as_json()})
        try:
            with Watcher(engine, places):
                result = _Departure(request, plan, engine, places, progress, journal, key).run()
        except InDoubtError:
            raise
        except BaseException as error:
            _take_back(error, engine, places, journal)
            raise
    return {**result, "actions": [*said, *result["actions"]]}


def make_plan(project: str, engine: Engine) -> CapturePlan:
    """What is moved. Raises StackError for what a backup refuses as well, and for containers of others."""
    plan = make_capture_plan(engine, project, elsewhere=find_elsewhere(engine, project))
    for identity in {*plan.pause, *plan.stop}:
        about = plan.containers[identity]
        owner = (about["Config"].get("Labels") or {}).get(PROJECT_LABEL)
        if owner != project:
            raise StackError(
                f"The container {about['Name'].lstrip('/')} is not of the stack {project} and writes to its "
                "volumes, so it would be left without them; stop and remove it first."
            )
    return plan


def _predict(request: MigrateRequest, plan: CapturePlan) -> dict[str, Any]:
    return {
        "changed": True,
        "target": request.target,
        "retired": None,
        "volumes": {},
        "cutover_s": None,
        "start_s": None,
        "census": {},
        "memories": None,
        "sent_bytes": None,
        "timings": {},
        "actions": actions_of(request.target, plan),
        "warnings": [],
    }


def actions_of(target: str, plan: CapturePlan) -> list[str]:
    """What is done, in order, for people."""
    moved = [f"move volume {volume.name} ({show_bytes(volume.size.allocated_bytes)})" for volume in plan.volumes]
    return [*moved, f"start the stack on {target} and prove it", "retire the stack here; its data stays"]


def offer_of(engine: Engine, plan: CapturePlan) -> dict[str, Any]:
    """What the target has to know; see arrival_plan.Offer."""
    return {
        "host": socket.gethostname(),
        "project": plan.project,
        "architecture": str(engine.info().get("Architecture")),
        "images": images_of(engine, plan),
        "services": sorted({service_of(about) for about in plan.containers.values() if _runs(about)}),
        "volumes": {
            volume.key: {
                "name": volume.name,
                "store": volume.store,
                "store_version": volume.store_version,
                "allocated_bytes": volume.size.allocated_bytes,
                "size_bytes": volume.size.bytes,
                "files": volume.size.files,
            }
            for volume in plan.volumes
        },
    }


def _runs(inspected: Mapping[str, Any]) -> bool:
    """What the user had stopped or paused here is not started there."""
    return bool(inspected["State"]["Running"] and not inspected["State"]["Paused"])


class _Departure:
    def __init__(
        self,
        request: MigrateRequest,
        plan: CapturePlan,
        engine: Engine,
        places: Places,
        progress: Progress,
        journal: Journal,
        key: Key,
    ):
        self.request = request
        self.plan = plan
        self.engine = engine
        self.places = places
        self.progress = progress
        self.journal = journal
        self.key = key
        self.ledgers = {volume.key: Ledger(volume.path, _hidden(volume.path)) for volume in plan.volumes}
        self.layers = {plan.keys[name] for name in plan.elsewhere}
        self.sent_bytes = 0
        self.deadline = float("inf")

    def run(self) -> dict[str, Any]:
        plan, request = self.plan, self.request
        self._phase("connect")
        line = Line(self.key.line(request), _GREETING_S)
        try:
            answer = line.ask("offer", _ANSWER_S, offer=offer_of(self.engine, plan))
            self.journal.note(KEY, {"volumes": answer["volumes"]})
            self._copy(line)
            self._phase("census")
            expected = self._census()
            self._pass(frozen=False)
            cutover, proven = self._cut_over(line, expected)
        except BaseException:
            line.fence()
            raise
        self._phase("retire")
        retirement = finish(self.engine, self.places, self.journal)
        with suppress(StackError):
            line.ask("bye", _BYE_S)
        line.close()
        self.journal.end()
        self.progress.done()
        return {
            **retirement.as_result(),
            "changed": True,
            "cutover_s": round(cutover, 3),
            "start_s": round(proven["timings"].get("start", 0.0), 3),
            "census": proven["census"],
            "memories": proven["memories"],
            "sent_bytes": self.sent_bytes,
            "timings": {
                **{name: round(seconds, 3) for name, seconds in self.progress.timings.items()},
                **{f"target {name}": round(seconds, 3) for name, seconds in proven["timings"].items()},
            },
            "actions": actions_of(request.target, plan),
            "warnings": answer["warnings"],
        }

    def _census(self) -> dict[str, Any]:
        """What the stores hold, also one whose data lies beside its volume."""
        found: dict[str, Any] = census.ask(self.engine, self.plan.containers, self.plan.keys)
        for name, one in self.plan.elsewhere.items():
            with suppress(StackError):
                found[self.plan.keys[name]] = census.count(one.store, self.plan.containers[one.container])
        return found

    def _copy(self, line: Line) -> None:
        """Pass after pass while the stack runs, until one is short; all of it is on the target's disks then."""
        self._phase("transfer", sum(volume.size.bytes for volume in self.plan.volumes))
        before = None
        for _number in range(self.request.passes):
            begun = time.monotonic()
            sent = self._pass(frozen=False)
            took = time.monotonic() - begun
            if took <= _SHORT_PASS_S or (before is not None and sent > before * 0.7):
                break
            before = sent
        line.ask("sync", _SYNC_S)

    def _pass(self, frozen: bool) -> int:
        """Send what may have changed; bytes of the files that were looked at for it."""
        with ThreadPoolExecutor(_PARALLEL if frozen else 1) as pool:
            total = sum(pool.map(lambda key: self._send(key, frozen), self.ledgers))
        self.sent_bytes += total
        return total

    def _send(self, key: str, frozen: bool) -> int:
        ledger, shell, layer = self.ledgers[key], self.key.shell(self.request), key in self.layers
        batch = ledger.batch(frozen)
        if batch.paths:
            whole = send(
                batch,
                ledger.source,
                key,
                shell,
                frozen=frozen,
                layer=layer,
                bwlimit=0 if frozen else self.request.bwlimit,
                deadline=self.deadline,
                on_bytes=self.progress.advance,
            )
            ledger.sent(batch, whole)
        if frozen:
            sweep(ledger.source, key, shell, excluded=ledger.excluded, layer=layer, deadline=self.deadline)
        return batch.bytes

    def _cut_over(self, line: Line, expected: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        """From the first pause until the target counts; (seconds, what the target has proven)."""
        request, plan = self.request, self.plan
        running = [key for key, about in plan.containers.items() if about["State"]["Running"]]
        freeze = Freeze(
            self.engine,
            request.project,
            self.places,
            self.journal,
            pause=list(dict.fromkeys([*plan.pause, *plan.stop, *running])),
            timeout=request.freeze_timeout + request.wait_timeout + 2 * _START_MARGIN_S,
            last=lambda: refuse_others(self.engine, plan),
            hold=LEASE_S + FENCED_S,
        )
        self._start_by_hand()
        self._phase("freeze")
        begun = time.time()
        clock = time.monotonic()
        with freeze:
            try:
                self._phase("delta")
                self.deadline = clock + request.freeze_timeout
                try:
                    self._pass(frozen=True)
                except StackError as error:
                    if time.monotonic() < self.deadline:
                        raise
                    raise StackError(
                        "What had to be sent while all was frozen took longer than freeze_timeout "
                        f"({request.freeze_timeout:g} s); try again when less is written, or raise it."
                    ) from error
                freeze.check()
                refuse_others(self.engine, plan, since=begun)
                line.watch = freeze.check
                self._phase("start")
                line.lease()
                timeout = request.wait_timeout + _START_MARGIN_S
                proven = line.ask("start", timeout, lambda name: self._phase(f"target: {name}"), census=dict(expected))
                self._commit(freeze, line, begun)
            except BaseException:
                line.fence()  # before anything here goes on
                raise
        return time.monotonic() - clock, proven

    def _start_by_hand(self) -> None:
        """From now on only a recovery starts what has ended: a host that comes back must not, once the target counts.

        Not in the window: the engine can hold a change of a frozen container as long as a health check's timeout.
        """
        policies = {
            identity: about["HostConfig"]["RestartPolicy"]
            for identity, about in self.plan.containers.items()
            if (about["Config"].get("Labels") or {}).get(PROJECT_LABEL) == self.request.project
        }
        self.journal.note(KEY, {"policies": policies})  # before the first one changes
        for identity in policies:
            self.engine.set_restart_policy(identity, {"Name": "no"})

    def _commit(self, freeze: Freeze, line: Line, begun: float) -> None:
        """The point of no return: this side stays frozen whatever happens, until the target has said what it is."""
        self._phase("commit")
        refuse_others(self.engine, self.plan, since=begun)
        freeze.keep(lambda frozen: {KEY: {"stage": COMMITTING, "frozen": frozen}})
        try:
            line.ask("accept", _ANSWER_S)
        except LineLostError as lost:
            line.close()
            if not self._ask_again():
                resolve(self.engine, self.journal, accepted=False)
                raise StackError(f"{lost} It has not taken over.") from lost
        except StackError:
            line.close()
            if not self._ask_again():
                resolve(self.engine, self.journal, accepted=False)
                raise
        self.journal.note(KEY, {"stage": RETIRED})

    def _ask_again(self) -> bool:
        """Whether the target has taken over, as it says itself once it can be reached; InDoubtError if it cannot be."""
        self._phase("ask the target")
        return outcome(self.places, self.request, patience=_ANSWER_S)

    def _phase(self, name: str, total: int | None = None) -> None:
        if not name.startswith("target: "):  # they come many times in a second of frozen time
            self.journal.phase(name)
        self.progress.phase(name, total)


def _hidden(path: str) -> tuple[str, ...]:
    return ("lost+found", *(name for name in os.listdir(path) if is_hidden(name)))


def _take_back(error: BaseException, engine: Engine, places: Places, journal: Journal) -> None:
    """The line is closed by now, and the target's side gone or, once this one is retired, the one that counts."""
    retired = journal.data[KEY]["stage"] == RETIRED
    try:
        recover(engine, places, lock_held=True)
    except InDoubtError:
        raise
    except StackError as second:
        raise StackError(
            f"{error} It could not be taken back: {second} Run openmemory-stack recover when that is repaired."
        ) from error
    if isinstance(error, StackError) and retired:
        raise StackError(f"{error} The stack had been moved, and runs on the target.") from error
    if isinstance(error, StackError):
        raise StackError(f"{error} Nothing was moved: the stack runs here as before.") from error
