# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a snapshot says of itself: the manifest, put together from the plan, the capture and the checks."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..capture.capture import Captured
from ..capture.plan import CapturePlan, PlannedVolume
from ..capture.staging import Staging
from ..engine import Engine
from ..errors import NotFoundError
from ..repository.manifest import Manifest
from ..volumes import PROJECT_LABEL
from .request import BackupRequest, verified_of

TOOL_VERSION = "0.1.0"
_SERVICE_LABEL = "com.docker.compose.service"
_HASH_LABEL = "com.docker.compose.config-hash"
_FILES_LABEL = "com.docker.compose.project.config_files"
_VERSION_LABEL = "org.opencontainers.image.version"
_SECRET = re.compile(r"((?:password\w*|passwd|pass|secret)=)[^,]*", re.IGNORECASE)


def make_manifest(
    request: BackupRequest,
    engine: Engine,
    plan: CapturePlan,
    captured: Captured,
    staging: Staging,
    proof: Mapping[str, Mapping[str, Any]],
    exports: list[dict[str, Any]],
    timings: Mapping[str, float],
) -> Manifest:
    """proof is {volume key: {"census": …, "check": …}}; timings are seconds by phase, so far."""
    services = _services(plan)
    return Manifest(
        project=plan.project,
        id=uuid.uuid4().hex,
        created=datetime.fromtimestamp(captured.instant, timezone.utc).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        tool_version=TOOL_VERSION,
        way=captured.way,
        freeze_s=round(captured.freeze_s, 4),
        quiesced=[dict(one) for one in captured.quiesced],
        volumes={
            volume.key: {**_volume(volume, captured, staging), **proof.get(volume.key, {})} for volume in plan.volumes
        },
        images=images_of(engine, plan),
        compose={
            "config_hash": {name: about["Config"]["Labels"].get(_HASH_LABEL) for name, about in services.items()},
            "files_hash": _files_hash(services),
        },
        verify=verified_of(request, plan),
        timings={name: round(seconds, 3) for name, seconds in timings.items()},
        exports=exports,
    )


def images_of(engine: Engine, plan: CapturePlan) -> dict[str, dict[str, Any]]:
    """{service: {reference, id, digest, version}} of the project's containers."""
    return {name: _image(engine, about) for name, about in _services(plan).items()}


def _services(plan: CapturePlan) -> dict[str, Mapping[str, Any]]:
    found = {}
    for about in plan.containers.values():
        labels = about["Config"].get("Labels") or {}
        if labels.get(PROJECT_LABEL) == plan.project and labels.get(_SERVICE_LABEL):
            found[str(labels[_SERVICE_LABEL])] = about
    return dict(sorted(found.items()))


def _volume(volume: PlannedVolume, captured: Captured, staging: Staging) -> dict[str, Any]:
    root = os.lstat(staging.volume(volume.key))
    report = captured.reports[volume.key]
    return {
        "name": volume.name,
        "backing": volume.backing,
        "driver": volume.driver,
        "driver_opts": {name: without_secrets(value) for name, value in volume.driver_opts.items()},
        "labels": dict(volume.labels),
        "path": volume.path,
        "uid": root.st_uid,
        "gid": root.st_gid,
        "mode": f"{stat.S_IMODE(root.st_mode):04o}",
        "store": volume.store,
        "store_version": volume.store_version,
        "size_bytes": report.bytes_total,
        "allocated_bytes": volume.size.allocated_bytes,
        "files": report.files,
        "way": captured.way if volume.quiesce != "none" else "live",
    }


def without_secrets(option: str) -> str:
    """An option of a volume without the password that mounting a share takes; such a volume is never made anew."""
    return _SECRET.sub(r"\1***", option)


def _image(engine: Engine, container: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"reference": container["Config"]["Image"], "id": container["Image"]}
    try:
        image = engine.inspect_image(container["Image"])
    except NotFoundError:  # removed by hand while its container goes on
        return {**found, "digest": None, "version": None}
    digests = image.get("RepoDigests") or []
    labels = (image.get("Config") or {}).get("Labels") or {}
    return {**found, "digest": digests[0] if digests else None, "version": labels.get(_VERSION_LABEL)}


def _files_hash(services: Mapping[str, Mapping[str, Any]]) -> str | None:
    """One hash of the Compose files that the containers were made from; None where they cannot be read any more."""
    names = {about["Config"]["Labels"].get(_FILES_LABEL) for about in services.values()}
    digest = hashlib.sha256()
    for name in sorted(path for names_of_one in names if names_of_one for path in names_of_one.split(",")):
        try:
            with open(name, "rb") as stream:
                digest.update(stream.read())
        except OSError:
            return None
    return digest.hexdigest() if any(names) else None
