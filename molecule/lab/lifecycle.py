"""The lab as a whole: up, down and status."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from . import engine, hosts, inventory, machine, ports, registry
from .commands import docker
from .containers import Container, available_capabilities, cgroup_version, lab_containers
from .plan import PREFIX, Host, plan
from .recipes import recipe
from .rootfs import ensure_image

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "lab"
MOLECULE_STATE = FOLDER / "molecule_state"


def say(text: str) -> None:
    """Tell the user about a step."""
    print(f"lab: {text}", flush=True)


@contextmanager
def locked() -> Iterator[None]:
    """Let one change of the lab wait for another that is under way."""
    path = FOLDER / ".lock"
    while True:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # 'down' removes the file that others wait on; they start over with a new one.
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                yield
                return


def up(number: int, bare: Sequence[str], *, temporary: bool = False, twins: bool = False) -> None:
    """Bring up the hosts that were asked for, the registry and the reference images; existing ones stay as they are.

    With ``temporary`` the hosts that this call creates are marked for a later ``down`` with the same option.

    Raises:
        LabError: bad arguments, or something that the lab needs is missing; the message says what.
    """
    begun = time.monotonic()
    wanted = plan(number, bare, temporary=temporary, twins=twins)
    with locked():
        engine.ensure_engine(say)
        existing = _existing()
        if not all(host.container in existing for host in wanted):
            engine.require_room()
        images = {recipe(host.release, bare=host.bare) for host in wanted} | {recipe("bookworm", bare=False)}
        for one in sorted(images, key=lambda item: item.image):
            ensure_image(one, say)
        address, registry_port = registry.ensure_registry(recipe("bookworm", bare=False).image, existing)
        pull = f"{address}:{registry_port}"
        with ThreadPoolExecutor(max_workers=8) as pool:
            filling = pool.submit(registry.fill, ROOT, registry_port, say)
            _start_hosts(wanted, existing, pull, pool)
            filling.result()
        running = [item for item in lab_containers() if item.role != "registry" and item.running]
        inventory.write(FOLDER, running, pull)
        _settle_molecule_state()
    names = ", ".join(item.host for item in running)
    say(f"{names} are up after {time.monotonic() - begun:.0f} s; inventory: {FOLDER.relative_to(ROOT)}/inventory.yml")


def _existing() -> dict[str, Container]:
    found = {container.name: container for container in lab_containers()}
    for name in [name for name, container in found.items() if container.unfinished]:
        docker("rm", "--force", name)  # left by an interrupted start
        del found[name]
    return found


def _start_hosts(wanted: list[Host], existing: dict[str, Container], pull: str, pool: ThreadPoolExecutor) -> None:
    missing = [host for host in wanted if host.container not in existing]
    port = ports.choose("SSH", [host.address for host in missing], ports.SSH) if missing else 0
    files = _host_files(pull) if missing else {}
    cgroup, capabilities = cgroup_version(), available_capabilities()

    def bring_up(host: Host) -> None:
        known = existing.get(host.container)
        begun = time.monotonic()
        if known is None:
            image = recipe(host.release, bare=host.bare).image
            hosts.create(host, hosts.create_argv(host, image, port, cgroup, capabilities), files)
        elif known.image != recipe(known.release, bare=host.bare).image:
            say(f"{host.name} still runs an older image; 'lab down' and 'lab up' renew it")
        if known is None or not known.running:
            docker("start", host.container)
        hosts.await_ready(host.container, host.address, known.port if known else port, not host.bare)
        if known is None or not known.running:
            docker("exec", host.container, "update-ca-certificates")  # the machine's own certificates, if it has any
            kind = f"{host.release}{', without Docker' if host.bare else ''}"
            say(f"{host.name} ({kind}) is up after {time.monotonic() - begun:.0f} s")

    for started in [pool.submit(bring_up, host) for host in wanted]:
        started.result()


def _host_files(pull: str) -> dict[str, str]:
    files = machine.settings()
    files["/root/.ssh/authorized_keys"] = inventory.ensure_key(FOLDER)
    files["/etc/docker/daemon.json"] = json.dumps({"insecure-registries": [pull]}) + "\n"
    return files


def down(*, cache: bool = False, temporary: bool = False) -> None:
    """Remove hosts, registry and inventory; the images and the registry's storage stay unless ``cache`` is set.

    With ``temporary`` only temporary hosts go; the rest follows when no other host is left.
    """
    with locked():
        if not engine.answers():
            say("no Docker engine answers, so there is nothing to remove")
            return
        everything = lab_containers()
        found = [item for item in everything if item.role != "registry"]
        staying = [item for item in found if temporary and not item.temporary]
        for container in found:
            if container not in staying:
                hosts.remove(container.name)
                say(f"{container.host} removed")
        if staying:
            pull = next((f"{item.address}:{item.port}" for item in everything if item.role == "registry"), "")
            inventory.write(FOLDER, [item for item in staying if item.running], pull)
            say(f"{', '.join(item.host for item in staying)} were up before and stay")
            return
        registry.remove(cache=cache)
        _settle_molecule_state()
        _tell_or_remove_images(cache)
        shutil.rmtree(FOLDER)


def _tell_or_remove_images(cache: bool) -> None:
    images = _cached_images()
    for image in images if cache else ():
        docker("image", "rm", image)
    if images:
        fate = "removed" if cache else "stay for the next start ('lab down --cache' removes them)"
        say(f"{len(images)} cached images {fate}")


def _settle_molecule_state() -> None:
    """Under Molecule note where it keeps its state; otherwise make it create and prepare afresh at its next run."""
    noted = os.environ.get("MOLECULE_STATE_FILE")
    if noted and FOLDER in Path(noted).parents:
        return  # it goes with the folder
    if noted:
        MOLECULE_STATE.write_text(noted)
    elif MOLECULE_STATE.exists():
        Path(MOLECULE_STATE.read_text()).unlink(missing_ok=True)


def _cached_images() -> list[str]:
    tags = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"{PREFIX}/*").split()
    pushed = docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    return tags + [tag for tag in pushed if tag.startswith(f"{registry.PUSH_ADDRESS}:")]


def status() -> None:
    """Print one line for each container of the lab."""
    if not engine.answers():
        say("no Docker engine answers, so no lab is up")
        return
    found = lab_containers()
    if not found:
        say("no lab is up")
    for container in found:
        state = "up" if container.running else "stopped"
        place = f"{container.address}:{container.port}"
        print(f"{container.host:<10} {container.role:<9} {container.release:<9} {state:<8} {place}")
