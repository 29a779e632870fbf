# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether what was restored is right: its checks before the swap, and what the stores say after it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ..engine import Engine
from ..errors import StackError
from ..operation.beside import beside
from ..operation.journal import Journal
from ..operation.places import Places
from ..operation.progress import Progress
from ..proof import census
from ..proof.login import login_problem, set_password
from ..proof.probe import probe
from ..proof.volume_keys import stores_of
from ..stores import neo4j, sqlite
from ..stores.container import Container
from . import fetch
from .plan import RestorePlan

_UNCOUNTED = 2**62  # no upper bound: whoever writes while the census is taken does nothing wrong
_SAME = "cannot be the same"  # what Neo4j says of a new password that is the old one


class Verdict:
    """The proof of one restore. census is by key, what was counted last; extra are sentences on what was done."""

    def __init__(
        self,
        plan: RestorePlan,
        operation: str,
        engine: Engine,
        places: Places,
        journal: Journal,
        progress: Progress,
        warnings: list[str],
    ):
        self.plan = plan
        self.request = plan.request
        self.operation = operation
        self.engine = engine
        self.places = places
        self.journal = journal
        self.progress = progress
        self.warnings = warnings
        self.census: dict[str, Any] = {}
        self.extra: list[str] = []
        self._counting: Future[dict[str, Any]] | None = None
        self._keys = {target.name: target.key for target in plan.targets}
        self._directories = {target.key: os.path.join(target.beside(operation), "new") for target in plan.targets}
        self._expected = {target.key: plan.manifest.volumes[target.key].get("census") for target in plan.targets}

    def check(self) -> None:
        """The stores' own checks. Of a single path only a database of SQLite is whole in itself, and has no census."""
        if self.request.path and not self._is_database():
            return
        self.progress.phase("check")
        kind = sqlite.KIND if self.request.path else None
        results = fetch.check(self.plan.targets, self.operation, self.places.scratch, kind)
        self.warnings += [f"{key}: {text}" for key, result in results.items() for text in result.findings]
        counted = {key: result.census for key, result in results.items() if result.census is not None}
        self.census.update(counted)
        if self.request.check_census and not self.request.path:
            wrong = census.compare({key: self._expected[key] for key in counted}, counted)
            if wrong:
                raise StackError(f"The restored copy does not hold what the snapshot says: {' '.join(wrong)}")

    def _is_database(self) -> bool:
        (target,) = self.plan.targets
        file = os.path.join(self._directories[target.key], os.path.basename(str(self.request.path)))
        return sqlite.starts_with(file, sqlite.MAGIC)

    def set_password(self) -> None:
        if not self.request.set_password:
            return
        for store in stores_of(self.engine, self.plan.containers, self._keys):
            if store.kind != neo4j.KIND:
                continue
            password = _own_password(store.inspected)
            if not password:
                raise StackError(
                    f"set_password is set, and {store.name} has no password in NEO4J_AUTH; leave set_password out."
                )
            self.progress.phase("password")
            timeout = self.request.wait_timeout
            directory = self._directories[store.key]
            try:
                set_password(self.engine, self.journal, self.request.project, store, directory, password, timeout)
            except StackError as error:
                if _SAME not in str(error):
                    raise
            self.extra.append(f"set the password of the restored Neo4j to that of {store.name}")
            return
        self.warnings.append("set_password is set, and no container with a restored Neo4j is there; nothing was set.")

    def probe(self) -> None:
        if not self.request.probe:
            return
        self.journal.phase("probe")
        self.progress.phase("probe")
        found = probe(
            self.engine,
            self.journal,
            self.request.project,
            self.plan.containers,
            self._directories,
            self.places.scratch,
            self.request.wait_timeout,
            self._keys,
            self.warnings,
        )
        self.census.update(found)
        if self.request.check_census:
            wrong = census.compare({key: self._expected[key] for key in found}, found)
            if wrong:
                raise StackError(f"The stores do not find what the snapshot says: {' '.join(wrong)}")

    def login(self) -> str:
        """A sentence, with a space before it, if a restored Neo4j does not take the host's password."""
        try:
            for store in stores_of(self.engine, self.plan.crew.inspect(), self._keys):
                problem = login_problem(store.inspected) if store.kind == neo4j.KIND else None
                if problem:
                    return f" {problem}"
        except StackError:
            return ""
        return ""

    def begin(self) -> None:
        """Count the stores that are healthy already, while others start; compare() has the rest."""
        if self._counting is not None or self.request.path or not self.request.check_census:
            return
        self._counting = beside(lambda: census.ask(self.engine, self.plan.crew.inspect(), self._keys))

    def _count(self) -> dict[str, Any]:
        if self._counting is not None:
            with suppress(StackError):
                found = self._counting.result()
                if found and None not in found.values():
                    return found
        return census.ask(self.engine, self.plan.crew.inspect(), self._keys, self.warnings)

    def compare(self) -> None:
        """What the stores say now against the snapshot; SQLite was counted before the swap."""
        if not self.plan.crew.ids or self.request.path:
            return
        self.progress.phase("census")
        found: dict[str, Any] = {}
        if self.request.check_census:
            found = self._count()
        if not found or None in found.values():  # a store that let itself be counted took the password
            refused = self.login()
            if refused:
                raise StackError(refused.strip())
        if not self.request.check_census:
            return
        self.census.update({key: value for key, value in found.items() if value is not None})
        kinds = {target.key: target.store for target in self.plan.targets}
        expected = {key: value for key, value in self._expected.items() if key in found and kinds[key] != sqlite.KIND}
        if census.compare({key: at_least(value) for key, value in expected.items()}, found):
            wrong = " ".join(census.compare(expected, found))
            raise StackError(f"The restored stack does not hold what the snapshot says: {wrong}")


def at_least(value: Any) -> Any:
    """A census without upper bounds: the stack runs, and its clients may write already."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {key: at_least(inner) for key, inner in value.items()}
    return [value[0] if isinstance(value, list) else value, _UNCOUNTED]


def _own_password(inspected: Mapping[str, Any]) -> str:
    """The password in NEO4J_AUTH of an inspected container, "" where there is none."""
    user, _slash, password = Container.from_inspect(inspected).environment.get("NEO4J_AUTH", "").partition("/")
    return "" if user == "none" else password.partition("/")[0]
