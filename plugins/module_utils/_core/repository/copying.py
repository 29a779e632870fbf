# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fills a far repository from the near one with `restic copy`, so that the host's own data is not read again."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import StackError
from ..operation.durable_json import read_json, write_json
from ..operation.places import Places
from .failures import NoRepositoryError, PassingError
from .repository import Repository
from .restic import Restic, refuse_password
from .retention import Keep, to_remove
from .sftp import ssh_command
from .snapshot import Snapshot

PATIENCE_S = 120.0  # nobody waits for it
LOCK_WAIT_S = 900.0  # for a prune of another machine
_TRIES = 3
_PAUSE_S = 10.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_RECORD = "copied.json"


@dataclass(frozen=True)
class Copy:
    """A far repository. The names are those of the suboptions of the modules' option copies.

    keep: which snapshots stay there; None where that is not this host's affair, as in append-only ones. prune: also
    free their space. limit_upload: KiB/s, 0 for none.
    """

    name: str
    repository: str
    password_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    keep: Keep | None = None
    prune: bool = True
    init: bool = True
    limit_upload: int = 0

    @classmethod
    def of(cls, given: Mapping[str, Any], password_file: str) -> Copy:
        """From a dict as modules and settings have it; the near repository's password file where none is named."""
        names = set(cls.__dataclass_fields__)
        unknown = sorted(set(given) - names)
        if unknown:
            raise StackError(f"copies has {unknown[0]!r}, which is not known; use {', '.join(sorted(names))}.")
        for name in ("name", "repository"):
            if not given.get(name):
                raise StackError(f"An entry of copies has no {name}; give it one.")
        known = {name: value for name, value in given.items() if value is not None}
        keep = {name: value for name, value in (known.pop("keep", None) or {}).items() if value is not None}
        known["environment"] = {name: str(value) for name, value in (known.get("environment") or {}).items()}
        known["password_file"] = known.get("password_file") or password_file
        return cls(**known, keep=Keep(**keep) if keep else None)

    def check(self, near: str, environment: Mapping[str, str]) -> None:
        """Raise StackError for what can be seen to be wrong; near and environment are those of the near repository."""
        if not _NAME.fullmatch(self.name) or self.name == "near":
            raise StackError(
                f"name in copies is {self.name!r}; use lower-case letters, digits, '-' and '_', and not 'near'."
            )
        refuse_password(self.repository)
        if self.repository.rstrip("/") == near.rstrip("/"):
            raise StackError(f"repository of the copy {self.name} is the near repository itself; give another one.")
        if not os.path.isabs(self.password_file):
            raise StackError(
                f"password_file of the copy {self.name} is {self.password_file}, which is not an absolute path; give "
                "one that starts with /."
            )
        if self.limit_upload < 0:
            raise StackError(f"limit_upload of the copy {self.name} is {self.limit_upload}; give KiB/s, or 0 for none.")
        both = (name for name, value in self.environment.items() if environment.get(name, value) != value)
        shared = sorted(name for name in both if not name.startswith("RESTIC_REST_"))  # these go into each address
        if shared:
            raise StackError(
                f"environment of the copy {self.name} has another {shared[0]} than the near repository's, and restic "
                "knows only one of it while it copies; keep the near repository in a place that needs none, such as a "
                "directory of the host."
            )
        if ssh_command(self.repository, self.environment) and ssh_command(near, environment):
            raise StackError(
                f"The near repository and the copy {self.name} both are sftp: with a key of their own, and restic "
                "knows only one while it copies; put the keys into root's ssh settings instead."
            )

    def open(self, state_dir: str, near: Repository | None = None, patience_s: float = PATIENCE_S) -> Repository:
        """The repository; with near, to be copied into from there. Nothing is asked of it yet."""
        restic = Restic(
            self.repository,
            self.password_file,
            self.environment,
            os.path.join(state_dir, "cache"),
            command=near.restic.command if near else "restic",
            limit_upload=self.limit_upload,
            lock_wait_s=LOCK_WAIT_S,
            patience_s=patience_s,
            source=near.restic if near else None,
        )
        return Repository(restic)


