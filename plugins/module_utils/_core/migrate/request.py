# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration is asked to do, checked before anything is touched, and the key that is made for it alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..backup.request import check_project
from ..errors import StackError
from ..operation.places import STATE_DIR, Places, private_directory
from .line import LINE, SETTLE

_OPERATION = re.compile(r"[0-9]{8}t[0-9]{6}-[0-9a-f]{6}")
_PREFIX = "migration-"
_WORD = re.compile(r"[A-Za-z0-9_.:%-]+")


@dataclass
class MigrateRequest:
    """The names are those of the module's options; times are in seconds, bwlimit in KiB per second (0: none).

    operation is what state prepared has returned. address, port, user: how the source reaches the target by SSH;
    host_keys are its public keys, as known_hosts has them without the name. target is its name for people.
    freeze_timeout is for what is sent while all is frozen, wait_timeout for the start on the target.
    """

    project: str
    operation: str
    target: str
    address: str
    host_keys: Sequence[str]
    port: int = 22
    user: str = "root"
    bwlimit: int = 0
    freeze_timeout: float = 120.0
    wait_timeout: float = 300.0
    state_dir: str = STATE_DIR
    passes: int = field(default=10, repr=False)

    def check(self) -> None:
        """Raise StackError for what can be seen to be wrong without looking at a host."""
        check_project(self.project)
        if not _OPERATION.fullmatch(self.operation):
            raise StackError(f"operation is {self.operation!r}; give what state: prepared has returned.")
        for name, value in (("address", self.address), ("user", self.user)):
            if not _WORD.fullmatch(value) or value.startswith("-"):
                raise StackError(f"{name} is {value!r}, which SSH cannot use; correct it.")
        if not self.host_keys:
            raise StackError("host_keys is empty; give what stack_migrate_target has returned.")
        for name, seconds in (("freeze_timeout", self.freeze_timeout), ("wait_timeout", self.wait_timeout)):
            if not 0 < seconds <= 86400:
                raise StackError(f"{name} is {seconds:g}; give seconds between 0 and 86400.")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "host_keys": list(self.host_keys)}


class Key:
    """The key of one migration, in a directory of its own under the stack's state."""

    def __init__(self, places: Places, operation: str):
        self.directory = os.path.join(places.state, f"{_PREFIX}{operation}")
        self._socket = os.path.join(os.path.dirname(places.runtime), f".{operation}.ssh")

    @property
    def _file(self) -> str:
        return os.path.join(self.directory, "id_ed25519")

    @property
    def exists(self) -> bool:
        return os.path.exists(self._file)

    def make(self) -> str:
        """Make it, and return its public half; raises StackError where ssh-keygen cannot."""
        private_directory(self.directory)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "openmemory-stack", "-f", self._file]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise StackError("There is no ssh-keygen on the source; install OpenSSH's client.") from error
        if done.returncode:
            raise StackError(f"The key of the migration cannot be made: {done.stderr.strip() or done.stdout.strip()}.")
        return self.public

    @property
    def public(self) -> str:
        with open(f"{self._file}.pub", encoding="ascii") as file:
            return " ".join(file.read().split()[:2])

    def know(self, host_keys: Sequence[str]) -> None:
        """The target is the host with these keys and no other."""
        with open(os.path.join(self.directory, "known_hosts"), "w", encoding="ascii") as file:
            file.write("".join(f"target {key}\n" for key in host_keys))

    def shell(self, request: MigrateRequest, *, shared: bool = True) -> list[str]:
        """SSH to the target, over the connection of the line if it is shared; the command is to be appended."""
        options = {
            "BatchMode": "yes",
            "Compression": "no",
            "ConnectTimeout": "10",
            "ControlMaster": "no",
            "ControlPath": self._socket if shared else "none",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": "target",
            "HostName": request.address.replace("%", "%%"),  # of a zone, as in fe80::1%eth0
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveCountMax": "3",
            "ServerAliveInterval": "1",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": os.path.join(self.directory, "known_hosts"),
        }
        if shared:  # without that connection there is none: a new one would take its time while all is frozen
            options["ProxyCommand"] = "false"
        given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-i", self._file, "-p", str(request.port), "-l", request.user, *given]

    def line(self, request: MigrateRequest) -> list[str]:
        """The command whose standard streams are the line; the transfers share its connection."""
        first, *rest = self.shell(request)
        return [first, "-o", "ControlMaster=yes", "-o", "ProxyCommand=none", *rest, "target", LINE]

    def question(self, request: MigrateRequest) -> list[str]:
        return [*self.shell(request, shared=False), "target", SETTLE]


def forget_keys(places: Places, check_mode: bool = False) -> list[str]:
    """Remove the keys of all migrations; their operations."""
    gone = []
    for name in sorted(os.listdir(places.state)) if os.path.isdir(places.state) else ():
        operation = name[len(_PREFIX) :]
        if name.startswith(_PREFIX) and _OPERATION.fullmatch(operation):
            if not check_mode:
                shutil.rmtree(os.path.join(places.state, name), ignore_errors=True)
            gone.append(operation)
    return gone
