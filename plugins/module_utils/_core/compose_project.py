# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One Compose project brought to the state that is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import compose_events, compose_images, compose_stamp
from .compose_cli import ComposeCli, Outcome, plugin_identity
from .compose_containers import health_of, project_containers, service_of
from .compose_guard import check_references, check_volumes, config_volumes
from .compose_health import NO_NEWS, Waiter, is_completed, is_settled
from .compose_request import Candidate, Request, cli_for
from .engine import Engine
from .errors import StackError
from .operation.places import Places
from .operation.retired import refuse_moving, refuse_retired
from .project_env import ENV_NAME
from .project_files import FileChange, ProjectFile, file_diffs, find_changes, is_ours, wanted_files, write_changes


@dataclass
class Result:
    """What happened (in check mode: would happen)."""

    changed: bool = False
    actions: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)


class Project:
    """The project of one request on one engine. connect gives the engine, and is called when it is needed first."""

    def __init__(self, request: Request, connect: Callable[[], Engine], check_mode: bool = False):
        self.request = request
        self._connect = connect
        self.check_mode = check_mode
        self.result = Result()

    @cached_property
    def engine(self) -> Engine:
        return self._connect()

    def present(self) -> Result:
        """Files in place, everything up and healthy. Raises StackError; before it changes anything, where it can."""
        return self._deploy(start=True)

    def created(self) -> Result:
        """Files in place, images pulled, containers and networks made, and nothing started."""
        return self._deploy(start=False)

    def _deploy(self, start: bool) -> Result:
        request = self.request
        places = Places.of(request.project_name, request.state_dir, create=False)
        refuse_retired(places)
        refuse_moving(places)
        wanted = wanted_files(request.files, {**request.env, **request.secrets}, request.project_name)
        changes = find_changes(request.project_src, wanted)
        with ThreadPoolExecutor(1) as worker, Candidate(request, wanted) as candidate:
            looking = worker.submit(self._look)  # importing the SDK and asking take as long as Compose does
            cli = candidate.cli()
            config, self.result.warnings = cli.config()
            check_references(config)
            existing, containers = looking.result()
            self._check_images(config)
            volumes = config_volumes(config)
            check_volumes(volumes, existing, request.expected_volumes if self.check_mode else ())
            self.result.diff = file_diffs(changes, self.request.env, self.request.mask)
            if self.check_mode:
                self._note_files(changes)
            given = compose_stamp.fingerprint(config, plugin_identity(), {"remove_orphans": request.remove_orphans})
            images = compose_images.local_images(self.engine, _references(config))
            if not self._is_current(given, config, containers, images, start):
                if self.check_mode:
                    names = {volume["Name"] for volume in existing}
                    coming = {key: v for key, v in volumes.items() if v["external"] and v["name"] not in names}
                    self._predict(candidate, config, coming, start)
                    return self._finish(config)
                self._pull(cli, config)
                return self._up(wanted, changes, config, given, start)
        if not self.check_mode:
            self._write(changes)
            if start and request.wait and not _are_settled(containers, config):
                self._wait(config)
                containers = self._containers()
        return self._finish(config, images, containers)

    def resolve(self) -> dict[str, Any]:
        """The project as Compose resolves it; raises StackError for what it refuses. Nothing is changed."""
        request = self.request
        wanted = wanted_files(request.files, {**request.env, **request.secrets}, request.project_name)
        with Candidate(request, wanted) as candidate:
            config, self.result.warnings = candidate.cli().config()
        check_references(config)
        return config

    def pull(self, config: Mapping[str, Any]) -> None:
        """Have the images of a resolved project on the host, as request.pull says, and change nothing else."""
        request = self.request
        self._check_images(config)
        wanted = wanted_files(request.files, {**request.env, **request.secrets}, request.project_name)
        with Candidate(request, wanted) as candidate:
            self._pull(candidate.cli(), config)

    def pull_one(self, reference: str) -> None:
        """Have one more image, with the same login; raises StackError where there is none."""
        file = ProjectFile("one-image.yml", json.dumps({"services": {"one": {"image": reference}}}))
        with Candidate(self.request, [file, ProjectFile(ENV_NAME, "")]) as candidate:
            cli = candidate.cli()
            outcome = cli.run("pull", "--quiet")
        if outcome.rc:
            raise StackError(f"The image {reference} cannot be pulled: {cli.reason(outcome)}")

    def restarted(self) -> Result:
        """Like present, and what was running and was not touched by that is restarted."""
        running = {container["Id"] for container in self._containers() if container["State"] == "running"}
        self.present()
        touched = {action.split()[1] for action in self.result.actions if action.startswith("container ")}
        rest = {
            service_of(container)
            for container in self._containers()
            if container["Id"] in running and container["Names"][0].lstrip("/") not in touched
        }
        config = self.resolve()
        if rest:
            self._simple("restart", "restarted", *sorted(rest))
            self._wait(config)
        return self._finish(config)

    def stopped(self) -> Result:
        """Every container of the project stopped; nothing removed. Needs no files: the labels name the project."""
        if any(container["State"] in ("running", "restarting", "paused") for container in self._containers()):
            self._simple("stop", "stopped", *self._stop_timeout())
        return self._finish({})

    def absent(self) -> Result:
        """Containers and networks removed. Volumes and files stay: removing data is never a side effect."""
        if self._containers():
            orphans = ["--remove-orphans"] if self.request.remove_orphans else []
            self._simple("down", "removed", *orphans, *self._stop_timeout())
            if not self.check_mode:
                compose_stamp.remove_stamp(self.request.project_src)
        return self._finish({})

    def _is_current(
        self,
        given: str,
        config: Mapping[str, Any],
        containers: Sequence[Mapping[str, Any]],
        images: Mapping[str, dict[str, Any] | None],
        start: bool,
    ) -> bool:
        """Whether `up` has nothing to do; see compose_stamp."""
        if not compose_stamp.can_be_trusted(config, self.request.pull, self.request.recreate):
            return False
        for container in containers:
            service = config["services"].get(service_of(container))
            if start and service and container["State"] != "running" and not is_completed(container, service):
                return False
        now = compose_stamp.make_stamp(given, containers, compose_images.image_ids(images))
        return compose_stamp.read_stamp(self.request.project_src) == now

    def _check_images(self, config: Mapping[str, Any]) -> None:
        if self.request.pull == "never":
            built = {service.get("image") for service in config["services"].values() if service.get("build")}
            for reference, image in compose_images.local_images(self.engine, _references(config)).items():
                if image is None and reference not in built:
                    raise StackError(
                        f"The image {reference} is not on this host and pull is never; load it or allow pull."
                    )

    def _predict(
        self, candidate: Candidate, config: Mapping[str, Any], coming: Mapping[str, Mapping[str, Any]], start: bool
    ) -> None:
        """Ask Compose what it would do, and tell it what it cannot see yet.

        That is volumes that an earlier task would have made, and images that would have been pulled: Compose 2.40 ends
        where a container is there and its new image is not, so it gets the old one by its id, which makes it anew, too.
        """
        extra = []
        images = compose_images.local_images(self.engine, _references(config))
        outdated = [reference for reference, image in images.items() if image is None]
        stand_ins = {
            service_of(container): str(container["ImageID"])
            for container in self._containers()
            if config["services"].get(service_of(container), {}).get("image") in outdated
        }
        if coming or stand_ins:
            lines = [f"  {key}: !override\n    name: {coming[key]['name']}\n" for key in coming]
            text = "volumes:\n" + "".join(lines) if lines else ""
            if stand_ins:
                text += f"services: {json.dumps({name: {'image': image} for name, image in stand_ins.items()})}\n"
            file = ProjectFile("not-here-yet.yml", text)
            candidate.add(file)
            extra.append(file.name)
        if self.request.pull == "always":
            outdated, unknown = compose_images.newer_in_registry(self.engine, images)
            self.result.warnings += unknown
        self._act(f"image {reference} would be pulled" for reference in outdated)
        cli = candidate.cli(extra)
        # --pull never: a dry run that pulls asks the registry itself, without the engine's settings for it
        # --no-start: a dry run that starts waits for the health of what is really there
        outcome = cli.run("up", "--no-start", "--dry-run", "--pull", "never", *self._up_flags())
        if outcome.rc:
            raise StackError(f"`docker compose up --dry-run` failed: {cli.reason(outcome)}")
        named = {volume["name"] for volume in coming.values()}
        events = [event for event in compose_events.changes(outcome.stderr) if event[1] not in named]
        seen = {name for _kind, name, _word in events}
        for container in self._containers():
            reference = str(config["services"].get(service_of(container), {}).get("image"))
            name = container["Names"][0].lstrip("/")
            if name not in seen and service_of(container) in config["services"]:
                if reference in outdated:
                    events.append(("container", name, "recreated"))
                elif start and container["State"] != "running":
                    events.append(("container", name, "started"))
        self._act(compose_events.sentences(events, dry_run=True))

    def _pull(self, cli: ComposeCli, config: Mapping[str, Any]) -> None:
        """Have the images before anything is touched: a wrong tag or a dead registry then costs nothing."""
        before = compose_images.local_images(self.engine, _references(config))
        missing = [reference for reference, image in before.items() if image is None]
        if self.request.pull == "never" or not (missing or self.request.pull == "always"):
            return
        outcome = cli.run("pull", "--quiet", "--ignore-buildable", "--policy", self.request.pull)
        if outcome.rc:
            raise StackError(f"The images cannot be pulled: {cli.reason(outcome)}")
        for reference, image in compose_images.local_images(self.engine, before).items():
            if image and image != before[reference]:
                self._act([f"image {reference} pulled ({image['digest'] or image['id']})"])

    def _up(
        self,
        wanted: Sequence[ProjectFile],
        changes: Sequence[FileChange],
        config: Mapping[str, Any],
        given: str,
        start: bool,
    ) -> Result:
        request = self.request
        self._write(changes)
        before = {container["Id"] for container in self._containers()}
        names = [file.name for file in wanted if file.name != ENV_NAME]
        cli = cli_for(request, request.project_src, names)
        pull = "never" if request.pull == "never" else "missing"
        outcome = cli.run(
            "up",
            "--detach" if start else "--no-start",
            "--pull",
            pull,
            *self._up_flags(),
            timeout=max(request.wait_timeout, 1),
        )
        events = compose_events.changes(outcome.stderr)
        if not events and {container["Id"] for container in self._containers()} != before:
            events = [("project", request.project_name, "changed")]  # said in words that we do not know
        self._act(compose_events.sentences(events))
        if outcome.rc:
            self._fail_up(cli, config, outcome)
        if start and request.wait:
            self._wait(config)
        images = compose_images.local_images(self.engine, _references(config))
        stamp = compose_stamp.make_stamp(given, self._containers(), compose_images.image_ids(images))
        compose_stamp.write_stamp(request.project_src, stamp)
        return self._finish(config, images)

    def _fail_up(self, cli: ComposeCli, config: Mapping[str, Any], outcome: Outcome) -> None:
        if outcome.timed_out:
            verdict = f"is not up after {self.request.wait_timeout:g} s"
        else:
            verdict = f"did not start: {cli.reason(outcome).rstrip('.')}"
        waiter = self._waiter(config)
        problems = waiter.problems()
        # a service that only waits for another is no news
        problems = {name: text for name, text in problems.items() if not text.endswith(NO_NEWS)}
        raise StackError(waiter.diagnosis(problems, verdict))

    def _wait(self, config: Mapping[str, Any]) -> None:
        if not self.check_mode:
            self._waiter(config).wait(self.request.wait_timeout)

    def _waiter(self, config: Mapping[str, Any]) -> Waiter:
        def logs(service: str) -> str:
            cli = cli_for(self.request, self.request.project_src, [])
            return cli.run("logs", "--no-color", "--no-log-prefix", "--tail", "20", service, timeout=20).stdout

        return Waiter(self.engine, self.request.project_name, config["services"], logs, self.request.mask)

    def _simple(self, verb: str, word: str, *arguments: str) -> None:
        cli = cli_for(self.request, self.request.project_src, [])
        targets = [container for container in self._containers() if container["State"] != "exited" or verb == "down"]
        if verb == "restart":
            targets = [container for container in targets if service_of(container) in arguments]
        if not self.check_mode:
            outcome = cli.run(verb, *arguments)
            if outcome.rc:
                raise StackError(f"`docker compose {verb}` failed: {cli.reason(outcome)}")
        names = sorted(container["Names"][0].lstrip("/") for container in targets)
        self._act(compose_events.sentences([("container", name, word) for name in names], self.check_mode))

    def _up_flags(self) -> list[str]:
        flags = ["--remove-orphans"] if self.request.remove_orphans else []
        recreate = {"always": ["--force-recreate"], "never": ["--no-recreate"]}.get(self.request.recreate, [])
        return [*flags, *recreate, *self._stop_timeout()]

    def _stop_timeout(self) -> list[str]:
        return [] if self.request.stop_timeout is None else ["--timeout", str(self.request.stop_timeout)]

    def _look(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The engine's volumes, and the project's containers."""
        return self.engine.volumes(), self._containers()

    def _containers(self) -> list[dict[str, Any]]:
        return project_containers(self.engine, self.request.project_name)

    def _note_files(self, changes: Sequence[FileChange]) -> None:
        for change in changes:
            word = "created" if change.before is None else "changed"
            self._act([f"file {change.path} {'would be ' if self.check_mode else ''}{word}"])

    def _write(self, changes: Sequence[FileChange]) -> None:
        write_changes(self.request.project_src, changes, keep_old=not is_ours(self.request.project_src))
        self._note_files(changes)

    def _act(self, actions: Any) -> None:
        self.result.actions += actions

    def _finish(
        self,
        config: Mapping[str, Any],
        images: Mapping[str, dict[str, Any] | None] | None = None,
        containers: Sequence[Mapping[str, Any]] | None = None,
    ) -> Result:
        result = self.result
        result.changed = bool(result.actions)
        if images is None:
            images = compose_images.local_images(self.engine, _references(config)) if config else {}
        result.services = service_table(self._containers() if containers is None else containers, config, images)
        return result


def service_table(
    containers: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    images: Mapping[str, dict[str, Any] | None],
) -> dict[str, dict[str, Any]]:
    """By service: image, id, digest, and its containers with state and health."""
    table: dict[str, dict[str, Any]] = {}
    for name, service in (config.get("services") or {}).items():
        image = images.get(service.get("image") or "") or {}
        table[name] = {
            "image": service.get("image"), "image_id": image.get("id"), "digest": image.get("digest"), "containers": []
        }  # fmt: skip
    for container in containers:
        service = table.setdefault(
            service_of(container),
            {"image": container.get("Image"), "image_id": container.get("ImageID"), "digest": None, "containers": []},
        )
        service["containers"].append(
            {
                "name": container["Names"][0].lstrip("/"),
                "id": container["Id"],
                "state": container["State"],
                "health": health_of(container),
            }
        )
    return table


def _are_settled(containers: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> bool:
    """Whether the list of containers alone proves that all services work."""
    services = config["services"]
    known = [container for container in containers if service_of(container) in services]
    return all(is_settled(container, services[service_of(container)]) for container in known)


def _references(config: Mapping[str, Any]) -> list[str]:
    services = (config.get("services") or {}).values()
    return [service["image"] for service in services if service.get("image")]
