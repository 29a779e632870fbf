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

from ..errors import PartlyDoneError, StackError
from ..operation.last import read_last
from ..operation.progress import Progress
from . import show, show_repositories
from .settings import Settings, UsageError

Options = Mapping[str, Any]
DONE, FAILED, ATTENTION = 0, 1, 3
_UNITS = "/etc/systemd/system"


@dataclass
class Outcome:
    """result is printed with --json, text without it; code is the command's exit code. failure: what went wrong after
    that was done, in one sentence."""

    result: dict[str, Any]
    text: str
    code: int = DONE
    failure: str = ""


def backup(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..backup import backup as core  # late, here and below: each verb loads only what it needs
    from ..backup.request import BackupRequest
    from ..repository.retention import Keep

    if options.get("copy"):
        raise UsageError("A backup goes into the near repository and from there into the others; leave --copy out.")
    asked = {**settings.options, **_given(BackupRequest, options)}
    asked["copies"] = [] if options["no_copies"] else settings.copies
    if "volumes" in options:
        asked["volumes"] = [{"name": name} for name in options["volumes"]]
    if "tags" in options:
        asked["tags"] = [*settings.options.get("tags", ()), *options["tags"]]
    keep = {} if options["keep_all"] else _keep(settings)
    _refuse_unknown("options", asked, BackupRequest)
    request = BackupRequest(**{**asked, **settings.repository_options()}, keep=Keep(**keep) if keep else None)
    if options["if_none"]:
        there = _count(settings)
        if there:
            text = f"The stack {settings.project} has {there} snapshots already; nothing was done."
            return Outcome({"changed": False, "snapshots": there}, text)
    try:
        result = core.run(request, settings.engine(late=True), progress, options["dry_run"], settings.config_dir)
    except PartlyDoneError as error:
        return Outcome(error.result, show.backup(settings.project, error.result), FAILED, str(error))
    return Outcome(result, show.backup(settings.project, result), _code(result))


def restore(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..restore import restore as core
    from ..restore.plan import LIVE
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
        needs_force = not forced and LIVE in result["diff"]["before"]["volumes"].values()
        text += f"\nNothing was done; to do it, leave --dry-run out{' and give --force' if needs_force else ''}."
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


def copy(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..backup import copies

    request, near = _near(settings)
    failure = ""
    try:
        result = copies.run(request, near, progress, options["dry_run"])
    except PartlyDoneError as error:
        result, failure = error.result, str(error)
    text = show_repositories.copies(result) or show.actions(result, "The far repositories hold all that they should.")
    return Outcome(result, text, FAILED if failure else _code(result), failure)


def forget(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..backup import forgetting

    request, near = _near(settings)
    progress.phase("reading the repositories")
    result = forgetting.run(request, near, options["dry_run"])
    progress.done()
    return Outcome(result, show_repositories.forget(settings.project, result, options["dry_run"]), _code(result))


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
    from ..monitoring.watch import Watch, watched
    from ..repository.checking import check_and_record as core

    repository = _repository(settings)
    part = options.get("read_data")
    if part is not None and part != "all" and not part.rstrip("%").replace(".", "", 1).isdigit():
        raise UsageError(f"--read-data is {part!r}; give all, or a part such as 5%.")
    progress.phase("checking the repository")
    places = settings.places()
    watch = Watch(settings.project, "check", settings.state_dir, settings.config_dir)
    wanted = "100%" if part == "all" else f"{part.rstrip('%')}%" if part else False
    result = watched(watch, lambda: core(repository, places, wanted))
    progress.done()
    read = "its structure and its data" if part == "all" else f"its structure and {part} of its data"
    what = read if part else "its structure (the data was not read; --read-data does)"
    text = f"The repository {repository.restic.shown} is good: {what}."
    return Outcome(result, show.actions({**result, "actions": [text]}, ""), _code(result))


def status(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..monitoring.hook import failed_units
    from ..monitoring.notify import problems_of, read_told
    from ..monitoring.settings import load as load_monitoring
    from ..operation.durable_json import read_json
    from ..operation.retired import read_retirement
    from ..operation.unfinished import unfinished
    from ..restore import kept

    places = settings.places(create=False)
    left, moved = unfinished(places), read_retirement(places)
    found: dict[str, Any] = {
        "project": settings.project,
        "repository": settings.repository,
        "retired": moved.as_result()["retired"] if moved else None,
        "last": read_last(places),
        "unfinished": left,
        "kept": [entry.as_result() for entry in kept.load(places)],
        "progress": read_json(places.progress) if left and left["running"] else None,
        "failed_units": failed_units(settings.project),
        "monitoring_problems": problems_of(read_told(places)),
    }
    ages: dict[str, float] = {}
    try:
        watching = load_monitoring(settings.config_dir, settings.project)
        ages.update(watching.max_age_s if watching else {})
    except StackError as error:
        found["monitoring_problems"].append(str(error))
    if "max_age" in options:
        ages["backup"] = 3600 * options["max_age"]
    found["attention"] = show.attention(found, ages, datetime.now(timezone.utc))
    return Outcome(found, show.status(found), ATTENTION if found["attention"] else DONE)


def recover(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..migrate.arrival_undo import fence
    from ..operation.recover import recover as core

    places = settings.places(create=not options["dry_run"])
    if not options["dry_run"]:
        fence(places)  # importing the engine's library takes longer than this may
    from ..monitoring.watch import Watch, watched

    def work() -> dict[str, Any]:
        said = core(settings.engine(), places, check_mode=options["dry_run"])
        return {"changed": bool(said), "actions": said}

    watch = Watch(settings.project, "recover", settings.state_dir, settings.config_dir, quiet=True)
    result = work() if options["dry_run"] else watched(watch, work)
    return Outcome(result, show.actions(result, "Nothing was left of an operation that died."), _code(result))


def drill(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..proof import drill as core

    request = core.DrillRequest(**{**_given(core.DrillRequest, options), **settings.repository_options()})
    result = core.run(request, settings.engine(), progress)
    return Outcome(result, show.drill(settings.project, result), _code(result))


def metrics(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..monitoring.metrics import render
    from ..monitoring.notify import read_told
    from ..monitoring.settings import MonitoringSettings
    from ..monitoring.settings import load as load_monitoring
    from ..monitoring.watch import write_metrics

    places = settings.places(create=False)
    told = load_monitoring(settings.config_dir, settings.project) or MonitoringSettings(metrics_dir="")
    text = render(places.project, places.state, read_last(places), told, read_told(places))
    if options["print"]:
        return Outcome({"changed": False, "metrics": text}, text.rstrip("\n"))
    directory = write_metrics(places, told)
    said = f"Written to {directory}." if directory else "No directory for metrics is set; --print shows them."
    return Outcome({"changed": bool(directory), "directory": directory}, said)


def notify(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..monitoring import notify as core
    from ..monitoring.settings import MonitoringSettings
    from ..monitoring.settings import load as load_monitoring

    told = load_monitoring(settings.config_dir, settings.project) or MonitoringSettings()
    said = core.test(settings.places(create=False), told)
    problems = [problem for problem in said.values() if problem]
    if problems:
        raise StackError(" ".join(problems))
    result = {"changed": False, "targets": sorted(said)}
    return Outcome(result, f"A test message was sent to {', '.join(sorted(said))}.")


def failed(options: Options, settings: Settings, progress: Progress) -> Outcome:
    from ..monitoring import hook

    result = hook.run(settings.project, settings.state_dir, settings.config_dir)
    return Outcome(result, show.actions(result, "No unit of the stack has failed."), _code(result))


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
    "copy": copy,
    "forget": forget,
    "list": list_snapshots,
    "check": check,
    "status": status,
    "recover": recover,
    "drill": drill,
    "init": init,
    "metrics": metrics,
    "notify": notify,
    "failed": failed,
    "gate": gate,
    "arrive": arrive,
}


def _keep(settings: Settings) -> dict[str, Any]:
    from ..repository.retention import Keep

    keep = {name: value for name, value in settings.keep.items() if value is not None}
    _refuse_unknown("keep", keep, Keep)
    return keep


def _near(settings: Settings) -> Any:
    """(what is known of a backup, the near repository)."""
    from ..backup.request import BackupRequest
    from ..repository.retention import Keep

    keep = _keep(settings)
    prune = settings.options.get("prune", True)
    known = {**settings.repository_options(), "copies": settings.copies, "prune": prune}
    return BackupRequest(**known, keep=Keep(**keep) if keep else None), _repository(settings)


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


def _code(result: Mapping[str, Any]) -> int:
    return ATTENTION if result.get("warnings") else DONE
