# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The version gate: whether the images that will open a snapshot's stores may."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol, Union

from ..stores import neo4j, qdrant, registry, sqlite
from ..stores.container import Container

Version = tuple[int, ...]
Image = Union[str, Mapping[str, Any]]  # a reference, or an inspected image
_LABEL = "org.opencontainers.image.version"
_BASE_LABEL = "org.opencontainers.image.ref.name"  # a base image's own, as ubuntu, which its children inherit
_ENVIRONMENT = {neo4j.KIND: ("NEO4J_VERSION", "NEO4J_TARBALL"), sqlite.KIND: ("OPENMEMORY_VERSION",), qdrant.KIND: ()}
CHECKPOINT = (5, 26)  # "All upgrades from earlier than 5.26 must first upgrade to Neo4j 5.26 LTS" (upgrade guide)
NAMES = {qdrant.KIND: "Qdrant", neo4j.KIND: "Neo4j", sqlite.KIND: "OpenMemory"}


class Described(Protocol):
    """What is needed of a manifest (repository/manifest.py)."""

    volumes: dict[str, dict[str, Any]]
    images: dict[str, dict[str, Any]]


def version_problem(manifest: Described, key: str, target: Image, reference: str | None = None) -> str | None:
    """One sentence if the image target may not open the snapshot's volume key, else None; also for unknown versions.

    target is an inspected image or a reference; reference is the one by which the container names an inspected image.
    """
    kind = manifest.volumes[key].get("store")
    return problem_between(kind, snapshot_version(manifest, key), version_of(kind, target, reference))


def version_warning(manifest: Described, key: str, target: Image, reference: str | None = None) -> str | None:
    """One sentence if a version is not known, so that the gate could not judge; else None."""
    kind = manifest.volumes[key].get("store")
    if kind not in NAMES:
        return None
    if snapshot_version(manifest, key) is None:
        return (
            f"{key}: the snapshot does not say which version of {NAMES[kind]} wrote it, so versions are not compared."
        )
    if version_of(kind, target, reference) is None:
        shown = target if isinstance(target, str) else reference or "the image"
        return f"{key}: {shown} does not say its version of {NAMES[kind]}, so versions are not compared."
    return None


def problem_between(kind: str | None, snapshot: str | None, target: str | None) -> str | None:
    """The gate itself, on versions as texts: Qdrant the same or the next minor, Neo4j the same or a newer line along
    its upgrade path, OpenMemory not older. None if it may, or if a version or the kind is not known."""
    old, new = parsed(snapshot), parsed(target)
    if kind not in NAMES or old is None or new is None:
        return None
    rule = {qdrant.KIND: _qdrant, neo4j.KIND: _neo4j, sqlite.KIND: _application}[str(kind)]
    reason = rule(old, new)
    if reason is None:
        return None
    name = NAMES[str(kind)]
    return f"The snapshot was written by {name} {snapshot}, and {name} {target} cannot take it over: {reason}."


def snapshot_version(manifest: Described, key: str) -> str | None:
    """The version of the store that wrote a volume of a snapshot, or None if nothing tells it."""
    volume = manifest.volumes[key]
    kind = volume.get("store")
    for service, image in manifest.images.items():
        if _kind_of(service, str(image.get("reference") or "")) == kind:
            found = _tag_version(str(image.get("reference") or "")) or image.get("version")
            if found and parsed(str(found)):
                return str(found)
    # SQLite's own is that of the library, which any later one reads
    return str(volume["store_version"]) if kind == qdrant.KIND and volume.get("store_version") else None


def version_of(kind: str | None, image: Image, reference: str | None = None) -> str | None:
    """The version of a store that an image holds: by its tag, its environment, its label; None if none tells it."""
    if isinstance(image, str):
        return _tag_version(image)
    config = image.get("Config") or {}
    for name in [reference, *(image.get("RepoTags") or [])]:
        found = _tag_version(name) if name else None
        if found:
            return found
    settings = dict(line.partition("=")[::2] for line in config.get("Env") or [])
    for name in _ENVIRONMENT.get(str(kind), ()):
        match = re.search(r"\d+(?:\.\d+)+", settings.get(name, ""))
        if match:
            return match.group(0)
    labels = config.get("Labels") or {}
    if labels.get(_LABEL) and parsed(labels[_LABEL]) and str(kind) in str(labels.get(_BASE_LABEL, kind)):
        return str(labels[_LABEL])
    return None


def _kind_of(service: str, reference: str) -> str | None:
    recognised = registry.recognise(Container(service, reference))
    return recognised[0] if recognised else None


def _tag_version(reference: str) -> str | None:
    tag = reference.partition("@")[0].rsplit("/", 1)[-1].partition(":")[2]
    found = parsed(tag)
    return ".".join(map(str, found)) if found else None


def parsed(text: str | None) -> Version | None:
    """The numbers that a version or a tag begins with, as (5, 26, 30) of "v5.26.30-community"; None without any."""
    match = re.match(r"v?(\d+(?:\.\d+){0,3})(?=$|[-+_])", text or "")
    return tuple(int(part) for part in match.group(1).split(".")) if match else None


def _qdrant(old: Version, new: Version) -> str | None:
    if len(old) < 2 or len(new) < 2:
        return None if old[0] == new[0] else "it is another major version"
    if new[:2] < old[:2]:
        return "it is older; use the snapshot's version or the next minor one"
    if new[0] != old[0] or new[1] - old[1] > 1:
        return "its storage is upgraded one minor version at a time; use the snapshot's version, then step by step"
    return None


def _neo4j(old: Version, new: Version) -> str | None:
    if older(new[:2], old[:2]):
        return "it is older; use the same or a newer line"
    if old[0] == new[0] and (old[0] >= 5 or old[:2] == new[:2]):
        return None
    if old[0] == 4:
        if old[:2] == (4, 4) and new[:2] == CHECKPOINT:
            return None
        return "4.4 is upgraded to 5.26 only, and older ones to 4.4 first"
    if old[0] == 5:
        if len(old) > 1 and old[:2] < CHECKPOINT:
            return "5.x is upgraded to 5.26 before anything newer"
        return None
    return None if old[0] > 5 else "there is no direct upgrade"


def _application(old: Version, new: Version) -> str | None:
    return "it is older, and a database is not taken back a version" if older(new, old) else None


def older(one: Version, other: Version) -> bool:
    """Whether one is older than other, as far as both say."""
    length = min(len(one), len(other))
    return one[:length] < other[:length]
