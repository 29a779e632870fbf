# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What restic says when it fails, as one clear sentence for the user. The patterns were seen with restic 0.14 and
0.18.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import StackError


class LockedError(StackError):
    """A living process holds the repository."""


class NoRepositoryError(StackError):
    """There is no repository where one was said to be."""


class DamagedError(StackError):
    """What restic came upon in the repository is not as it was written, or is gone."""


class PassingError(StackError):
    """A back end that cannot be reached, is overloaded, or broke the connection: trying again may help."""


@dataclass(frozen=True)
class Failure:
    """A restic command that failed: what it was for, the repository as shown, its exit code and its error lines."""

    doing: str
    where: str
    password_file: str
    code: int
    lines: Sequence[str]


_LOCK = re.compile(r"already locked (?P<how>exclusively )?by PID (?P<pid>\d+) on (?P<host>\S+)")
_SINCE = re.compile(r"lock was created at (?P<since>\S+ \S+)")

# Pattern in restic's words -> sentence; the first that matches tells most. {0} is the pattern's first group.
_SENTENCES: tuple[tuple[str, str], ...] = (
    (
        r"wrong password or no key found",
        "The password in password_file {password_file} does not open the repository {where}: give the file that was "
        "used when the repository was made.",
    ),
    (
        r"(?:Resolving password failed|unable to read password|an empty password is not )",
        "password_file {password_file} holds no usable password: put the repository's password into it, as one line.",
    ),
    (
        r"(?:read-only file system)",
        "The repository {where} lies on a read-only file system, so restic could not {doing}: mount it writable, or "
        "give another.",
    ),
    (
        r"(?:Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No \S+ host key is known)",
        "The SSH host key of the back end of the repository {where} is not the one that was pinned, so nothing was "
        "sent: put its new key into known_hosts if the server was set up anew, and find out who answers there if not.",
    ),
    (
        r"(?:RequestTimeTooSkewed|difference between the request time|has expired or is not yet valid)",
        "The back end of the repository {where} does not accept the time ({first}): set the clock of this host "
        "(timedatectl), or look at the server's clock and certificate.",
    ),
    (
        r"(?:ExpiredToken|token has expired|TokenRefreshRequired|credentials? ha(?:ve|s) expired)",
        "The credentials for the back end of the repository {where} have expired ({first}): put new ones into "
        "environment.",
    ),
    (
        r"(?:write|create|mkdir|open|sync|rename) (\S+?): (?:no space left on device|disk quota exceeded)",
        "The disk is full: there was no room to write {0} while trying to {doing}; make room there and run it again. "
        "Nothing that was there before is lost.",
    ),
    (
        r"no space left on device|disk quota exceeded|not enough space|Insufficient Storage|507 "
        r"|XMinioStorageFull|Storage backend has reached|QuotaExceeded|[Qq]uota exceeded",
        "The disk of the repository {where} is full, so restic could not {doing}: make room there and run it again.",
    ),
    (
        r"(dial tcp[^\n]*|no such host|connection refused|Connection refused|i/o timeout"
        r"|nothing moved for \d+ seconds"
        r"|Could not resolve hostname[^\n]*"
        r"|Connection timed out|No route to host|Network is unreachable|connect: [^\n]*"
        r"|unable to start the sftp session[^\n]*)",
        "The back end of the repository {where} cannot be reached ({0}): check its address, the network, and that the "
        "server runs.",
    ),
    (
        r"(Permission denied \([^)]*\)|Access ?Denied|InvalidAccessKeyId|SignatureDoesNotMatch"
        r"|(?i:access key id) you provided[^\n]*|signature we calculated does not match"
        r"|401 Unauthorized|403 Forbidden)",
        "The back end of the repository {where} refuses us ({0}): check the credentials given in environment or in "
        "the URL, and what they allow.",
    ),
    (
        r"(SlowDown|reduce your request rate|\b(?:429|50[0234]) [A-Z][^\n]*|Service ?Unavailable|InternalError"
        r"|[Ii]nternal error|Internal Server Error|Please try again)",
        "The back end of the repository {where} is overloaded or broken ({0}), so restic could not {doing}, although "
        "it was tried again for a while: look at the server; the next run goes on from here.",
    ),
    (
        r"(connection reset by peer|broken pipe|connection lost|server closed idle connection|TLS handshake timeout"
        r"|use of closed network connection|transport connection broken|(?:unexpected )?EOF$)",
        "The connection to the back end of the repository {where} broke again and again ({0}), so restic could not "
        "{doing}: look at the network; the next run goes on from here.",
    ),
    (
        r"(?:config cannot be loaded|config or key \S+ is damaged)",
        "The repository {where} is damaged: its config file cannot be read; put that file back from a copy of the "
        "repository.",
    ),
    (
        # The older restic says the second line of whatever keeps it from reading config, a 503 too.
        r"repository does not exist"
        r"|unable to open config file: [^\n]*(?:no such file|does not exist|not found|\(404\))",
        "There is no repository at {where}: check the address, or make one there (init).",
    ),
    (
        r"(?:unsupported repository version)",
        "The repository {where} is of a version that this restic does not know: install a newer restic.",
    ),
    (
        r"<snapshot/(\w+)>[^\n]*(?:no such file|does not exist)",
        "The repository {where} has no snapshot {0}: list the snapshots there are.",
    ),
    (
        r"(?:no matching ID found for prefix \"(\w*)|no snapshot found)",
        "The repository {where} has no snapshot {0}: list the snapshots there are.",
    ),
    (
        r"(?:ciphertext verification failed|Pack ID does not match|invalid data returned|decrypting blob"
        r"|hash does not match"
        r"|ciphertext too (?:small|short)|unexpected pack id)",
        "The repository {where} is damaged: data in it is not what was written ({first}), so restic could not {doing}; "
        "see which snapshots are whole with check (read_data), and use another copy of the repository where there "
        "is one.",
    ),
    (
        r"(?:data/\S*|index/\S*|snapshots/\S*|keys/\S*)[^\n]*no such file or directory|pack \w+: does not exist"
        r"|not found in index|not found in repository"
        r"|file does not exist|The specified key does not exist",
        "The repository {where} is damaged or vanished meanwhile: a file of it is missing ({first}), so restic "
        "could not {doing}; "
        "check that it is still there and see which snapshots are whole with check.",
    ),
    (
        r"no such file or directory",
        "The repository {where} vanished meanwhile ({first}), so restic could not {doing}: make it available again "
        "and run it again.",
    ),
    (
        r"permission denied",
        "restic may not do that in the repository {where} ({first}): check the owner and modes there.",
    ),
    (
        r"path \"([^\"]*)\" not found in snapshot|cannot dump file: path \"?([^\" ]*)",
        "The snapshot holds no {0}: it is damaged, or no snapshot of ours.",
    ),
)

