# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watches a run: records how it ended, writes the metrics, and tells people. Nothing of that makes a run fail."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import BusyError, PartlyDoneError, StackError
from ..operation.last import add_to_last, now, outcome, read_last, record_last, record_repository
from ..operation.places import CONFIG_DIR, STATE_DIR, Places
from ..operation.retired import read_retirement
from ..repository.failures import LockedError
from .settings import MonitoringSettings, load

Result = dict[str, Any]
OWN_RECORD = ("backup", "drill")  # they record more than that, themselves
PROBLEMS = "monitoring"  # in last.json: what stands in the way of monitoring itself


@dataclass(frozen=True)
class Watch:
    """One run of an operation (metrics.OPERATIONS). measure gives what record_repository() takes. A quiet one tells of
    no failure by itself, as it is tried again; systemd's hook does where it fails for good. counts says of a result
    whether it is one of that operation: else it changes nothing of what is known and told of it.
    """

    project: str
    operation: str
    state_dir: str = STATE_DIR
    config_dir: str = CONFIG_DIR
    measure: Callable[[], tuple[str, Mapping[str, Any]]] | None = field(default=None, repr=False)
    quiet: bool = False
    counts: Callable[[Result], bool] = field(default=lambda _result: True, repr=False)

    def settings(self) -> MonitoringSettings | None:
        return load(self.config_dir, self.project)

    def places(self, create: bool = False) -> Places:
        return Places.of(self.project, self.state_dir, create=create)


def watched(watch: Watch, work: Callable[[], Result]) -> Result:
    """The result of work, with a warning more for each thing that monitoring could not do.

    What work raises is raised; a StackError then also says what monitoring could not do. A run that only found another
    one under way counts as none.
    """
    begun = time.monotonic()
    try:
        result = work()
    except (BusyError, LockedError):
        raise
    except StackError as error:
        said: list[str] = []
        if isinstance(error, PartlyDoneError):  # the near repository has its snapshot, and only the far one is behind
            _try(said, lambda: _measure(watch, watch.places()))
        said += failed(watch, str(error), time.monotonic() - begun, watch.quiet)
        if said:
            error.args = (" ".join([str(error), *said]),)
        raise
    except Exception as error:
        failed(watch, f"An error that was not foreseen: {type(error).__name__}: {error}", time.monotonic() - begun)
        raise
    except BaseException:  # a signal: whoever sent it knows, and is in a hurry
        failed(watch, "It was interrupted.", time.monotonic() - begun, quietly=True)
        raise
    said = _succeeded(watch, result, time.monotonic() - begun) if watch.counts(result) else []
    return {**result, "warnings": [*result.get("warnings", ()), *said]} if said else result


def failed(watch: Watch, message: str, seconds: float | None, quietly: bool = False, **more: Any) -> list[str]:
    """Record a failed run and tell of it (quietly: only record it); sentences on what could not be done."""

    def record(places: Places) -> None:
        about = {"created": now(), "seconds": _round(seconds), "message": message, **_invocation(), **more}
        record_last(places, f"{watch.operation}_failed", about)

    return _after(watch, record, "", quietly)


def _succeeded(watch: Watch, result: Mapping[str, Any], seconds: float) -> list[str]:
    def record(places: Places) -> None:
        more: dict[str, Any] = {"finished": now(), "seconds": _round(seconds)}
        if watch.operation not in OWN_RECORD or watch.operation not in read_last(places):
            more["created"] = more["finished"]
        add_to_last(places, watch.operation, more)
        _measure(watch, places)

    snapshot = result.get("snapshot_id")
    return _after(watch, record, f"Snapshot {str(snapshot)[:8]}." if snapshot else "", False)


def _measure(watch: Watch, places: Places) -> None:
    if watch.measure is not None:
        location, about = watch.measure()
        record_repository(places, location, about)


def refresh(watch: Watch) -> list[str]:
    """Write the metrics and tell who does not know yet, of what was recorded; sentences on what could not be done."""
    return _after(watch, lambda places: None, "", False)


def _after(watch: Watch, record: Callable[[Places], None], detail: str, quietly: bool) -> list[str]:
    said: list[str] = []
    settings = _try(said, watch.settings)
    places = _try(said, lambda: watch.places(create=settings is not None))
    if places is None or not os.path.isdir(places.state):  # refused the first time, and nobody watches
        return said
    _try(said, lambda: record(places))
    if settings is None:
        return said
    from . import notify  # late, here and below: only where somebody watches

    ended = outcome(read_last(places), watch.operation)
    if ended is not None and not quietly:
        said += _try(said, lambda: notify.tell(places, settings, watch.operation, ended, detail)) or []
    _try(said, lambda: write_metrics(places, settings))
    with suppress(StackError):
        if (read_last(places).get(PROBLEMS) or {}).get("problems", []) != said:
            record_last(places, PROBLEMS, {"created": now(), "problems": said})
    return said


def write_metrics(places: Places, settings: MonitoringSettings) -> str:
    """Write them where the settings say; the directory, "" where they say none. Raises StackError.

    Those of a stack that was moved to another host are taken away.
    """
    directory = settings.textfiles
    if not directory:
        return ""
    from . import metrics, notify

    if read_retirement(places) is not None:
        metrics.remove(places, settings)
        return ""
    text = metrics.render(places.project, places.state, read_last(places), settings, notify.read_told(places))
    metrics.write(directory, places.project, text)
    return directory


def _try(said: list[str], work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (OSError, StackError) as error:
        said.append(str(error))
        return None


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _invocation() -> dict[str, str]:
    """systemd's id of the run, by which its hook sees that the run has said itself why it failed."""
    found = os.environ.get("INVOCATION_ID")
    return {"invocation": found} if found else {}
