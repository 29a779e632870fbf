# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The door of the target: the key that is let in for one migration, and what was agreed with it."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from ..engine import DEFAULT_HOST
from ..errors import StackError
from ..operation.durable_json import read_json, write_json
from ..operation.last import read_last, record_last
from ..operation.places import STATE_DIR, Places
from .arrival_undo import KEY

COMMAND = "/usr/local/bin/openmemory-stack"
_MARK = "openmemory-stack-migration-"
_HOUR_S = 3600
_KEY = re.compile(r"[A-Za-z0-9+/=@.-]+")


@dataclass(frozen=True)
class Expected:
    """What the role has agreed with this host; it is kept in Places.arrival. wait_timeout is in seconds.

    ssh_user is whose authorized_keys has the source's key.
    """

    operation: str
    project: str
    name_map: Mapping[str, str] = field(default_factory=dict)
    wait_timeout: float = 300.0
    ssh_user: str = "root"

    @classmethod
    def load(cls, places: Places, operation: str) -> Expected:
        """Raises StackError where another migration is expected, or none."""
        found = read_json(places.arrival)
        if not isinstance(found, dict) or found.get("operation") != operation:
            raise StackError(f"No migration {operation} is expected on the target; run migrate.yml again.")
        return cls(**found)


def conf(places: Places) -> str:
    """The settings of the rsync daemon that takes the data in."""
    return os.path.join(places.runtime, "arrival.conf")


@dataclass(frozen=True)
class Gate:
    """What the key opens. public_key is as ssh-keygen writes it; docker_host is the engine's address on this host.

    command is openmemory-stack.
    """

    expected: Expected
    public_key: str
    state_dir: str = STATE_DIR
    docker_host: str = DEFAULT_HOST
    command: str = COMMAND

    def open(self, hours: float, check_mode: bool = False) -> bool:
        """Let the key in, for hours, and expect its migration; False where that is so already. Raises StackError.

        A user that is not root has to be allowed to sudo without a password.
        """
        _require_tools(self.command)
        kind, key = _parsed(self.public_key)
        user, project = self.expected.ssh_user, self.expected.project
        path, account = _keys_file(user)
        lines = _read(path)
        places = Places.of(project, self.state_dir, create=not check_mode)
        value = {**vars(self.expected), "name_map": dict(self.expected.name_map)}
        agreed = os.path.exists(places.arrival) and read_json(places.arrival) == value
        if agreed and any(key in one for one in lines):
            return False
        if not check_mode:
            write_json(places.arrival, value)
            line = f"{self.options(time.time() + hours * _HOUR_S)} {kind} {key} {_MARK}{project}"
            _write(path, [*(one for one in lines if not _is_ours(one, project)), line], account)
        return True

    def options(self, until: float) -> str:
        """Those before the key in authorized_keys; until: when it opens nothing any more (seconds since 1970)."""
        gate = [] if self.expected.ssh_user == "root" else ["sudo", "-n"]
        gate += [self.command, "gate", self.expected.operation, "--project", self.expected.project]
        if self.state_dir != STATE_DIR:
            gate += ["--state-dir", self.state_dir]
        gate += ["--docker-host", self.docker_host, "--quiet", "--asked"]
        command = f'{shlex.join(gate)} "$SSH_ORIGINAL_COMMAND"'.replace('"', r"\"")  # all that sshd knows as quoting
        expiry = time.strftime("%Y%m%d%H%M", time.localtime(until))
        return f'restrict,expiry-time="{expiry}",command="{command}"'


def close_door(places: Places, project: str, check_mode: bool = False) -> bool:
    """No migration is expected any more, and its key opens nothing; whether one was."""
    found = read_json(places.arrival)
    user = str(found.get("ssh_user") or "root") if isinstance(found, dict) else "root"
    revoked = _revoke(user, project, check_mode)
    if not check_mode:
        for path in (places.arrival, conf(places)):
            with suppress(FileNotFoundError):
                os.unlink(path)
    return revoked or found is not None


def note_accepted(places: Places, operation: str, check_mode: bool = False) -> bool:
    """Keep that a stack was taken over through a repository; False where that is known."""
    value = {"operation": operation, "accepted": True}
    if read_last(places).get(KEY) == value:
        return False
    if not check_mode:
        record_last(places, KEY, value)
    return True


def host_keys() -> list[str]:
    """This host's public keys, as known_hosts has them without the name."""
    found = []
    for name in sorted(os.listdir("/etc/ssh")) if os.path.isdir("/etc/ssh") else ():
        if name.startswith("ssh_host_") and name.endswith("_key.pub"):
            with open(os.path.join("/etc/ssh", name), encoding="ascii") as file:
                found.append(" ".join(file.read().split()[:2]))
    if not found:
        raise StackError("There are no SSH host keys in /etc/ssh on the target; is its SSH server set up?")
    return found


def _revoke(user: str, project: str, check_mode: bool) -> bool:
    """Take out the keys of migrations of a stack; whether there was one."""
    path, account = _keys_file(user)
    lines = _read(path)
    left = [one for one in lines if not _is_ours(one, project)]
    if len(left) == len(lines):
        return False
    if not check_mode:
        _write(path, left, account)
    return True


def _parsed(public_key: str) -> tuple[str, str]:
    parts = public_key.split()
    if len(parts) < 2 or not _KEY.fullmatch(parts[0]) or not _KEY.fullmatch(parts[1]):
        raise StackError(f"public_key is {public_key[:40]!r}, which is none; give what stack_migrate has returned.")
    return parts[0], parts[1]


def _require_tools(command: str) -> None:
    """Raise StackError for what the target needs and does not have."""
    if not os.path.isdir("/run/systemd/system") or not shutil.which("systemd-run"):
        raise StackError("The target does not run systemd, which ends its part when that dies; use another host.")
    if not shutil.which("rsync"):
        raise StackError("There is no rsync on the target; install it.")
    if not os.access(command, os.X_OK):
        raise StackError(f"There is no {command} on the target; migrate.yml brings it, run that.")


def _is_ours(line: str, project: str) -> bool:
    return line.rstrip().endswith(f" {_MARK}{project}")


def _keys_file(user: str) -> tuple[str, pwd.struct_passwd]:
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise StackError(f"ssh_user is {user}, and there is no such user on the target; correct it.") from error
    return os.path.join(account.pw_dir, ".ssh", "authorized_keys"), account


def _read(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise StackError(f"{path} on the target cannot be read ({error}).") from error


def _write(path: str, lines: list[str], account: pwd.struct_passwd) -> None:
    """Replace the file, with the owner and mode that it has."""
    directory = os.path.dirname(path)
    try:
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
            os.chown(directory, account.pw_uid, account.pw_gid)
        mode, uid, gid = 0o600, account.pw_uid, account.pw_gid
        if os.path.exists(path):
            about = os.stat(path)
            mode, uid, gid = stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid
        real = os.path.realpath(path)
        temporary = f"{real}.openmemory-stack"
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # its owner may have put a link there
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), mode)
        os.replace(temporary, real)
    except OSError as error:
        raise StackError(f"{path} on the target cannot be written ({error.strerror}).") from error
