# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The metrics of a stack, from what was recorded of its last runs, as a file for node_exporter's textfile collector."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import StackError
from ..filesystem import free_and_total
from ..operation.last import REPOSITORIES, moment, outcome
from ..operation.places import Places
from ..repository.restic import directory_of
from .exposition import Gauge, text_of
from .settings import MonitoringSettings

PREFIX = "openmemory_stack_"
OPERATIONS = ("backup", "drill", "check", "recover")  # those that run without anybody watching
_HELP = {
    "last_run_timestamp_seconds": "When the last run of the operation ended.",
    "last_run_success": "Whether the last run of the operation succeeded.",
    "last_run_duration_seconds": "How long the last run of the operation took.",
    "last_success_timestamp_seconds": "When the last successful run of the operation ended.",
    "max_age_seconds": "How old the last success of the operation may become, as the host was told.",
    "backup_instant_timestamp_seconds": "The instant of the newest snapshot; its age is the time since then.",
    "backup_freeze_seconds": "How long writes were blocked for the newest snapshot.",
    "backup_read_bytes": "Bytes that the last backup read from the volumes.",
    "backup_added_bytes": "Bytes that the last backup added to the repository.",
    "backup_warnings": "How many warnings the last backup ended with.",
    "volume_size_bytes": "Bytes that a volume took on disk at the last backup.",
    "volume_check_success": "Whether the check of a volume's copy found it sound; absent where it was not checked.",
    "drill_memories": "How many memories the last drill read back through the API.",
    "repository_instant_timestamp_seconds": "The instant of the newest snapshot that this host put there.",
    "repository_size_bytes": "Bytes that the repository takes, as last measured.",
    "repository_snapshots": "How many snapshots the repository holds, as last measured.",
    "repository_healthy": "Whether the last check found the repository sound.",
    "repository_problems": "How many problems the last check found in the repository.",
    "repository_check_timestamp_seconds": "When the repository was last checked.",
    "filesystem_free_bytes": "Bytes free where the repository (if local) and the state directory lie.",
    "filesystem_size_bytes": "Size of the file system where the repository (if local) and the state directory lie.",
    "notification_success": "Whether the last notification to a target was delivered.",
}
NAMES = tuple(PREFIX + name for name in _HELP)


def render(
    project: str, state_dir: str, last: Mapping[str, Any], settings: MonitoringSettings, told: Mapping[str, Any]
) -> str:
    """The text of the file. last: as recorded; told: {target: {"delivered": bool}} of the notifications."""
    gauges = {name: Gauge(PREFIX + name, text) for name, text in _HELP.items()}
    for operation in OPERATIONS:
        _operation(gauges, project, operation, last)
    for operation, seconds in settings.max_age_s.items():
        gauges["max_age_seconds"].add(seconds, project=project, operation=operation)
    _backup(gauges, project, last.get("backup") or {})
    gauges["drill_memories"].add((last.get("drill") or {}).get("memories"), project=project)
    for location, about in (last.get(REPOSITORIES) or {}).items():
        _repository(gauges, project, location, about)
    places = {"state": state_dir}
    places.update({at: path for at in last.get(REPOSITORIES) or {} for path in [directory_of(at)] if path})
    for place, path in places.items():
        free, size = free_and_total(path)
        gauges["filesystem_free_bytes"].add(free, project=project, place=place)
        gauges["filesystem_size_bytes"].add(size, project=project, place=place)
    for target, about in told.items():
        gauges["notification_success"].add(about.get("delivered"), project=project, target=target)
    return text_of(gauges)


def _operation(gauges: Mapping[str, Gauge], project: str, operation: str, last: Mapping[str, Any]) -> None:
    labels = {"project": project, "operation": operation}
    ended = outcome(last, operation)
    if ended is not None:
        gauges["last_run_timestamp_seconds"].add(ended.at.timestamp(), **labels)
        gauges["last_run_success"].add(ended.ok, **labels)
        gauges["last_run_duration_seconds"].add(ended.seconds, **labels)
    done = last.get(operation)
    if done:
        at = moment(str(done.get("finished") or done["created"]))
        gauges["last_success_timestamp_seconds"].add(at.timestamp(), **labels)


def _backup(gauges: Mapping[str, Gauge], project: str, last: Mapping[str, Any]) -> None:
    if not last:
        return
    gauges["backup_instant_timestamp_seconds"].add(moment(last["created"]).timestamp(), project=project)
    gauges["backup_freeze_seconds"].add(last.get("freeze_s"), project=project)
    gauges["backup_read_bytes"].add(last.get("bytes_read"), project=project)
    gauges["backup_added_bytes"].add(last.get("bytes_stored"), project=project)
    gauges["backup_warnings"].add(len(last.get("warnings") or ()), project=project)
    for key, about in (last.get("volumes") or {}).items():
        labels = {"project": project, "volume": key, "store": str(about.get("store"))}
        gauges["volume_size_bytes"].add(about.get("allocated_bytes"), **labels)
        gauges["volume_check_success"].add((about.get("check") or {}).get("ok"), **labels)


def _repository(gauges: Mapping[str, Gauge], project: str, location: str, about: Mapping[str, Any]) -> None:
    labels = {"project": project, "repository": location}
    if about.get("newest"):
        newest = moment(about["newest"]).timestamp()
        gauges["repository_instant_timestamp_seconds"].add(newest, **labels)
    gauges["repository_size_bytes"].add(about.get("size_bytes"), **labels)
    gauges["repository_snapshots"].add(about.get("snapshots"), **labels)
    if about.get("checked"):
        gauges["repository_healthy"].add(not about.get("problems"), **labels)
        gauges["repository_problems"].add(len(about.get("problems") or ()), **labels)
        gauges["repository_check_timestamp_seconds"].add(moment(about["checked"]).timestamp(), **labels)


def path_of(directory: str, project: str) -> str:
    """The file of a stack's metrics."""
    return os.path.join(directory, f"openmemory-stack-{project}.prom")


def write(directory: str, project: str, text: str) -> None:
    """Replace the file at once, mode 0644, so that no scrape sees half of it. Raises StackError."""
    temporary = ""
    try:
        # A new name each time, made exclusively: the directory may belong to a user without rights. Not *.prom yet.
        descriptor, temporary = tempfile.mkstemp(prefix=".openmemory-stack-", dir=directory)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o644)
            file.write(text)
        os.replace(temporary, path_of(directory, project))
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise StackError(
            f"The metrics cannot be written to metrics_dir {directory} ({error.strerror}); make the directory, or "
            "correct the setting."
        ) from error


def remove(places: Places, settings: MonitoringSettings) -> bool:
    """Take the metrics of a stack away that is no more; whether there were some."""
    if settings.textfiles:
        with suppress(OSError):
            os.unlink(path_of(settings.textfiles, places.project))
            return True
    return False
