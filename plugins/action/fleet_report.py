# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page and the JSON file of a fleet, written on the controller."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_findings import Limits
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_model import fleet_model, outline
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_page import digest, fleet_page, verdict

PAGE, DATA = "index.html", "report.json"
LIMITS = ("max_age_hours", "drill_max_age_days", "min_free_percent", "full_in_days")


class ActionModule(ActionBase):
    """Found by Ansible through its name. What it takes is documented in the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        hosts = hosts_of(self._task.args)
        spec: dict[str, Any] = {
            name: {"type": "path", "required": True} for name in ("directory", "template", "stylesheet")
        }
        _validation, asked = self.validate_argument_spec(
            {**spec, **options(), "mode": {"type": "str", "default": "0640"}}
        )
        mode = file_mode(asked["mode"])
        template, style = self._text("templates", asked["template"]), self._text("files", asked["stylesheet"])
        model = model_of(hosts, asked, look=digest(template + style))
        directory = os.path.expanduser(asked["directory"])
        page, data = os.path.join(directory, PAGE), os.path.join(directory, DATA)
        before = read(data) if os.path.exists(page) else {}
        rendered = fleet_page(model, template, style)
        if not self._task.check_mode:
            write(page, rendered, mode)
            write(data, json.dumps(model, indent=1) + "\n", mode)  # last, as the next run compares with it
        result.update(
            changed=before.get("state") != model["state"],
            page=page,
            json=data,
            summary=model["summary"],
            msg=f"{verdict(model['summary'])}: {page}",
            diff={"before": before_words(before), "after": outline(model), "before_header": data, "after_header": data},
        )
        return result

    def _text(self, kind: str, name: str) -> str:
        path = self._find_needle(kind, name)
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(f"{path} cannot be read ({error}); correct it.") from error


def options() -> dict[str, Any]:
    """Those that fleet_report shares with its info twin."""
    spec: dict[str, Any] = {name: {"type": "float", "default": getattr(Limits, name)} for name in LIMITS}
    return {**spec, "title": {"type": "str", "default": "OpenMemory"}}


def hosts_of(arguments: dict[str, Any]) -> list[Mapping[str, Any]]:
    """Take the hosts out of a task's arguments; the model checks them. AnsibleActionFail where there are none."""
    hosts = arguments.pop("hosts", None)  # large, so it is not copied by validating it
    if not isinstance(hosts, list) or not all(isinstance(each, Mapping) and "host" in each for each in hosts):
        raise AnsibleActionFail("hosts is no list of tables with host and result; give what stack_info returned.")
    return hosts


def model_of(hosts: list[Mapping[str, Any]], asked: Mapping[str, Any], look: str = "") -> dict[str, Any]:
    """The model of now, by validated options."""
    limits = Limits(**{name: asked[name] for name in LIMITS})
    return fleet_model(hosts, datetime.now(timezone.utc), asked["title"], limits, look)


def file_mode(text: str) -> int:
    """0640 as a number; raises AnsibleActionFail for what is none."""
    try:
        found = int(text, 8)
    except ValueError:
        found = -1
    if not 0 <= found <= 0o777:
        raise AnsibleActionFail(f"mode is {text!r}; give one such as '0640', in quotes.")
    return found


def read(path: str) -> dict[str, Any]:
    """The model that was written last; empty where there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def before_words(model: Mapping[str, Any]) -> str:
    """The outline of the last report; empty where it is of another version, or is none."""
    try:
        return str(outline(model))
    except (LookupError, TypeError, AttributeError):
        return ""


def write(path: str, content: str, mode: int) -> None:
    """All of it or nothing, whatever happens meanwhile; raises AnsibleActionFail where it cannot be."""
    directory = os.path.dirname(path)
    temporary = None
    try:
        os.makedirs(directory, mode=0o750, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise AnsibleActionFail(f"{path} cannot be written ({error.strerror}); give another directory.") from error
