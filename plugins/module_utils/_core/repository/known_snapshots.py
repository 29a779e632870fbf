# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of a local repository's snapshots without asking restic, whose key alone costs half a second.

A snapshot is a file that is named by the SHA-256 of what is in it, so what restic once said of it stays true as long
as that file is there and whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .restic import Restic
from .snapshot import ABOUT

_FORMAT = 2
_MOST = 10_000  # files that are read to see whether they are whole


class KnownSnapshots:
    """What restic has said of the snapshots of one repository, and of those that this host has added since; kept in
    restic's cache directory of this host.
    """

    def __init__(self, restic: Restic):
        self._repository = restic.local_path
        self._cache_dir = restic.cache_dir

    def all(self, exact: bool = False) -> list[dict[str, Any]] | None:
        """Each snapshot as restic told it, or None where it has to be asked: one is new or damaged, or none is kept.

        exact: None also where a time is only known to be about right, see add().
        """
        path = self._path()
        if path is None or self._repository is None:
            return None
        try:
            kept = _read(path)
            names = self._names()
            if len(names) > _MOST:
                return None
            found = [dict(kept[name]) for name in names]
            if exact and any(ABOUT in one for one in found):
                return None
            return found if all(map(self._is_whole, names)) else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def keep(self, told: Sequence[Mapping[str, Any]]) -> None:
        """Remember what restic said of all snapshots of the repository; what cannot be written is asked for again."""
        path = self._path()
        if path is not None:
            with suppress(OSError, LookupError):
                _write(path, {str(one["id"]): one for one in told})

    def add(self, made: Mapping[str, Any]) -> None:
        """Remember one snapshot that this host has just made, as restic would tell it: id, time, tags, hostname, paths.

        restic 0.14 does not tell the time that it gave it: that here lies within the same call, so no order is wrong.
        """
        path = self._path()
        if path is None:
            return
        kept: dict[str, Any] = {}
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            kept = _read(path)
        with suppress(OSError, LookupError):
            there = {name: kept[name] for name in self._names() if name in kept}
            _write(path, {**there, str(made["id"]): {**made, ABOUT: True}})

    def _names(self) -> list[str]:
        return os.listdir(os.path.join(str(self._repository), "snapshots"))

    def _path(self) -> str | None:
        return known_file(self._repository, self._cache_dir, "snapshots")

    def _is_whole(self, name: str) -> bool:
        return self._repository is not None and _digest(os.path.join(self._repository, "snapshots", name)) == name


def known_file(repository: str | None, cache_dir: str | None, kind: str) -> str | None:
    """Where to keep what is known of a local repository; None without one, or without a cache directory.

    Named by the repository's own configuration, which differs in every one, also at the same place.
    """
    if repository is None or cache_dir is None:
        return None
    with suppress(OSError):
        return os.path.join(cache_dir, kind, f"{_digest(os.path.join(repository, 'config'))}.json")
    return None


def _read(path: str) -> dict[str, Any]:
    """{id: snapshot}; raises ValueError and the like for what is none of ours."""
    with open(path, encoding="utf-8") as file:
        kept = json.load(file)
    if kept["format"] != _FORMAT:
        raise ValueError(path)
    return dict(kept["snapshots"])


def _write(path: str, snapshots: Mapping[str, Any]) -> None:
    text = json.dumps({"format": _FORMAT, "snapshots": snapshots})
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    new = f"{path}.{os.getpid()}"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
        os.replace(new, path)
    except OSError:
        with suppress(OSError):
            os.unlink(new)  # no other process would ever write to this name
        raise


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
