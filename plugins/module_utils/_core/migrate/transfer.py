# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One batch of a directory sent by rsync, over the SSH connection that is there already."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import StackError
from ..operation.process import dies_with_us
from .ledger import Batch

_VANISHED = 24  # rsync's exit code: "Partial transfer due to vanished source files"
_PARTIAL = 23
_LAYER = ["--filter=-x system.*", "--filter=-x trusted.overlay.*"]  # the first is rsync's own, which a rule replaces
_ENDED = -signal.SIGKILL
_PROTOCOL = 2
# rsync 3.5.0 (Debian 12's since its security update), once in some 900 passes over files that become directories
_LOST_COUNT = "Invalid packet at end of run"
_GONE = "file has vanished:"
STALLED_S = 120.0
_LOOK_S = 0.5
_DONE = re.compile(rb"([\d,]+)\s+\d+%")
# --modify-window: by default a time that differs within a second is taken for the same, and left as it is
# -I: what is in the batch is sent whatever its times say; --force: a directory makes way for what is none
_OPTIONS = ("-aHAXSI", "--numeric-ids", "--files-from=-", "--from0", "--delete-missing-args", "--force")
_EXACT = "--modify-window=-1"
_SHOWN = ("--info=progress2", "--no-inc-recursive", "--outbuf=N")


def send(
    batch: Batch,
    source: str,
    module: str,
    shell: Sequence[str],
    *,
    frozen: bool,
    layer: bool = False,
    bwlimit: int = 0,
    deadline: float = float("inf"),
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> bool:
    """Send a batch of source to the rsync daemon's module. True if all of it arrived, but for what has vanished.

    shell is the command that rsync starts for a connection. layer: source is a part of a container's own layer, where
    the storage driver has attributes of its own. bwlimit is in KiB per second, 0 for none; deadline is a
    time.monotonic() at which rsync is ended. Raises StackError
    with rsync's own reason, and where frozen also for what could not be read.
    """
    command = ["rsync", *_OPTIONS, _EXACT, *_SHOWN, f"--rsh={shlex.join(shell)}", *(_LAYER if layer else [])]
    if bwlimit:
        command.append(f"--bwlimit={bwlimit}")
    names = b"\0".join(b"./" + os.fsencode(path) for path in batch.paths)
    code, errors = _run([*command, f"{source}/", f"target::{module}/"], names, on_bytes, deadline)
    if code == _PARTIAL and frozen:  # seen where a file there is a directory here: rsync asks for its ACL
        code, errors = _run([*command, f"{source}/", f"target::{module}/"], names, on_bytes, deadline)
    if code in (0, _VANISHED):  # also said of what is on the list because it is gone; sweep() takes no such word
        return True
    confused = code == _PROTOCOL and _LOST_COUNT in errors
    if (code in (_PARTIAL, _ENDED) or confused) and not frozen:  # what could not be read is gone, or is read next time
        return False
    raise StackError(f"{source} could not be sent: {_reason(errors, code)}.")


def sweep(
    source: str,
    module: str,
    shell: Sequence[str],
    *,
    excluded: Iterable[str] = (),
    layer: bool = False,
    deadline: float = float("inf"),
) -> None:
    """Make names, kinds, owners and times the same after the last batch, and remove what is there in excess.

    Batches follow what the ledger saw, and a directory that went and came back while rsync looked may have taken others
    with it (seen). This looks at the trees themselves; it reads no file that is there with its size and time. Nothing
    may write to source. Raises StackError.
    """
    command = ["rsync", "-aHAXS", "--numeric-ids", "--delete", "--force", _EXACT, f"--rsh={shlex.join(shell)}"]
    command += [f"--exclude=/{name}" for name in sorted(excluded)] + (_LAYER if layer else [])
    for _attempt in range(2):
        code, errors = _run([*command, *_SHOWN, f"{source}/", f"target::{module}/"], deadline=deadline)
        if code != _PARTIAL:
            break
    if code:
        raise StackError(f"{source} could not be sent: {_reason(errors, code)}.")


def _run(
    command: Sequence[str],
    names: bytes = b"",
    on_bytes: Callable[[int], None] = lambda _count: None,
    deadline: float = float("inf"),
) -> tuple[int, str]:
    """rsync's exit code and what it says of errors."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(names)
        given.seek(0)
        try:
            with subprocess.Popen(
                command,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "LC_ALL": "C"},
                preexec_fn=dies_with_us(),
            ) as running:
                _follow(running, on_bytes, deadline)
        except FileNotFoundError as error:
            raise StackError("There is no rsync on this host; install it.") from error
        errors.seek(0)
        return running.returncode, errors.read().decode("utf-8", "replace")


def _follow(running: subprocess.Popen[bytes], on_bytes: Callable[[int], None], deadline: float) -> None:
    """Tell how many bytes have been sent, from the lines that rsync writes over themselves.

    rsync is ended where it says nothing for STALLED_S: it waits for ever to open what was a file when it looked and is
    a pipe by now (seen).
    """
    told, heard = 0, time.monotonic()
    while running.stdout is not None:
        if select.select([running.stdout], [], [], _LOOK_S)[0]:
            chunk = os.read(running.stdout.fileno(), 65536)
            if not chunk:
                return
            heard = time.monotonic()
            found = _DONE.findall(chunk)
            if found:
                done = int(found[-1].replace(b",", b""))
                on_bytes(max(0, done - told))
                told = max(told, done)
        if time.monotonic() > min(deadline, heard + STALLED_S):
            running.kill()
            return


def _reason(text: str, code: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("rsync error:", _GONE))] or lines
    return telling[0].rstrip(".") if telling else f"rsync ended with code {code}"
