# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container as its image, its settings and its mounts tell it: all that a store needs to be recognised."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Container:
    """Names and paths are those inside the container."""

    name: str
    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"

    @classmethod
    def from_inspect(cls, inspected: Mapping[str, Any]) -> Container:
        """From what the engine says of one container."""
        config = inspected["Config"]
        pairs = (line.partition("=") for line in config.get("Env") or [])
        return cls(
            name=inspected["Name"].lstrip("/"),
            image=config["Image"],
            environment={key: value for key, _equals, value in pairs},
            working_dir=config.get("WorkingDir") or "/",
        )

    @property
    def image_name(self) -> str:
        """The last part of the image's name: "qdrant" of "registry:5000/qdrant/qdrant:v1.18.0@sha256:…"."""
        return self.image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]

    def path(self, path: str) -> str:
        """The absolute, normal form of a path that may be relative to the working directory."""
        return posixpath.normpath(posixpath.join(self.working_dir, path))
