# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a long module in the background of its host, and prints how far it is."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import merge_hash
from ansible_collections.openmemory.stack.plugins.plugin_utils._progress_lines import Lines

LIMIT_S = 7 * 86400  # Ansible kills a background job after that long; ours end by themselves
LOST_S = 120  # how long a lost connection is tried again
TRY_EVERY_S = 2
QUIET_S = 5
_MARK = "--openmemory.stack--"
_WRAPPING = ("ansible_job_id", "results_file", "started", "finished")
_WRAPPING += ("stdout", "stderr", "stdout_lines", "stderr_lines")

Answer = TypeVar("Answer")

display = Display()


@dataclass(frozen=True)
class Seen:
    """One look at the host: what the module says of itself (None: nothing yet), and what became of its job."""

    progress: Mapping[str, Any] | None
    finished: bool
    alive: bool


class ProgressAction(ActionBase):
    """For an action plugin with the name of a module. verb is what the module does, for people."""

    _supports_check_mode = True
    _supports_async = True
    verb = ""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        own = bool(self._task.async_val)
        if self._task.check_mode or own or self._connection.has_native_async:
            wrap = own and not self._connection.has_native_async
            result = merge_hash(result, self._execute_module(task_vars=variables, wrap_async=wrap))
            if not wrap:
                self._remove_tmp_path(self._connection._shell.tmpdir)
            return result
        return merge_hash(result, self._watched(variables))

    def _watched(self, variables: dict[str, Any]) -> dict[str, Any]:
        job = self._start(variables)
        if job.get("failed") or "ansible_job_id" not in job:
            return {**job, "changed": False}
        lines = Lines(f"{self._host(variables)}: {self.verb}", quiet_s=QUIET_S)
        found = self._collect(job, variables, lines) if self._wait(job, variables, lines) else None
        with suppress(AnsibleConnectionFailure):  # it only tidies up
            self._low_level_execute_command(f"rm -f {shlex.quote(job['results_file'])}")
        return self._killed(variables) if found is None or _is_wrappers(found) else found

    def _killed(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        message = f"The {self.verb} on {self._host(variables)} was killed before it could say anything"
        return {
            "failed": True,
            "msg": f"{message}; run it again, which first finishes or undoes what was begun, "
            "or run openmemory-stack recover there.",
        }

    def _start(self, variables: dict[str, Any]) -> dict[str, Any]:
        self._task.async_val = LIMIT_S
        try:
            started: dict[str, Any] = self._execute_module(task_vars=variables, wrap_async=True)
        finally:
            self._task.async_val = 0  # or Ansible would poll it, too
        return started

    def _wait(self, job: Mapping[str, Any], variables: Mapping[str, Any], lines: Lines) -> bool:
        """Print lines until the job is over; False if it is gone without a result."""
        begun = time.monotonic()
        gone = 0
        while True:
            since = time.monotonic() - begun
            time.sleep(1 if since < QUIET_S else 2 if since < 60 else 5)
            seen = self._ask(lambda: self._look(job), job, variables, lines)
            if seen.finished:
                return True
            gone = 0 if seen.alive else gone + 1
            if gone > 1:  # between two looks it may just have written its result
                return False
            if seen.progress is not None:
                self._say(lines.of(seen.progress, time.monotonic() - begun))

    def _ask(
        self, ask: Callable[[], Answer], job: Mapping[str, Any], variables: Mapping[str, Any], lines: Lines
    ) -> Answer:
        """What ask returns; while the connection is lost it is tried again."""
        asked = time.monotonic()
        while True:
            try:
                return ask()
            except AnsibleConnectionFailure as error:
                if time.monotonic() - asked > LOST_S:
                    raise AnsibleConnectionFailure(self._lost(job, self._host(variables), error)) from error
                self._say(lines.lost())
            time.sleep(TRY_EVERY_S)

    def _look(self, job: Mapping[str, Any]) -> Seen:
        done = self._low_level_execute_command(self._command(job))
        if done["rc"] != 0:
            raise AnsibleConnectionFailure(done.get("stderr") or "the host does not answer")
        progress, state, alive = done["stdout"].split(_MARK)
        return Seen(_parse(progress), '"started": true' not in state.replace("True", "true"), "alive" in alive)

    def _command(self, job: Mapping[str, Any]) -> str:
        """One cheap command; what it looks for must not be found in its own command line, hence the brackets."""
        name = job["ansible_job_id"].split(".")[0]
        hidden = f"[{name[0]}]{name[1:]}"
        directory, _slash, file = job["results_file"].rpartition("/")
        result = f"{shlex.quote(directory)}/[{file[0]}]{shlex.quote(file[1:])}"
        progress = shlex.quote(f"/run/openmemory-stack/{self._project()}/progress.json")
        return (
            f"test {progress} -nt {result} && head -c 16384 {progress}; echo; echo {_MARK}; "
            f"head -c 200 {result}; echo; echo {_MARK}; "
            f"grep -sqa '{hidden}' /proc/[0-9]*/cmdline && echo alive; true"
        )

    def _project(self) -> str:
        return str(self._task.args.get("compose_project", ""))

    def _host(self, variables: Mapping[str, Any]) -> str:
        name = str(variables.get("inventory_hostname", "host"))
        return f"{name} -> {self._task.delegate_to}" if self._task.delegate_to else name

    def _lost(self, job: Mapping[str, Any], host: str, error: Exception) -> str:
        return (
            f"The connection to {host} is lost ({error}). The {self.verb} goes on there by itself; see with "
            f"'openmemory-stack status' how it went. Its result will be in {job['results_file']}."
        )

    def _say(self, lines: list[str]) -> None:
        if not self._task.no_log:
            for line in lines:
                display.display(line)

    def _collect(self, job: Mapping[str, Any], variables: dict[str, Any], lines: Lines) -> dict[str, Any]:
        found = self._ask(lambda: self._result(job, variables), job, variables, lines)
        return {name: value for name, value in found.items() if name not in _WRAPPING}

    def _result(self, job: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        asked = {"action": "async_status", "args": {"jid": job["ansible_job_id"]}}
        handler = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.async_status",
            task=Task.load({**asked, "environment": self._task.environment}),
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        found: dict[str, Any] = handler.run(task_vars=variables)
        if not found.get("finished"):  # it is, so this does not come from the host
            raise AnsibleConnectionFailure(str(found.get("msg") or "the host does not answer"))
        handler.cleanup(force=True)
        return found


def _is_wrappers(found: Mapping[str, Any]) -> bool:
    """Whether Ansible's wrapper speaks of itself, as it does where the module ended without a word."""
    return bool(found.get("failed")) and not found.get("data") and "async_wrapper" in str(found.get("msg"))


def _parse(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:  # nothing there yet
        return None
    return found if isinstance(found, dict) else None
