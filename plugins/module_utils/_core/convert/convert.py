# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A conversion from the request to the result: copy while it runs, stop, the rest, the new definition, start, prove."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..directories import apply_directory, plan_directory
from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..moving import rebuild
from ..moving.standby import Copy, Standby
from ..operation.journal import Journal
from ..operation.lock import OperationLock
from ..operation.places import Places, require_local
from ..operation.progress import Progress
from ..operation.recover import recover
from ..operation.watcher import Watcher
from ..proof import census
from ..proof.checks import QUICK, check_staged
from ..restore import kept
from ..restore.crew import Crew
from ..restore.exchange import start_again
from ..restore.restore import new_id
from ..restore.swap import Move, Root, Swap, in_root_moves
from ..restore.targets import Target, refuse_active
from ..restore.verdict import at_least
from .plan import Conversion, ConvertPlan, make_plan
from .redefine import Record, Redefinition
from .request import ConvertRequest
from .undo import ACCEPTED, COPYING, KEY, STARTED, SWAPPING, finish, undo

_DAY = 86400.0


def run(request: ConvertRequest, engine: Engine, progress: Progress, check_mode: bool = False) -> dict[str, Any]:
    """Convert what differs; {changed, volumes, downtime_s, kept, timings, actions, diff}.

    Raises StackError, with the volumes as they were and their containers running on them, where anything fails.
    """
    request.check()
    require_local(engine)
    places = Places.of(request.project, request.state_dir, create=False)
    said: list[str] = []
    if os.path.exists(places.journal):  # first of all: what a run that died has left is no state to plan from
        said = recover(engine, places, check_mode=check_mode)
        if check_mode and said:
            raise StackError(
                f"An operation has died on {request.project}; run openmemory-stack recover. {' '.join(said)}"
            )
    plan = make_plan(request, engine)
    if plan is None:
        return {"changed": False, "volumes": [], "downtime_s": None, "kept": [], "actions": said, "diff": {}}
    if check_mode:
        return _result(plan)
    Places.of(request.project, request.state_dir)
    with OperationLock(places, "convert"):
        progress.attach(places.progress)
        said += recover(engine, places, lock_held=True)
        said += kept.purge_expired(places)
        progress.phase("plan")
        plan = make_plan(request, engine)
        if plan is None:
            raise StackError("What differed was converted by another operation meanwhile; run it again.")
        journal = Journal.begin(places, "convert", new_id())
        with Watcher(engine, places):
            result = _watched(_Convert(plan, engine, places, progress, journal))
        return {**result, "actions": [*said, *result["actions"]]}


def _watched(conversion: _Convert) -> dict[str, Any]:
    """Convert, or take all back; the journal is over either way, or raises StackError."""
    try:
        return conversion.run()
    except OSError as error:
        failed = StackError(f"The conversion failed at {error.filename or 'a file'} ({error.strerror}).")
        conversion.take_back(failed)
        raise failed from error
    except BaseException as error:
        conversion.take_back(error)
        raise


def _result(plan: ConvertPlan) -> dict[str, Any]:
    names = [one.spec.name for one in plan.conversions]
    return {
        "changed": True,
        "volumes": names,
        "downtime_s": None,
        "kept": [],
        "actions": plan.actions,
        "diff": plan.diff,
    }