_PASSES = re.compile(r"cannot be reached \(|is overloaded or broken \(|broke again and again \(")


def is_locked(lines: Sequence[str]) -> bool:
    """Whether the command failed because of another's lock."""
    return any(_LOCK.search(line) for line in lines)


def error_of(failure: Failure) -> StackError:
    """The error to raise, a subclass of StackError where its kind matters to somebody, with one sentence."""
    sentence = explain(failure)
    if is_locked(failure.lines):
        return LockedError(sentence)
    if sentence.startswith(f"The repository {failure.where} is damaged"):
        return DamagedError(sentence)
    if sentence.startswith("There is no repository"):
        return NoRepositoryError(sentence)
    return PassingError(sentence) if _PASSES.search(sentence) else StackError(sentence)


def explain(failure: Failure) -> str:
    """One sentence, with what to do."""
    text = "\n".join(failure.lines)
    lock = _LOCK.search(text)
    if lock:
        since = _SINCE.search(text)
        return (
            f"The repository {failure.where} is locked by the living process {lock['pid']} on the host {lock['host']}"
            f"{f' since {since[1]} UTC' if since else ''}, so restic could not {failure.doing}: wait until it has "
            f"ended, then "
            "run it again."
        )
    for pattern, sentence in _SENTENCES:
        match = re.search(pattern, text)
        if match:
            found = next((group for group in match.groups() if group), "")
            return sentence.format(
                found,
                where=failure.where,
                doing=failure.doing,
                password_file=failure.password_file,
                first=_line_with(text, match.start()),
            ).replace("  ", " ")
    said = next((line.strip() for line in failure.lines if line.startswith("Fatal:")), "") or next(
        (line.strip() for line in reversed(failure.lines) if line.strip()), f"exit code {failure.code}"
    )
    return f"restic could not {failure.doing} (repository {failure.where}): {shorten(said)}."


def _line_with(text: str, position: int) -> str:
    begin = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return shorten(text[begin : len(text) if end < 0 else end])


def shorten(line: str) -> str:
    """A line of restic for the inside of a sentence."""
    line = re.sub(r"^(?:Fatal: )+", "", line.strip()).rstrip(".")
    line = re.sub(r"^\w+\(<[^)]*\) (?:returned error, retrying after \S+|failed): ", "", line)
    return line if len(line) <= 240 else line[:237] + "…"