def missing_in(
    copy: Copy, far: Repository, identity: str, near: Sequence[Snapshot], project: str, places: Places
) -> tuple[list[Snapshot], list[Snapshot]]:
    """(those of near, all of one host, that are to be copied; the host's that are there). Oldest first.

    One that was there once and is not any more was removed there by whoever may, so it is not brought again; nor is one
    that copy.keep would remove at once. identity: far.identity().
    """
    done = set(_record(places).get(identity, ()))
    hosts = {each.hostname for each in near}
    there = [each for each in far.snapshots(project) if each.hostname in hosts]
    known = {each.origin for each in there}
    lacking = [each for each in near if each.origin not in known and each.id not in done]
    if copy.keep and lacking:
        going = {each.id for each in to_remove([*there, *lacking], copy.keep, datetime.now(timezone.utc))}
        lacking = [each for each in lacking if each.id not in going]
    return lacking, there


def bring(
    copy: Copy, far: Repository, near: Sequence[Snapshot], project: str, places: Places, pause_s: float = _PAUSE_S
) -> dict[str, Any]:
    """Copy what is missing there: {copied: [ids in the near repository], bytes, seconds, made}.

    near: the snapshots of one host in the near repository, which far.restic.source names. bytes: what restic wrote
    meanwhile, nearly all of it into the far repository. made: whether the repository had to be made. What passes (no
    answer, 503, a broken connection) is tried three times, beside restic's own tries; then StackError. What is there by
    then stays, so the next call goes on.
    """
    begun = time.monotonic()
    found: dict[str, Any] = {"copied": [], "bytes": 0, "seconds": 0.0, "made": False}
    for attempt in range(1, _TRIES + 1):
        try:
            _bring(copy, far, near, project, places, found)
            break
        except PassingError:
            if attempt == _TRIES:
                raise
            time.sleep(pause_s * attempt)
    return {**found, "seconds": round(time.monotonic() - begun, 3)}


def _bring(
    copy: Copy, far: Repository, near: Sequence[Snapshot], project: str, places: Places, found: dict[str, Any]
) -> None:
    try:
        identity = far.identity()
    except NoRepositoryError:
        if not copy.init:
            raise StackError(
                f"There is no repository at {far.restic.shown}; correct repository of the copy {copy.name}, or let "
                "init be true there to have it made."
            ) from None
        far.init()
        found["made"] = True
        identity = far.identity()
    lacking, there = missing_in(copy, far, identity, near, project, places)
    if lacking:
        ids = [each.id for each in lacking]
        doing = f"copy snapshots into {copy.name}"
        output = far.restic.call("copy", *ids, doing=doing, on_line=lambda _line: None)
        found["bytes"] += output.written
        there = far.snapshots(project)
        _arrived(copy, far, lacking, there)
        found["copied"] += ids
    record = _record(places)
    arrived = {each.origin for each in there}
    before = set(record.get(identity, ()))
    record[identity] = [each.id for each in near if each.origin in arrived or each.id in before]
    write_json(os.path.join(places.state, _RECORD), record)


def _arrived(copy: Copy, far: Repository, wanted: Sequence[Snapshot], there: Sequence[Snapshot]) -> None:
    known = {each.origin for each in there}
    lost = [each.short_id for each in wanted if each.origin not in known]
    if lost:
        raise StackError(
            f"restic said that it copied {', '.join(lost)} into {far.restic.shown} ({copy.name}), and they are not "
            "there; check that repository."
        )


def _record(places: Places) -> dict[str, list[str]]:
    """{id of a far repository: the ids in the near one of what was copied there}."""
    found = read_json(os.path.join(places.state, _RECORD)) if os.path.isdir(places.state) else None
    return found if isinstance(found, dict) else {}
