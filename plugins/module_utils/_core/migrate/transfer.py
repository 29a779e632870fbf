# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One batch of a directory sent by rsync, over the SSH connection that is there already."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence

from ..errors import StackError
from ..operation.process import dies_with_us
from .ledger import Batch

_VANISHED = 24  # rsync's exit code: "Partial transfer due to vanished source files"
_PARTIAL = 23
_DONE = re.compile(rb"([\d,]+)\s+\d+%")
# -I: what is in the batch is sent whatever its times say; --force: a directory makes way for what is none
_OPTIONS = ("-aHAXSI", "--numeric-ids", "--files-from=-", "--from0", "--delete-missing-args", "--force")
_SHOWN = ("--info=progress2", "--no-inc-recursive", "--outbuf=N")


def send(
    batch: Batch,
    source: str,
    module: str,
    shell: Sequence[str],
    *,
    frozen: bool,
    bwlimit: int = 0,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> bool:
    """Send a batch of source to the rsync daemon's module. True if all of it arrived, but for what has vanished.

    shell is the command that rsync starts for a connection. bwlimit is in KiB per second, 0 for none. Raises StackError
    with rsync's own reason, and where frozen also for what could not be read.
    """
    command = ["rsync", *_OPTIONS, *_SHOWN, f"--rsh={shlex.join(shell)}"]
    if bwlimit:
        command.append(f"--bwlimit={bwlimit}")
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as errors:
        names.write(b"\0".join(b"./" + os.fsencode(path) for path in batch.paths))
        names.seek(0)
        try:
            with subprocess.Popen(
                [*command, f"{source}/", f"target::{module}/"],
                stdin=names,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "LC_ALL": "C"},
                preexec_fn=dies_with_us(),
            ) as running:
                _follow(running, on_bytes)
        except FileNotFoundError as error:
            raise StackError("There is no rsync on this host; install it.") from error
        code = running.returncode
        if code == 0 or (code == _VANISHED and not frozen):
            return True
        if code == _PARTIAL and not frozen:  # what could not be read may be gone again, or is read by the next pass
            return False
        errors.seek(0)
        raise StackError(f"{source} could not be sent: {_reason(errors.read().decode('utf-8', 'replace'), code)}.")


def _follow(running: subprocess.Popen[bytes], on_bytes: Callable[[int], None]) -> None:
    """Tell how many bytes have been sent, from the lines that rsync writes over themselves."""
    told = 0
    if running.stdout is None:
        return
    while chunk := os.read(running.stdout.fileno(), 65536):
        found = _DONE.findall(chunk)
        if found:
            done = int(found[-1].replace(b",", b""))
            on_bytes(max(0, done - told))
            told = max(told, done)


def _reason(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("rsync error:")] or lines
    return telling[0].rstrip(".") if telling else f"rsync ended with code {code}"
