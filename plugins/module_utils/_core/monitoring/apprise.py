# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages to people through the command apprise, which knows e-mail, Slack, Discord, webhooks and a hundred more.

The targets are lines NAME=URL of a file that only root can read; apprise gets the file's name, and the message on its
standard input, so that no process list shows an address or a token.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from ..errors import StackError
from ..operation.process import dies_with_us

COMMAND = "apprise"
KINDS = {"failure": "failure", "recovery": "success", "test": "info"}  # apprise's types of a message
_WITHIN_S = 45.0  # its own limits are 4 s to connect and 4 s to read, for each try
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PREFIX = re.compile(r"^[\d-]+ [\d:,]+ - (?:WARNING|ERROR) - ")


@dataclass(frozen=True)
class Target:
    """Whom to tell. url is a secret: never shown."""

    name: str
    url: str

    def hide(self, text: str) -> str:
        """The text without anything of the URL that may be secret: all but its scheme and its host."""
        parts = {self.url, *re.split(r"[/?&=@:#]+", self.url)}
        known = re.match(r"(\w+)://(?:[^/@]*@)?([^/:?]*)", self.url)
        shown = set(known.groups()) if known else set()
        for part in sorted({*parts, *map(unquote, parts)} - shown, key=len, reverse=True):
            if len(part) > 3:
                text = text.replace(part, "***")
        return text


def read_targets(path: str) -> list[Target]:
    """The targets of a file. Raises StackError where others can read it, or for a line that is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            lines = stream.read().splitlines()
    except (OSError, ValueError) as error:
        raise StackError(f"{path} cannot be read ({type(error).__name__}); use become: true or correct it.") from error
    if mode & 0o077:
        raise StackError(f"{path} holds credentials and others can read it (mode {mode:04o}); chmod 600 {path}.")
    found: list[Target] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _sign, url = (part.strip() for part in line.partition("="))
        if not _NAME.fullmatch(name) or "://" not in url:  # the line itself may be secret
            raise StackError(f"Line {number} of {path} is no NAME=URL, such as ops=mailtos://…; correct it.")
        if any(name == other.name for other in found):
            raise StackError(f"Line {number} of {path} names {name} a second time; give each target a name of its own.")
        found.append(Target(name, url))
    return found


def send(path: str, target: Target, kind: str, title: str, body: str) -> str:
    """Send one message to one target of the file. "" where it was taken, else why not, in one sentence."""
    if shutil.which(COMMAND) is None:
        return f"{target.name} was not told: the command {COMMAND} is not on this host; install the package {COMMAND}."
    command = [COMMAND, "-v", f"--config={path}", f"--tag={target.name}", f"--title={title}"]
    command += [f"--notification-type={KINDS[kind]}", "--input-format=text"]
    try:
        done = subprocess.run(
            command,
            input=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_WITHIN_S,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            preexec_fn=dies_with_us(signal.SIGKILL),
        )
    except subprocess.TimeoutExpired:
        return f"{target.name} was not told: no answer within {_WITHIN_S:g} seconds."
    except OSError as error:
        return f"{target.name} was not told: {COMMAND} cannot be started ({error.strerror})."
    if done.returncode == 0:
        return ""
    return f"{target.name} was not told: {target.hide(_reason(done.stdout.splitlines()))}"


def _reason(lines: Sequence[str]) -> str:
    """What apprise says of a failure, without its time; of several lines the first."""
    said = [line for line in lines if _PREFIX.match(line)]
    return _PREFIX.sub("", said[0]) if said else "apprise did not say why; is the URL of a kind that it knows?"
