# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests kept on this host: a snapshot's id stands for its contents, so what was read once needs no restic again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..errors import StackError
from ..operation.places import Places
from .manifest import Manifest
from .repository import Repository


def remember_manifest(places: Places, snapshot_id: str, manifest: Manifest) -> None:
    """Keep the manifest of a new snapshot (full id); StackError where it cannot be written."""
    _keep(places, snapshot_id, manifest.to_json())


def forget_manifests(places: Places, snapshot_ids: Sequence[str]) -> None:
    """Drop the kept manifests of removed snapshots."""
    for each in snapshot_ids:
        if os.path.exists(_kept_at(places, each)):
            os.unlink(_kept_at(places, each))


def manifest_of(repository: Repository, places: Places | None, snapshot_id: str, keep: bool = True) -> dict[str, Any]:
    """The manifest of a snapshot (full id), from this host where it is kept; StackError where it is damaged.

    places: where manifests are kept (None: not kept). keep: write down what had to be read from the repository.
    """
    if places is not None:
        try:
            with open(_kept_at(places, snapshot_id), encoding="utf-8") as file:
                return Manifest.from_json(file.read(), snapshot_id).to_dict()
        except (OSError, ValueError, StackError):  # not kept, or damaged: the repository's is the true one
            pass
    text = repository.manifest_text(snapshot_id)
    found = Manifest.from_json(text, snapshot_id).to_dict()
    if places is not None and keep:
        with suppress(StackError):  # it only saves asking the repository again
            _keep(places, snapshot_id, text)
    return found


def _kept_at(places: Places, snapshot_id: str) -> str:
    return os.path.join(places.manifests, f"{snapshot_id}.json")


def _keep(places: Places, snapshot_id: str, text: str) -> None:
    path = _kept_at(places, snapshot_id)
    try:
        os.makedirs(places.manifests, mode=0o700, exist_ok=True)
        with os.fdopen(
            os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        os.replace(f"{path}.new", path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(f"{path}.new")
        raise StackError(f"{path} cannot be written ({error.strerror}): make room or correct its owner.") from error
