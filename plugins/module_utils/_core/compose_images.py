# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images behind a project's references: what is here, what the registry has, and by which digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .engine import Engine
from .errors import NotFoundError, StackError


def local_images(engine: Engine, references: Iterable[str]) -> dict[str, dict[str, Any] | None]:
    """By reference: id and digest of the image on the host, None where it is not there."""
    found: dict[str, dict[str, Any] | None] = {}
    for reference in sorted(set(references)):
        try:
            image = engine.inspect_image(reference)
        except NotFoundError:
            found[reference] = None
        else:
            found[reference] = {"id": image["Id"], "digest": digest_of(reference, image.get("RepoDigests") or [])}
    return found


def newer_in_registry(engine: Engine, images: Mapping[str, dict[str, Any] | None]) -> tuple[list[str], list[str]]:
    """References whose image the registry has in another version, and sentences about those that could not be asked."""
    newer, unknown = [], []
    for reference, image in images.items():
        try:
            digest = engine.registry_digest(reference)
        except StackError as error:
            unknown.append(f"Whether the registry has a newer {reference} is not known: {error}")
        else:
            if image is None or image["digest"] != digest:
                newer.append(reference)
    return newer, unknown


def image_ids(images: Mapping[str, dict[str, Any] | None]) -> dict[str, str | None]:
    return {reference: image["id"] if image else None for reference, image in images.items()}


def digest_of(reference: str, digests: Iterable[str]) -> str | None:
    """Of an image's digests (one for each repository) that of the repository referred to."""
    by_repository = dict(digest.split("@", 1) for digest in digests)
    repository = reference.partition("@")[0]
    if ":" in repository.rsplit("/", 1)[-1]:
        repository = repository.rpartition(":")[0]
    return by_repository.get(repository) or next(iter(by_repository.values()), None)
