# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest of a snapshot: what was captured, how, and what it held."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import StackError

FORMAT = 1
_KINDS: dict[str, type] = {"str": str, "float": float, "dict": dict, "list": list, "int": int}


@dataclass
class Manifest:
    """id: the operation's. created: the captured instant, ISO 8601, UTC. freeze_s: seconds. quiesced: [{name, how}].

    volumes: {key: {name, backing, driver, driver_opts, labels, path, uid, gid, mode, store, store_version, size_bytes,
    allocated_bytes, files, way, census, check}}. images: {service: {reference, id, digest, version}}. compose:
    {config_hash per service, files_hash}. timings: {phase: seconds}. exports: one entry for each exported file.
    """

    project: str
    id: str
    created: str
    host: str
    tool_version: str
    way: str
    freeze_s: float = 0.0
    quiesced: list[dict[str, Any]] = field(default_factory=list)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    compose: dict[str, Any] = field(default_factory=dict)
    verify: str = "none"
    timings: dict[str, float] = field(default_factory=dict)
    exports: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, snapshot_id: str) -> Manifest:
        """Validated; fields that we do not know are left out. StackError where it is cut off, damaged or too new."""
        name = f"The manifest of snapshot {snapshot_id[:8]}"
        advice = "take another snapshot, and see with check what else is damaged"
        try:
            found = json.loads(text)
        except ValueError as error:
            raise StackError(f"{name} is cut off or damaged ({len(text)} characters): {advice}.") from error
        if not isinstance(found, dict) or not isinstance(found.get("format"), int):
            raise StackError(f"{name} is none of ours: {advice}.")
        if found["format"] > FORMAT:
            raise StackError(
                f"{name} has format {found['format']}, and this version reads up to {FORMAT}: update "
                f"openmemory.stack here."
            )
        values: dict[str, Any] = {}
        for each in fields(cls):
            kind = _KINDS[str(each.type).split("[", 1)[0]]
            value = found.get(each.name)
            if isinstance(value, int) and kind is float:
                value = float(value)
            if value is None and each.name in _OPTIONAL:
                continue
            if not isinstance(value, kind):
                raise StackError(f"{name} is damaged ({each.name} is {value!r}): {advice}.")
            values[each.name] = value
        for key, volume in values.get("volumes", {}).items():
            if not isinstance(volume, dict) or "/" in key or key in ("", ".", ".."):
                raise StackError(f"{name} is damaged (volume {key!r}): {advice}.")
        return cls(**values)


_OPTIONAL = {"freeze_s", "quiesced", "images", "compose", "verify", "timings", "exports"}
