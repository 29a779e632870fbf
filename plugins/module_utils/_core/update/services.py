# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The services of a project, the images that they run, and those that their references mean now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .. import compose_images
from ..engine import Engine
from ..errors import NotFoundError, StackError
from ..proof.gate import NAMES, version_of
from ..restore.crew import service_of
from ..stores.container import Container
from ..stores.registry import recognise
from .versions import Way, step_references, way_between


@dataclass(frozen=True)
class Image:
    """id is None where the image is not on this host; digest and version are None where nothing tells them."""

    reference: str
    id: str | None = None
    digest: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Service:
    """before is what its containers run, after what the files ask for. kind is the store's, None of any other.

    newer: the two differ; None where the registry could not be asked. steps are references of images to run in between.
    """

    name: str
    kind: str | None
    before: Image
    after: Image
    newer: bool | None
    way: Way = field(default_factory=Way)
    steps: Sequence[str] = ()

    def as_result(self) -> dict[str, Any]:
        """{before, after, newer, steps}, as the modules return it."""
        return {
            "before": asdict(self.before),
            "after": asdict(self.after),
            "newer": self.newer,
            "steps": list(self.steps or self.way.steps),
        }


def find_services(
    engine: Engine, config: Mapping[str, Any], containers: Sequence[Mapping[str, Any]], ask_registry: bool
) -> tuple[list[Service], list[str]]:
    """The services that have containers and an image in a registry, and warnings.

    config is the resolved project, containers are the project's inspected ones. ask_registry: nothing was pulled, so
    the registry is asked for the digests.
    """
    wanted = {
        name: str(service["image"])
        for name, service in sorted((config.get("services") or {}).items())
        if service.get("image") and any(service_of(about) == name for about in containers)
    }
    here = compose_images.local_images(engine, wanted.values())
    ahead: dict[str, str | None] = {}
    warnings: list[str] = []
    if ask_registry:
        for reference in sorted(set(wanted.values())):
            try:
                ahead[reference] = engine.registry_digest(reference)
            except StackError as error:
                ahead[reference] = None
                warnings.append(f"Whether the registry has a newer {reference} is not known: {error}")
    found = []
    for name, reference in wanted.items():
        own = [about for about in containers if service_of(about) == name]
        local = here[reference]
        about = next((one for one in own if local and one["Image"] != local["id"]), own[0])
        recognised = recognise(Container.from_inspect(about))
        kind = recognised[0] if recognised else None
        before, after = _running(engine, kind, about), _wanted(engine, kind, reference, local)
        newer: bool | None = after.id != before.id
        if ask_registry:
            digest = ahead[reference]
            newer = None if digest is None and after.id in (None, before.id) else newer or digest != before.digest
            if digest is not None and digest != after.digest:  # what is here is not what would be pulled
                after = Image(reference, None, digest, version_of(kind, reference))
        way = way_between(kind, before.version, after.version) if newer is not False else Way()
        found.append(Service(name, kind, before, after, newer, way))
    return found, warnings


def refusal_of(service: Service, policy: str) -> str | None:
    """Why an update of this service is refused, in a sentence: no way, or one with steps and policy "refuse"."""
    if not service.newer or service.kind not in NAMES:
        return None
    way, now = service.way, f"{NAMES[service.kind]} {service.before.version}"
    option = f"services.{service.name}.image is {service.after.reference}"
    then = ", then to ".join([*way.steps, str(service.after.version)])
    if way.problem and way.steps:
        return f"{option}, and {now} runs: {way.problem}: to {then}."
    if way.problem:
        return (
            f"{option}: {way.problem}; name {service.before.version} or newer, or restore a snapshot of that version."
        )
    if way.steps and policy == "refuse":
        return (
            f"{option}, and {now} runs, which gets there only step by step: update to {then}; or set steps: auto to "
            "have that done in one run."
        )
    return None


def judge(services: Sequence[Service], policy: str) -> list[str]:
    """Raise StackError for the first that is refused; returns sentences on versions that nobody could compare."""
    warnings = []
    for service in services:
        problem = refusal_of(service, policy)
        if problem:
            raise StackError(problem)
        if service.newer and service.kind in NAMES:
            warnings += [
                f"{service.name}: {image.reference} does not say its version of {NAMES[service.kind]}, so versions are "
                "not compared."
                for image in (service.before, service.after)
                if image.version is None
            ]
    return warnings


def with_steps(service: Service, have: Callable[[str], None]) -> Service:
    """The service with the references of its steps. have() gets an image, or raises StackError where there is none."""
    chosen = []
    for step in service.way.steps:
        references = step_references(str(service.kind), service.after.reference, step)
        reasons = []
        for reference in references:
            try:
                have(reference)
            except StackError as error:
                reasons.append(str(error))
                continue
            chosen.append(reference)
            break
        else:
            then = ", then to ".join([*service.way.steps, str(service.after.version)])
            raise StackError(
                f"services.{service.name}.image is {service.after.reference}, and {NAMES[str(service.kind)]} "
                f"{service.before.version} has to run {step} before that, for which there is neither "
                f"{' nor '.join(references)} ({reasons[0]}); update to {then} by tags that there are."
            )
    return replace(service, steps=tuple(chosen))


def _running(engine: Engine, kind: str | None, about: Mapping[str, Any]) -> Image:
    reference, identity = str(about["Config"]["Image"]), str(about["Image"])
    try:
        image = engine.inspect_image(identity)
    except NotFoundError:  # removed by force while its container goes on
        return Image(reference, identity, None, version_of(kind, reference))
    digest = compose_images.digest_of(reference, image.get("RepoDigests") or [])
    return Image(reference, identity, digest, version_of(kind, image, reference))


def _wanted(engine: Engine, kind: str | None, reference: str, local: Mapping[str, Any] | None) -> Image:
    if local is None:
        return Image(reference, None, None, version_of(kind, reference))
    version = version_of(kind, engine.inspect_image(str(local["id"])), reference)
    return Image(reference, str(local["id"]), local["digest"], version)
