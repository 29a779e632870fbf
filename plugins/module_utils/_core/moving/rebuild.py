# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that are removed and made again exactly as they were: a volume cannot be removed while one refers to it.

From what the engine tells of a container, not by Compose: its files, its .env and the shell's environment may have
changed since, and a run that died must be put right without them. Compose knows a container by its labels, and takes
one made so as its own.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..engine import ACTIVE, Engine
from ..errors import NotFoundError, StackError
from ..operation.journal import Journal

_SHORT_ID = 12  # as much of its id is a container's host name and, before Docker 25, an alias
_OWN_ENDPOINT = ("IPAMConfig", "Links", "Aliases", "DriverOpts", "GwPriority")  # what was asked for; the rest is found
_WITHOUT_ENDPOINT = ("host", "none", "default", "bridge")


@dataclass(frozen=True)
class Recipe:
    """What a container is made from. body is the engine's own for its creation; ran: it ran before.

    networks are those that it is connected to after its creation, {name: endpoint}; the first one is in body.
    """

    id: str
    name: str
    body: Mapping[str, Any]
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ran: bool = True

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Recipe:
        """From as_json; raises StackError for what is no recipe."""
        try:
            return cls(**found)
        except TypeError as error:
            raise StackError(f"The record of a container is damaged ({error}); look at it before you go on.") from error


def recipe(engine: Engine, inspected: Mapping[str, Any]) -> Recipe:
    """How to make an inspected container again; raises StackError for one of which something would be lost."""
    name = str(inspected["Name"]).lstrip("/")
    host = dict(inspected["HostConfig"])
    if host.get("AutoRemove"):
        raise StackError(
            f"Container {name} was started with --rm, so it cannot be made again; stop it, and start it afterwards."
        )
    mode = str(host.get("NetworkMode") or "default")
    shared = shares(inspected)
    if shared:
        raise StackError(
            f"Container {name} refers to another container ({', '.join(sorted(shared))}), which may be another one "
            "afterwards; remove it, and make it again afterwards."
        )
    if any(path.startswith("/run/secrets/") for path in engine.changes(str(inspected["Id"]))):
        raise StackError(
            f"Container {name} has secrets that Compose has copied into it, which a container made again would not "
            "have; give them as files (secrets with file:), and run docker compose up first."
        )
    body = {key: value for key, value in inspected["Config"].items() if value is not None}
    if body.get("Hostname") == inspected["Id"][:_SHORT_ID] or host.get("UTSMode") == "host":
        body.pop("Hostname", None)
    body["Image"] = _image(engine, inspected)
    body["HostConfig"] = {**host, "Binds": _binds(inspected)}
    networks = {} if mode in _WITHOUT_ENDPOINT else _networks(inspected)
    first = mode if mode in networks else next(iter(networks), None)
    if first is not None:
        body["NetworkingConfig"] = {"EndpointsConfig": {first: networks.pop(first)}}
    return Recipe(str(inspected["Id"]), name, body, networks, inspected["State"]["Status"] in ACTIVE)


def remove(engine: Engine, recipes: Iterable[Recipe]) -> None:
    """Remove containers that stand still; their anonymous volumes stay. One that is gone is no error."""
    for one in recipes:
        try:  # not by force: one that runs again by now is refused
            engine.remove_container(one.id, volumes=False, force=False)
        except NotFoundError:
            continue


def shares(inspected: Mapping[str, Any]) -> set[str]:
    """Ids or names of the containers whose network, processes, memory or volumes an inspected one shares."""
    host = inspected["HostConfig"]
    modes = [str(host.get(key) or "") for key in ("NetworkMode", "PidMode", "IpcMode", "UTSMode")]
    found = {mode.partition(":")[2] for mode in modes if mode.startswith("container:")}
    return found | {str(one).partition(":")[0] for one in host.get("VolumesFrom") or ()}


def rehearse(engine: Engine, journal: Journal, recipes: Iterable[Recipe]) -> None:
    """Make each once under another name, and remove it: what the engine refuses is said before anything is removed."""
    for one in recipes:
        name = f"{one.name}-rehearsal"
        journal.add("throwaway.containers", name)
        try:
            engine.create_container(name, dict(one.body))
        except StackError as error:
            raise StackError(
                f"Container {one.name} could not be made again, so nothing was changed. {error}"
            ) from error
        engine.remove_container(name, volumes=False)
        journal.drop("throwaway.containers", name)


def make(engine: Engine, one: Recipe) -> str:
    """Make a container, not started; its id. Raises StackError if it cannot be made, or connected as it was."""
    identity = engine.create_container(one.name, dict(one.body))
    for network, endpoint in one.networks.items():
        engine.connect_network(network, identity, endpoint)
    return identity


def make_all(engine: Engine, journal: Journal, recipes: Sequence[Recipe]) -> list[str]:
    """Make those that are not there; the ids of those that ran before, in the order of recipes.

    The journal then has these as what is to be started. A container of one's name is taken for it: callers have removed
    what was made on the other side (see remove_others).
    """
    made = []
    for one in recipes:
        try:
            identity = str(engine.inspect_container(one.name)["Id"])
        except NotFoundError:
            identity = make(engine, one)
        made.append((identity, one))
    running = [(identity, one) for identity, one in made if one.ran]
    journal.note("stopped", [{"id": identity, "name": one.name} for identity, one in running])
    return [identity for identity, _one in running]


def remove_others(engine: Engine, recipes: Sequence[Recipe]) -> list[str]:
    """Stop and remove containers that have the names of recipes and are not the ones of before; their names.

    The names were taken until we removed those, so they are ours, or somebody made them of the same files since.
    """
    names = []
    for one in reversed(recipes):
        try:
            found = engine.inspect_container(one.name)
        except NotFoundError:
            continue
        if found["Id"] == one.id:
            continue
        if found["State"]["Status"] == "paused":
            engine.unpause(found["Id"])
        engine.stop(found["Id"])
        engine.remove_container(found["Id"], volumes=False)
        names.append(one.name)
    return names


def _image(engine: Engine, inspected: Mapping[str, Any]) -> str:
    """By its name as long as that still means the same image, else by its id."""
    name = str(inspected["Config"]["Image"])
    try:
        same = engine.inspect_image(name)["Id"] == inspected["Image"]
    except NotFoundError:
        same = False
    return name if same else str(inspected["Image"])


def _binds(inspected: Mapping[str, Any]) -> list[str]:
    """What was asked for, and the anonymous volumes by their names: a new container would get empty ones."""
    host = inspected["HostConfig"]
    binds = list(host.get("Binds") or ())
    taken = {posixpath.normpath(bind.split(":")[1]) for bind in binds if ":" in bind}
    taken |= {mount["Target"] for mount in host.get("Mounts") or ()} | set(host.get("Tmpfs") or ())
    for mount in inspected.get("Mounts") or ():
        if mount.get("Type") == "volume" and mount["Destination"] not in taken:
            binds.append(f"{mount['Name']}:{mount['Destination']}{'' if mount.get('RW', True) else ':ro'}")
    return binds


def _networks(inspected: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for name, endpoint in ((inspected.get("NetworkSettings") or {}).get("Networks") or {}).items():
        own = {key: endpoint[key] for key in _OWN_ENDPOINT if endpoint.get(key)}
        if "Aliases" in own:
            own["Aliases"] = [alias for alias in own["Aliases"] if alias != inspected["Id"][:_SHORT_ID]]
        found[name] = own
    return found