class _Convert:
    def __init__(self, plan: ConvertPlan, engine: Engine, places: Places, progress: Progress, journal: Journal):
        self.plan = plan
        self.request = plan.request
        self.engine = engine
        self.places = places
        self.progress = progress
        self.journal = journal
        self.record = Record(str(journal.data["id"]), places.state)
        self.moving = [one for one in plan.conversions if not one.same_place]

    def run(self) -> dict[str, Any]:
        plan = self.plan
        self._phase("copy", sum(one.bytes for one in self.moving))
        self._prepare()
        copies = {
            one.source.key: Copy(one.source.path, self._new(one), ("lost+found",) if one.source.in_root else ())
            for one in self.moving
        }
        standby = Standby(copies, self.progress)
        if copies:
            standby.follow()
        self._phase("census")
        expected = census.ask(self.engine, plan.crew.containers, plan.keys)
        if copies:
            standby.catch_up()
        downtime = self._exchange(standby)
        self._phase("prove")
        if copies:
            standby.sync()  # before the old data may go, and not while all stands still
        if plan.crew.ids:
            self._compare(expected)
        self._phase("finish")
        self.record.stage = ACCEPTED
        self.record.until = time.time() + self.request.keep_days * _DAY
        self._note()
        finish(self.journal, self.record)
        self.journal.end()
        self.progress.done()
        entries = [entry.as_result() for entry in kept.load(self.places) if entry.operation == self.record.id]
        timings = {name: round(seconds, 3) for name, seconds in self.progress.timings.items()}
        return {**_result(plan), "downtime_s": round(downtime, 3), "kept": entries, "timings": timings}

    def _prepare(self) -> None:
        """Our directories, and those above a new place; the journal has each before it is made."""
        operation = self.record.id
        for one in self.plan.conversions:
            for place, new in ((one.source, False), (one.target, True)):
                beside = self.plan.beside(place, operation, new)
                above = os.path.dirname(beside)
                while not os.path.isdir(above):
                    self.record.made.insert(0, above)
                    above = os.path.dirname(above)
                if beside not in self.record.beside:
                    self.record.beside.append(beside)
        self._note()
        try:
            for above in dict.fromkeys(self.record.made):
                os.mkdir(above, 0o755)
            for beside in self.record.beside:
                os.mkdir(beside, 0o700)
                os.mkdir(os.path.join(beside, "old"), 0o700)
        except OSError as error:
            raise StackError(
                f"The place beside the data cannot be made ({error.filename}: {error.strerror}); use become: true, or "
                "make room."
            ) from error

    def _new(self, one: Conversion) -> str:
        return os.path.join(self.plan.beside(one.target, self.record.id, True), "new")

    def _exchange(self, standby: Standby) -> float:
        """Stop, the rest of the copy, the new definitions, start; the seconds that it took."""
        plan = self.plan
        self._again()
        self._phase("stop")
        begun = time.monotonic()
        plan.crew.stop(self.journal, self.request.stop_timeout)
        refuse_active([one.source for one in plan.conversions], self.engine, "conversion")
        self._phase("settle")
        started = self._started()
        if self.moving:
            standby.settle()
            self._check()
        refuse_active([one.source for one in plan.conversions], self.engine, "conversion")
        if self._started() != started:
            raise StackError("A container was started on the old place while the last of it was copied; try again.")
        changes = [self._redefinition(one) for one in plan.conversions]
        self.record.redefinitions = [change.as_json() for change in changes]
        self.record.stage = SWAPPING
        self._phase("swap")
        self._note()
        rebuild.remove(self.engine, plan.recipes)
        for change in changes:
            change.forward(self.engine)
        for one in self.moving:
            if one.spec.path is not None:
                apply_directory(plan_directory(one.spec))
        self.record.stage = STARTED  # from here on what is in the new place may be the only copy of a write
        self._note()
        running = rebuild.make_all(self.engine, self.journal, plan.recipes)
        self._phase("start")
        crew = Crew(self.engine, plan.request.project, {each: self.engine.inspect_container(each) for each in running})
        crew.start(self.request.wait_timeout)
        crew.wait(self.request.wait_timeout)
        self.crew = crew
        return time.monotonic() - begun if running else 0.0

    def _again(self) -> None:
        """The containers as they are now, and whether the engine would make them again, before anything stops."""
        try:
            found = [self.engine.inspect_container(one.id) for one in self.plan.recipes]
        except NotFoundError as error:
            raise StackError("A container was removed or made anew while the data was copied; try again.") from error
        recipes = [rebuild.recipe(self.engine, inspected) for inspected in found]
        self.plan.recipes = [replace(now, ran=before.ran) for now, before in zip(recipes, self.plan.recipes)]
        rebuild.rehearse(self.engine, self.journal, self.plan.recipes)
        self.record.recipes = [one.as_json() for one in self.plan.recipes]

    def _started(self) -> list[str]:
        return [self.engine.inspect_container(one.id)["State"]["StartedAt"] for one in self.plan.recipes]

    def _check(self) -> None:
        staged: Mapping[str, tuple[str | None, str]] = {
            one.source.key: (one.store, self._new(one)) for one in self.moving
        }
        for key, found in check_staged(staged, self.places.scratch, QUICK).items():
            if not found.ok:
                raise StackError(
                    f"The data of {key} is not sound: {'; '.join(found.findings)}. It was not moved; repair the "
                    "store, or restore it from a snapshot first."
                )

    def _compare(self, expected: Mapping[str, Any]) -> None:
        found = census.ask(self.engine, self.crew.inspect(), self.plan.keys)
        wrong = census.compare({key: at_least(value) for key, value in expected.items()}, found)
        if wrong:
            raise StackError(f"The stores do not find in the new place what was there before: {' '.join(wrong)}")

    def _redefinition(self, one: Conversion) -> Redefinition:
        operation, root = self.record.id, one.source.path
        out, into = self.plan.beside(one.source, operation, False), self.plan.beside(one.target, operation, True)
        away = Swap(one.spec.name, one.source.key, root, out)
        back = Swap(one.spec.name, one.source.key, one.target.path, into)
        if one.same_place:
            if one.source.backing == "managed":  # Docker removes the directory with the old definition
                carried = os.path.join(into, "new")
                away = replace(away, beside=into, moves=[Move(root, os.path.join(into, "none"), carried, True, False)])
                back = replace(back, moves=[Move(root, carried, os.path.join(into, "old", "empty"), True, True)])
            return Redefinition(one.spec.name, one.before, one.after, away, back)
        away = replace(away, moves=_out_moves(one.source, out))
        new, old = os.path.join(into, "new"), os.path.join(into, "old")
        if one.target.in_root:
            back = replace(
                back,
                moves=in_root_moves(one.target.path, new, old),
                before=Root.read(one.target.path),
                after=Root.read(new),
            )
        else:
            there = one.target.backing == "managed" or os.path.lexists(one.target.path)
            back = replace(back, moves=[Move(one.target.path, new, os.path.join(old, "empty"), there, True)])
        return Redefinition(one.spec.name, one.before, one.after, away, back)

    def take_back(self, error: BaseException) -> None:
        """Everything as before, also for Ctrl-C. For a StackError, raises one with the reason and what was done."""
        stage = (self.journal.data.get(KEY) or {}).get("stage", COPYING)
        self.journal.free_room()
        unhealthy, said = "", []
        try:
            stopped = bool(self.journal.data.get("stopped"))
            if stage != ACCEPTED:
                said = undo(self.engine, self.journal)
                if stopped and isinstance(error, StackError):
                    found = [one["id"] for one in self.journal.data["stopped"]]
                    inspected = {}
                    for each in found:
                        with suppress(NotFoundError):
                            inspected[each] = self.engine.inspect_container(each)
                    unhealthy = start_again(
                        Crew(self.engine, self.request.project, inspected), self.request.wait_timeout
                    )
            recover(self.engine, self.places, lock_held=True)
        except StackError as second:
            raise StackError(
                f"{error} It could not be taken back: {second} Run openmemory-stack recover when that is repaired."
            ) from error
        if not isinstance(error, StackError):
            return
        if stage == ACCEPTED:
            raise StackError(f"{error} The volumes are converted and proven, and the old data is kept.") from error
        again = f", and {', '.join(self.plan.crew.names())} run on it again" if stopped and self.plan.crew.ids else ""
        kept_new = "".join(f" {sentence}" for sentence in said if "is kept in" in sentence)
        raise StackError(
            f"{error} Nothing was converted: the data is where it was{again}.{unhealthy}{kept_new}"
        ) from error

    def _phase(self, name: str, total: int | None = None) -> None:
        self.journal.phase(name)
        self.progress.phase(name, total)

    def _note(self) -> None:
        self.journal.note(KEY, self.record.as_json())


def _out_moves(source: Target, beside: str) -> list[Move]:
    """The old data goes aside: as one directory, or name by name out of a mount point."""
    new, old = os.path.join(beside, "new"), os.path.join(beside, "old")
    if not source.in_root:
        return [Move(source.path, new, os.path.join(old, "data"), True, False)]
    empty = os.path.join(old, "none")
    os.makedirs(empty, 0o700, exist_ok=True)
    moves = [
        replace(move, new=os.path.join(new, os.path.basename(move.live)))
        for move in in_root_moves(source.path, empty, old)
    ]
    os.rmdir(empty)
    return moves
