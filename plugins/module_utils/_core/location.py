# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the data of a Docker volume lies on this host, if it can be seen at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .state import State
from .volumes import is_bind


@dataclass(frozen=True)
class Location:
    """backing as in VolumeSpec; device as Docker was given it; path is where to look, None where one must not.

    problem is a sentence, or None where all is well.
    """

    backing: str
    device: str | None
    path: str | None
    filesystem: str | None = None  # its type where Docker's options say it, as for NFS
    problem: str | None = None
    gone: bool = False  # there is no directory


def locate(volume: Mapping[str, Any], state: State, planned: bool = False) -> Location:
    """Find a volume's data. A planned volume may not be there yet, and is not missed."""
    options = dict(volume.get("Options") or {})
    device = options.get("device")
    bound = is_bind(volume["Driver"], options)
    kind = None if bound else options.get("type")
    backing = "path" if bound else "managed"
    where = device if bound else volume["Mountpoint"]
    problem = None
    if not state.is_local:
        problem = f"docker_host {state.engine.docker_host} is not a socket of this host, so paths cannot be seen."
    elif not where:
        problem = f"The driver {volume['Driver']} does not say where it keeps the data."
    elif kind and kind.startswith(("nfs", "cifs", "smb")):
        problem = f"It is on {kind.upper()} at {device}, which is not looked into because it could hang."
    elif kind and not state.mounts.is_point(where):
        problem = f"It is a mount of type {kind} that no running container has made."
    if problem:
        return Location(backing, device, None, kind, problem)
    return _look(Location(backing, device, state.real(str(where)), kind), state, planned)


def _look(location: Location, state: State, planned: bool) -> Location:
    path = str(location.path)
    gone = False
    mount = state.mounts.of(path)
    if mount.is_network:
        problem = f"{path} is on {mount.type}, which is not looked into because it could hang."
        return Location(location.backing, location.device, None, mount.type, problem)
    try:
        with os.scandir(path):
            return location
    except FileNotFoundError:
        if planned:
            return location
        problem, gone = f"Its directory {path} is gone from disk.", True
    except NotADirectoryError:
        problem = f"Its directory {path} is a file."
    except OSError as error:
        problem = f"Its directory {path} cannot be read ({error.strerror}); use become: true."
    return Location(location.backing, location.device, None, mount.type, problem, gone)
