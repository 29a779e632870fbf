# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file that holds the repository's password."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

from ..errors import StackError

_BYTES = 32


def ensure_password(path: str, generate: bool = True) -> bool:
    """Whether a password file (mode 0600, in a directory made with 0700) had to be generated at the absolute path.

    One that exists is never changed; StackError where everybody can read it, where it is empty, or where there is none
    and none shall be generated.
    """
    if not os.path.isabs(path):
        raise StackError(f"password_file {path} is no absolute path: give the whole path.")
    try:
        about = os.stat(path)
    except FileNotFoundError:
        if not generate:
            raise StackError(
                f"password_file {path} is not there: put the repository's password into it (mode 0600), or have one "
                f"generated."
            ) from None
        _write(path)
        return True
    except OSError as error:
        raise StackError(f"password_file {path} cannot be read ({error.strerror}).") from error
    if about.st_mode & 0o007:
        raise StackError(
            f"password_file {path} can be read by everybody on this host (mode {about.st_mode & 0o7777:04o}): set its "
            "mode to 0600."
        )
    if about.st_size == 0:
        raise StackError(f"password_file {path} is empty: put the repository's password into it, as one line.")
    return False


def _write(path: str) -> None:
    draft = f"{path}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):  # left by a run that was killed
            os.unlink(draft)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a repository whose password is lost is lost
        os.link(draft, path)  # never over a file that appeared meanwhile
        os.unlink(draft)
    except OSError as error:
        raise StackError(f"password_file {path} cannot be written ({error.strerror}).") from error
