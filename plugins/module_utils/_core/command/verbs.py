# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each verb of the command does: options and settings in, a result for machines and a text for people out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

from ..errors import BusyError, StackError
from ..operation.last import read_last, record_last
from ..operation.progress import Progress
from . import show
from .settings import Settings, UsageError

Options = Mapping[str, Any]
DONE, ATTENTION = 0, 3
_UNITS = "/etc/systemd/system"


@dataclass
class Outcome:
    """result is printed with --json, text without it; code is the command's exit code."""

    result: dict[str, Any]
    text: str
    code: int = DONE


def backup(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..backup import backup as core  # late, here and below: each verb loads only what it needs
    from ..backup.request import BackupRequest
    from ..repository.retention import Keep

    asked = {**settings.options, **_given(BackupRequest, options)}
    if "volumes" in options:
        asked["volumes"] = [{"name": name} for name in options["volumes"]]
    if "tags" in options:
        asked["tags"] = [*settings.options.get("tags", ()), *options["tags"]]
    keep = {} if options["keep_all"] else {name: value for name, value in settings.keep.items() if value is not None}
    _refuse_unknown("keep", keep, Keep)
    _refuse_unknown("options", asked, BackupRequest)
    request = BackupRequest(**{**asked, **settings.repository_options()}, keep=Keep(**keep) if keep else None)
    if options["if_none"]:
        there = _count(settings)
        if there:
            text = f"The stack {settings.project} has {there} snapshots already; nothing was done."
            return Outcome({"changed": False, "snapshots": there}, text)
    try:
        result = core.run(request, settings.engine(), progress, options["dry_run"])
    except BusyError:
        raise
    except StackError as error:
        _record_failure(settings, "backup", error)
        raise
    return Outcome(result, show.backup(settings.project, result), _code(result))


def restore(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..restore import restore as core
    from ..restore.request import RestoreRequest

    asked = _given(RestoreRequest, options)
    if "name_map" in asked:
        pairs = [pair.partition("=") for pair in asked["name_map"]]
        wrong = [name for name, _equals, volume in pairs if not name or not volume]
        if wrong:
            raise UsageError(f"--map is {wrong[0]!r}; give NAME=VOLUME, such as qdrant_storage=my_qdrant.")
        asked["name_map"] = {name: volume for name, _equals, volume in pairs}
    asked.setdefault("staging_dir", settings.options.get("staging_dir"))  # where the next backup finds it, too
    forced = asked.get("force", False)
    request = RestoreRequest(**{**asked, **settings.repository_options(), "force": forced or options["dry_run"]})
    result = core.run(request, settings.engine(), progress, options["dry_run"])
    text = show.restore(settings.project, result)
    if options["dry_run"]:
        text += f"\nNothing was done; to do it, leave --dry-run out{'' if forced else ' and give --force'}."
    return Outcome(result, text, _code(result))


def undo(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..restore import back

    result = back.run(settings.project, settings.state_dir, settings.engine(), progress, options["dry_run"])
    return Outcome(result, show.restore(settings.project, result), _code(result))


def purge(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..purge import purge as core
    from ..purge.request import PurgeRequest

    asked = _given(PurgeRequest, options)
    asked.setdefault("staging_dir", settings.options.get("staging_dir"))  # the copy of the backups goes, too
    known = settings.repository_options() if asked.get("snapshot") != "none" else settings.known()
    result = core.run(PurgeRequest(**{**asked, **known}), settings.engine(), progress, options["dry_run"])
    text = show.purge(settings.project, result)
    if options["dry_run"] and result["changed"]:
        text += f"\nNothing was done; to do it, leave --dry-run out and give --confirm {settings.project}."
    elif result["changed"] and os.path.exists(f"{_UNITS}/openmemory-stack-backup@{settings.project}.timer"):
        text += "\nThe timer of its backups and its settings are still there; playbooks/purge.yml removes them."
    return Outcome(result, text, _code(result))


def list_snapshots(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..backup.snapshots import snapshots_info

    progress.phase("reading the repository")
    places = settings.places(create=False)
    kept = places if os.path.isdir(places.state) else None
    found = snapshots_info(_repository(settings), kept, settings.project, options.get("tags", ()))
    progress.done()
    limit = options.get("limit")
    shown = {**found, "snapshots": found["snapshots"][:limit]}
    return Outcome(shown, show.snapshots(settings.project, shown, len(found["snapshots"])))


def check(options: Options, settings: Settings, progress: Progress) -> Outcome:
    repository = _repository(settings)
    part = options.get("read_data")
    if part is not None and part != "all" and not part.rstrip("%").replace(".", "", 1).isdigit():
        raise UsageError(f"--read-data is {part!r}; give all, or a part such as 5%.")
    progress.phase("checking the repository")
    problems = repository.check("100%" if part == "all" else f"{part.rstrip('%')}%" if part else False)
    progress.done()
    result = {"changed": False, "location": repository.restic.shown, "health": problems or "good"}
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise StackError(
            f"The repository {repository.restic.shown} is damaged; make a backup into another one now, and keep this "
            f"one for what can still be read:{listed}"
        )
    read = "its structure and its data" if part == "all" else f"its structure and {part} of its data"
    what = read if part else "its structure (the data was not read; --read-data does)"
    return Outcome(result, f"The repository {repository.restic.shown} is good: {what}.")


def status(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..operation.durable_json import read_json
    from ..operation.unfinished import unfinished
    from ..restore import kept

    places = settings.places(create=False)
    left = unfinished(places)
    found: dict[str, Any] = {
        "project": settings.project,
        "repository": settings.repository,
        "last": read_last(places),
        "unfinished": left,
        "kept": [entry.as_result() for entry in kept.load(places)],
        "progress": read_json(places.progress) if left and left["running"] else None,
    }
    found["attention"] = show.attention(found, options.get("max_age"), datetime.now(timezone.utc))
    return Outcome(found, show.status(found), ATTENTION if found["attention"] else DONE)


def recover(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..migrate.arrival_undo import fence
    from ..operation.recover import recover as core

    places = settings.places(create=not options["dry_run"])
    if not options["dry_run"]:
        fence(places)  # importing the engine's library takes longer than this may
    said = core(settings.engine(), places, check_mode=options["dry_run"])
    result = {"changed": bool(said), "actions": said}
    return Outcome(result, show.actions(result, "Nothing was left of an operation that died."))


def drill(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..proof import drill as core

    request = core.DrillRequest(**{**_given(core.DrillRequest, options), **settings.repository_options()})
    try:
        result = core.run(request, settings.engine(), progress)
    except BusyError:
        raise
    except StackError as error:
        _record_failure(settings, "drill", error)
        raise
    return Outcome(result, show.drill(settings.project, result), _code(result))


def init(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..repository.password import ensure_password

    repository = _repository(settings)
    actions = []
    local = repository.restic.local_path
    missing = not os.path.exists(str(settings.password_file))
    if missing and local and repository.exists():
        raise StackError(
            f"There is a repository at {local}, and its password is not in {settings.password_file}; put it there, "
            "because a new one cannot open it."
        )
    if ensure_password(str(settings.password_file)):
        actions.append(f"password generated in {settings.password_file}; keep it in another place, too")
    if repository.exists():
        snapshots = len(repository.snapshots(settings.project))
    else:
        repository.init()
        snapshots = 0
        actions.append(f"repository {repository.restic.shown} made")
    result = {"changed": bool(actions), "actions": actions, "snapshots": snapshots}
    text = show.actions(result, f"The repository {repository.restic.shown} is there.")
    return Outcome(result, text)


def gate(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..migrate import gate as core

    places = settings.places()
    core.enter(places, options["operation"], settings.docker_host, options["asked"])
    result = core.settle(places, settings.engine(), options["operation"])
    return Outcome({"changed": False, **result}, json.dumps(result))


def arrive(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..migrate import caller

    caller.live()
    from ..migrate import arrival  # it takes its time

    result = arrival.run(settings.places(), settings.engine(), options["operation"], progress)
    return Outcome(result, "")


VERBS: dict[str, Callable[[Options, Settings, Progress], Outcome]] = {
    "backup": backup,
    "restore": restore,
    "undo": undo,
    "purge": purge,
    "list": list_snapshots,
    "check": check,
    "status": status,
    "recover": recover,
    "drill": drill,
    "init": init,
    "gate": gate,
    "arrive": arrive,
}


def _given(request: type, options: Options) -> dict[str, Any]:
    names = {each.name for each in fields(request)}
    return {name: value for name, value in options.items() if name in names}


def _refuse_unknown(where: str, values: Mapping[str, Any], request: type) -> None:
    unknown = sorted(set(values) - {each.name for each in fields(request)})
    if unknown:
        raise UsageError(f"{where} in the settings has {unknown[0]!r}, which is not known; correct it.")


def _repository(settings: Settings) -> Any:
    from ..repository.repository import Repository
    from ..repository.restic import Restic

    given = settings.repository_options()
    cache = os.path.join(settings.state_dir, "cache")
    return Repository(Restic(given["repository"], given["password_file"], given["environment"], cache_dir=cache))


def _count(settings: Settings) -> int:
    repository = _repository(settings)
    return len(repository.snapshots(settings.project)) if repository.exists() else 0


def _record_failure(settings: Settings, operation: str, error: StackError) -> None:
    places = settings.places(create=False)
    if os.path.isdir(places.state):
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record_last(places, f"{operation}_failed", {"created": when, "message": str(error)})


def _code(result: Mapping[str, Any]) -> int:
    return ATTENTION if result.get("warnings") else DONE
