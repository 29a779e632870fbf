# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that are not there: answers what a healthy host answers, so that what is left is the controller's own work.

What a module is given is checked by the module's own argument spec, and what is not known is refused: a wrong argument,
another module, another command, a file to transfer. Each call is a line in the log: host, what was run, bytes sent.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.common.arg_spec import ModuleArgumentSpecValidator
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: faked
short_description: Hosts that are not there
description:
  - Answers from the file that E(FAKED_ANSWERS) names, and writes each call to the file that E(FAKED_LOG) names.
  - With E(FAKED_DELAY) each answer takes so many seconds, as a host does.
extends_documentation_fragment: [connection_pipelining]
"""

# As Ansible's wrapper of a module ends.
MODULE = re.compile(rb"\nansible_module='([\w.]+)',\n")
PARAMETERS = re.compile(rb"\nparams=(.+),\nextensions=")


class Connection(ConnectionBase):
    """One host of the fleet."""

    transport = "faked"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        known = json.loads(Path(os.environ["FAKED_ANSWERS"]).read_text())
        time.sleep(float(os.environ.get("FAKED_DELAY", "0")))
        if in_data:
            name, answer = answer_of_module(in_data, known)
            self._note(name, len(cmd) + len(in_data))
            return int(bool(answer.get("failed"))), json.dumps(answer).encode(), b""
        typed = shlex.split(cmd)[-1]  # of: /bin/sh -c TEXT
        for command in known["commands"]:
            if command["has"] in typed:
                self._note(command["name"], len(cmd))
                return 0, command["says"].encode(), b""
        raise AnsibleConnectionFailure(f"The faked host knows no command {cmd[:200]!r}.")

    def _note(self, name: str, size: int) -> None:
        with open(os.environ["FAKED_LOG"], "a") as log:  # a short line, so that those of other forks do not mix with it
            log.write(f"{self._play_context.remote_addr}\t{name}\t{size}\n")

    def put_file(self, in_path: str, out_path: str) -> None:
        raise AnsibleConnectionFailure(f"The faked host takes no file, and {in_path} was to go to {out_path}.")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        raise AnsibleConnectionFailure(f"The faked host has no file {in_path}.")

    def close(self) -> None:
        self._connected = False


def answer_of_module(payload: bytes, known: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(name, result) of the module that was sent: the known result, or what is wrong with its arguments."""
    name, parameters = MODULE.search(payload), PARAMETERS.search(payload)
    if not name or not parameters:
        raise AnsibleConnectionFailure("The faked host was sent something that is no module.")
    module = name[1].decode()
    if module not in known["answers"]:
        raise AnsibleConnectionFailure(f"The faked host knows no module {module}.")
    given = json.loads(ast.literal_eval(parameters[1].decode()))["ANSIBLE_MODULE_ARGS"]
    own = {key: value for key, value in given.items() if not key.startswith("_ansible_")}
    checked = ModuleArgumentSpecValidator(**known["specs"][module]).validate(own)
    if checked.error_messages:
        return module, {"failed": True, "changed": False, "msg": "; ".join(checked.error_messages)}
    return module, known["answers"][module]
