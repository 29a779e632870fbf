# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the restic command: no secret on its command line, nothing left running when we die, its failures as one
sentence.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ..errors import StackError
from ..filesystem import free_and_total
from ..operation.process import dies_with_us
from .failures import DamagedError, Failure, error_of, is_locked
from .sftp import KEY_FILE, KNOWN_HOSTS, ssh_command
from .watching import RETRY, Listener, Ticker, end, written_by

OLDEST = (0, 14)
EXIT_INCOMPLETE = 3  # restic backup: a snapshot was made, but some file could not be read
_IN_CACHE = re.compile(r"/[0-9a-f]{64}/(?:data|index|snapshots)\b")
_FULL_BELOW = 64 << 20  # bytes free; restic writes packs of 16 MiB, several at once
_SECRET_IN_URL = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:(?!\d*(?:/|$))(\S*)@")  # also one with / in it; a port is none
_REST_LOGIN_SINCE = (0, 18)  # takes RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD; 0.14 does not


@dataclass
class Output:
    """What a restic command said: its exit code, the lines of both streams, and the JSON messages among them.

    written: bytes that the process wrote, to its back end and otherwise. gave_up: we ended it, as it waited in vain.
    """

    code: int
    lines: list[str]
    errors: list[str] = field(default_factory=list)
    written: int = 0
    gave_up: bool = False

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def json(self) -> Any:
        """The one JSON document that the command printed; StackError where it is none."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise StackError(f"restic answered with something that is no JSON: {self.text[:200]!r}.") from error

    def messages(self) -> Iterator[dict[str, Any]]:
        """The JSON lines of standard output, then those of standard error (there restic writes the errors)."""
        for line in [*self.lines, *self.errors]:
            message = as_message(line)
            if message is not None:
                yield message


def as_message(line: str) -> dict[str, Any] | None:
    """A JSON line of restic, or None for plain text."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class Restic:
    """The restic command with one repository.

    repository: as restic writes it (a path, sftp:, rest:, s3: …); StackError where a password is in it. password_file:
    path. environment: credentials of the back end (AWS_…, RESTIC_REST_…, SFTP_KEY_FILE and SFTP_KNOWN_HOSTS_FILE),
    never shown and masked in every message.
    cache_dir: restic's cache (None: its default). command: name or path of the program. limit_*: KiB/s, 0 for none.
    lock_wait_s: how long to wait for a living process that holds the repository. patience_s: how long for a back end
    that does not answer; restic itself tries for 15 minutes. source: the repository that `copy` reads from.
    """

    def __init__(
        self,
        repository: str,
        password_file: str,
        environment: Mapping[str, str] | None = None,
        cache_dir: str | None = None,
        *,
        command: str = "restic",
        limit_upload: int = 0,
        limit_download: int = 0,
        lock_wait_s: float = 0.0,
        patience_s: float = 30.0,
        source: Restic | None = None,
    ):
        refuse_password(repository)
        self.repository = repository
        self.password_file = password_file
        self.environment = dict(environment or {})
        self.cache_dir = cache_dir
        self.command = command
        self.limit_upload = limit_upload
        self.limit_download = limit_download
        self.lock_wait_s = lock_wait_s
        self.patience_s = patience_s
        self.source = source
        self._version: tuple[int, ...] | None = None

    @property
    def shown(self) -> str:
        """The repository for people: without the password that its URL may carry."""
        return mask(self.repository)

    @property
    def local_path(self) -> str | None:
        """The directory of a repository on this host, None for a remote one."""
        return directory_of(self.repository)

    def version(self) -> tuple[int, ...]:
        """(0, 18, 0), asked once; StackError where restic is missing or too old."""
        if self._version is None:
            if shutil.which(self.command) is None:
                raise StackError(
                    f"The command {self.command} is not on this host: install the package restic (0.14 or newer)."
                )
            said = subprocess.run(
                [self.command, "version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            ).stdout
            match = re.match(r"restic (\d+)\.(\d+)(?:\.(\d+))?", said)
            if not match:
                raise StackError(
                    f"{self.command} version answered {said[:80]!r}: is this restic? Install the package restic."
                )
            found = tuple(int(part or 0) for part in match.groups())
            if found < OLDEST:
                raise StackError(
                    f"restic {'.'.join(map(str, found))} is too old: 0.14 or newer is needed; install a newer "
                    f"package restic."
                )
            self._version = found
        return self._version

    def arguments(self, *arguments: str) -> list[str]:
        """The whole command line. Holds no secret: repository and password file are in the environment."""
        limits = []
        if self.limit_upload:
            limits += ["--limit-upload", str(self.limit_upload)]
        if self.limit_download:
            limits += ["--limit-download", str(self.limit_download)]
        options = []
        for one in (self, self.source):
            command = ssh_command(one.repository, one.environment) if one else None
            if command:
                options = ["-o", f"sftp.command={command}"]
        return [self.command, *arguments[:1], *limits, *options, *arguments[1:]]

    def environ(self) -> dict[str, str]:
        """The environment of the command: ours without any other RESTIC_ setting, then what this repository needs."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RESTIC_")}
        own = {
            "LC_ALL": "C",
            "TZ": "UTC",  # restic takes --time as a local one, and local time has an hour that comes twice
            "RESTIC_REPOSITORY": self._with_login(always=self.source is not None),
            "RESTIC_PASSWORD_FILE": self.password_file,
            "RESTIC_PROGRESS_FPS": "2",
        }
        if self.cache_dir:
            own["RESTIC_CACHE_DIR"] = self.cache_dir
        if self.source:
            own["RESTIC_FROM_REPOSITORY"] = self.source._with_login(always=True)
            own["RESTIC_FROM_PASSWORD_FILE"] = self.source.password_file
            kept.update(self.source.environment)
        kept.setdefault("HOME", "/root")  # a systemd unit has none, and restic wants one for its cache
        return {**kept, **self.environment, **own}

    def _with_login(self, always: bool = False) -> str:
        """The repository for restic's own environment, with the user of the REST server where it asks for it there.

        always: also where restic knows the variables, as two servers cannot share them.
        """
        user, password = (self.environment.get(f"RESTIC_REST_{name}") for name in ("USERNAME", "PASSWORD"))
        scheme, _slashes, place = self.repository.partition("://")
        if not (user and password and scheme.startswith("rest:")) or "@" in place.split("/")[0]:
            return self.repository
        if self.version() >= _REST_LOGIN_SINCE and not always:
            return self.repository
        return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{place}"

    def call(
        self,
        *arguments: str,
        doing: str,
        cwd: str | None = None,
        allowed: Sequence[int] = (0,),
        on_line: Callable[[str], None] | None = None,
        on_tick: Callable[[int], None] | None = None,
        on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
        unlock: bool = True,
    ) -> Output:
        """Run restic; StackError with one sentence unless its exit code is allowed.

        doing: for the sentence ("read the snapshots"). on_line: gets each line of standard output, which is then not
        kept. on_tick: gets the process id about once a second. on_start: gets each process of it. unlock: a lock that a
        dead process left is removed and the command is run again; a living one is waited for as long as lock_wait_s
        says.
        """
        self.version()
        self._check_password_file()
        begun = time.monotonic()
        cleaned = not unlock
        while True:
            output = self._run(arguments, cwd, on_line, on_tick, on_start)
            locked = bool(output.code) and is_locked(output.errors)  # check says 1 for that and for damage
            if not output.gave_up and not locked and output.code in allowed:
                return output
            if locked and not cleaned:
                cleaned = True
                self._run(("unlock",), None, None, None)
                continue
            if locked and time.monotonic() - begun < self.lock_wait_s:
                time.sleep(2)
                cleaned = not unlock  # whose lock it is may have died since, and left it
                continue
            if crashed(output) and unlock:
                self._run(("unlock",), None, None, None)  # it left its lock
            error = self.failure(output, doing)
            if isinstance(error, DamagedError):
                self._empty_cache()
            raise error

    def _empty_cache(self) -> None:
        """restic 0.14 keeps what it read of a damaged file, and finds the damage there when the file is whole again.

        Directories stay: another restic may be at work in them.
        """
        if self.cache_dir is None:
            return
        for place, _names, files in os.walk(self.cache_dir):
            for name in files if _IN_CACHE.search(place) else ():
                with suppress(OSError):
                    os.unlink(os.path.join(place, name))

    def failure(self, output: Output, doing: str) -> StackError:
        """The error that says in one sentence why a command of ours failed."""
        texts = []
        # What restic says of being ended is about that, such as a wrong password where it could read no key.
        told = [line for line in output.errors if RETRY.search(line)] if output.gave_up else []
        for line in told[-1:] or output.errors:
            message = as_message(line)
            texts.append(_text_of(message) if message is not None else line)
        if crashed(output) and self._is_full():  # restic 0.14 falls over its own error where the disk is full
            texts = ["no space left on device"]
        texts = [self.hide(text) for text in texts]
        return error_of(
            Failure(doing=doing, where=self.shown, password_file=self.password_file, code=output.code, lines=texts)
        )

    def _is_full(self) -> bool:
        free = free_and_total(self.local_path)[0] if self.local_path else None
        return free is not None and free < _FULL_BELOW

    def hide(self, text: str) -> str:
        """The text without any secret of the environment or of a URL in it."""
        known = [*self.environment.items(), *(self.source.environment.items() if self.source else ())]
        secrets = [value for name, value in known if name not in (KEY_FILE, KNOWN_HOSTS)]
        for secret in (value for value in secrets if len(value) >= 6):
            text = text.replace(secret, "***")
        return mask(text)

    def _check_password_file(self) -> None:
        try:
            mode = os.stat(self.password_file).st_mode
        except OSError as error:
            raise StackError(
                f"password_file {self.password_file} cannot be read ({error.strerror}): name the file that holds the "
                "repository's password, or have one generated."
            ) from error
        if mode & 0o007:
            raise StackError(
                f"password_file {self.password_file} can be read by everybody on this host (mode {mode & 0o7777:04o}): "
                "set its mode to 0600."
            )

    def _run(
        self,
        arguments: Sequence[str],
        cwd: str | None,
        on_line: Callable[[str], None] | None,
        on_tick: Callable[[int], None] | None,
        on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
    ) -> Output:
        with subprocess.Popen(
            self.arguments(*arguments),
            cwd=cwd,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=dies_with_us(),  # or it goes on reading staging that the next run changes
        ) as process:
            listener = Listener(process, self.patience_s, stalls=self.local_path is None)
            listener.start()
            ticker = Ticker(process.pid, on_tick) if on_tick else None
            try:
                if on_start is not None:
                    on_start(process)
                kept = []
                for raw in process.stdout or ():
                    line = raw.decode("utf-8", "surrogateescape").rstrip("\n")
                    if on_line is not None:
                        on_line(line)
                    else:
                        kept.append(line)
                written = written_by(process.pid)  # it has ended, and is still there as we have not waited for it
                code = process.wait()
            except BaseException:
                end(process)
                raise
            finally:
                if ticker:
                    ticker.stop()
            listener.join()
        return Output(code, kept, listener.lines, written, listener.gave_up)


def crashed(output: Output) -> bool:
    """Whether restic fell over instead of saying what is wrong."""
    return any(line.startswith(("panic:", "fatal error:")) for line in output.errors)


def password_in(repository: str) -> str:
    """The password in a repository's URL, "" without one."""
    match = _PASSWORD_IN_URL.search(repository)
    return match.group(1) if match else ""


def directory_of(repository: str) -> str | None:
    """The directory of a repository that is on this host, None for a remote one."""
    place = repository[len("local:") :] if repository.startswith("local:") else repository
    return place if place.startswith("/") else None


def refuse_password(repository: str) -> None:
    """Raise StackError, which does not show it, for a repository with a password in its URL."""
    if password_in(repository):
        raise StackError(
            "repository has a password in its URL, where logs and process lists would show it; take user and password "
            "out of it, and put them into environment: RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD for rest:, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3:; for sftp: use a key."
        )


def mask(text: str) -> str:
    """The text with the user and password of every URL in it replaced."""
    return _SECRET_IN_URL.sub("***@", text)


def _text_of(message: Mapping[str, Any]) -> str:
    """The sentence inside a JSON message of restic (0.14 and 0.18 shape errors differently)."""
    error = message.get("error")
    text = message.get("message") or (error.get("message") if isinstance(error, dict) else error) or ""
    item = message.get("item")
    return f"{item}: {text}" if item else str(text)
