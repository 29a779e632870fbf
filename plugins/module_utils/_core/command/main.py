# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command openmemory-stack: the core without Ansible, for the systemd timer and for people."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from ..backup.description import TOOL_VERSION
from ..errors import BusyError, StackError
from ..operation.progress import Progress
from ..repository.failures import LockedError
from .options import build_parser
from .settings import Settings, UsageError, load
from .verbs import DONE, FAILED, VERBS, Outcome
from .wording import for_command_line, phase_now, phases_done

USAGE, BUSY = 2, 4
_EVERY_S = 10.0
_TRY_EVERY_S = 5.0
_CLEAR = "\r\033[K"


class Interrupted(BaseException):
    """A signal asked us to end; what is frozen or stopped goes on before we do."""

    def __init__(self, number: int):
        super().__init__(number)
        self.code = 128 + number


class Teller:
    """Says on a stream how far an operation is: one line that changes on a terminal, else a line now and then."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._told = 0
        self._said_at = float("-inf")
        self._phase: str | None = None

    def __call__(self, progress: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # a terminal that is gone must not end a restore
            self._say(progress)
            self._stream.flush()

    def _say(self, progress: dict[str, Any]) -> None:
        if self._is_terminal:
            self._stream.write(_CLEAR + (phase_now(progress) if progress["phase"] else ""))
            return
        over = progress["phases_done"][self._told :]
        if over:
            self._stream.write(f"{phases_done(over)}\n")
        self._told = len(progress["phases_done"])
        now = time.monotonic()
        if progress["phase"] == self._phase and progress["phase"] and now - self._said_at >= _EVERY_S:
            self._stream.write(f"{phase_now(progress)}\n")
            self._said_at = now
        elif progress["phase"] != self._phase:
            self._phase, self._said_at = progress["phase"], now


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code. Nothing is raised but SystemExit by the parser."""
    options = vars(build_parser(TOOL_VERSION).parse_args(arguments))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a lost terminal does not end a restore halfway
    try:
        outcome = _run(options)
        result = outcome.result
        if outcome.failure:
            result = {**result, "failed": True, "msg": for_command_line(outcome.failure), "exit_code": outcome.code}
        code = _print(result, _typed(outcome.text), outcome.code, options["json"])
        return _fail(outcome.failure, code, False) if outcome.failure else code
    except Interrupted as error:
        return _fail("Interrupted; nothing is left frozen or stopped.", error.code, options["json"])
    except UsageError as error:
        return _fail(str(error), USAGE, options["json"])
    except (BusyError, LockedError) as error:
        return _fail(str(error), BUSY, options["json"])
    except StackError as error:
        return _fail(str(error), FAILED, options["json"])
    except Exception as error:
        return _fail(_unexpected(error), FAILED, options["json"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(options: dict[str, Any]) -> Outcome:
    settings = load(options["config_dir"], options)
    until = time.monotonic() + 60 * options.get("wait", 0)
    while True:
        try:
            return VERBS[options["verb"]](options, settings, _progress(options, settings))
        except (BusyError, LockedError):
            if time.monotonic() >= until:
                raise
        time.sleep(_TRY_EVERY_S)


def _progress(options: dict[str, Any], settings: Settings) -> Progress:
    wanted = options["progress"]
    tell = sys.stderr.isatty() if wanted is None else wanted
    return Progress(settings.places(create=False).progress, Teller(sys.stderr) if tell else None)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):  # cleaning up is short, and must not be interrupted
        signal.signal(other, signal.SIG_IGN)
    with suppress(OSError):
        os.write(2, b"\nStopping; what is frozen or stopped goes on first.\n")
    raise Interrupted(number)


def _typed(text: str) -> str:
    """Warnings name options as a playbook has them, since the summary of a role shows the same text."""
    lines = text.split("\n")
    return "\n".join(for_command_line(line) if line.startswith("Warning: ") else line for line in lines)


def _print(result: dict[str, Any], text: str, code: int, as_json: bool) -> int:
    try:
        if sys.stderr.isatty():
            sys.stderr.write(_CLEAR)
        sys.stdout.write((json.dumps(result, indent=1, sort_keys=True) if as_json else text) + "\n")
        sys.stdout.flush()
    except OSError:  # whoever read it is gone
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _fail(sentence: str, code: int, as_json: bool) -> int:
    message = for_command_line(sentence)
    with suppress(OSError):
        if sys.stderr.isatty():
            sys.stderr.write(_CLEAR)
        sys.stderr.write(f"openmemory-stack: {message}\n")
        sys.stderr.flush()
    if as_json:
        _print({"failed": True, "msg": message, "exit_code": code}, "", code, True)
    return code if code != DONE else FAILED


def _unexpected(error: Exception) -> str:
    """One sentence on an error that nobody thought of; the place tells whoever it is reported to what happened."""
    if os.environ.get("OPENMEMORY_STACK_DEBUG"):
        traceback.print_exc()
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return f"An error that was not foreseen: {type(error).__name__}: {error} (at {place}); please report it."
