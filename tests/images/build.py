"""Build the reference images and push them to the lab's registry.

    python tests/images/build.py --registry HOST:PORT     build what is missing, push what the registry lacks
    python tests/images/build.py                          build only

Every image is tagged locally as omlab/NAME:HASH of what it is made from, so a second run finds everything there and
does nothing. Docker 20.10 and its classic builder are enough.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import hashlib
import inspect
import json
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import fetch

HERE = Path(__file__).resolve().parent
WORK = HERE.parent.parent / "build" / "images"
VERSIONS: dict[str, Any] = json.loads((HERE / "versions.json").read_text(encoding="utf-8"))
PYTHON = {"bookworm": "3.11"}[VERSIONS["debian"]]


class Image(NamedTuple):
    """One reference image: `name:tag` as users know it, `folder` beside this file, `base` it stands on."""

    name: str
    tag: str
    folder: str
    base: str

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.tag}"


IMAGES = [
    Image("neo4j", VERSIONS["neo4j"], "neo4j", "jre"),
    *[Image("qdrant/qdrant", tag, "qdrant", "python") for tag in (VERSIONS["qdrant"], *VERSIONS["qdrant_later"])],
    *[Image("mem0/openmemory-mcp", tag, "openmemory_mcp", "python") for tag in VERSIONS["openmemory_mcp"]],
]

# What the role deploys where no tag is set; as in any registry, a second name of a version.
LATEST_IS = next(image for image in IMAGES if image.tag == VERSIONS["openmemory_mcp_latest"])
LATEST = LATEST_IS._replace(tag="latest")


def digest_of(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def content_of(folder: Path) -> str:
    """A digest over the names, modes and bytes of all files of a folder."""
    seen = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            mode = "x" if path.stat().st_mode & 0o100 else "-"
            seen.append(f"{path.relative_to(folder)} {mode} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return digest_of(*seen)


def local_tags() -> dict[str, str]:
    """The tag under which each part is kept in the local engine: base, python, jre, and each reference image."""
    recipe = (inspect.getsource(fetch.root_files), str(fetch.TREES), str(fetch.DROP), *DOCKERFILES.values())
    base = digest_of(VERSIONS["debian"], *recipe)
    tags = {part: f"omlab/{part}:{base}" for part in ("base", *DOCKERFILES)}
    for image in IMAGES:
        pins = VERSIONS["maven_dependency_plugin"] if image.folder == "neo4j" else ""
        made_of = digest_of(tags[image.base], image.reference, pins, content_of(HERE / image.folder))
        tags[image.reference] = f"omlab/{image.name.rsplit('/', 1)[-1]}:{image.tag}-{made_of}"
    return tags


DOCKERFILES = {
    # Debian compiles its modules when it installs them: else every start of a container does
    "python": "FROM {base}\nCOPY python/ /\nRUN python3 -m compileall -q /usr/lib/python3.*/\n",
    "jre": "FROM {base}\nCOPY java/ /\n"
    "RUN ln -s /usr/lib/jvm/java-17-openjdk-*/bin/java /usr/bin/java && java -Xshare:dump > /dev/null\n",
}


def docker(*arguments: str, what: str) -> str:
    return fetch.run(["docker", *arguments], what)


def say(text: str) -> None:
    print(f"images: {text}", flush=True)


def known_images() -> dict[str, str]:
    """Local image IDs by reference."""
    listed = docker(
        "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", what="ask Docker for its images"
    )
    return dict(line.split(" ", 1) for line in listed.splitlines())


def build_bases(tags: dict[str, str], work: Path) -> None:
    """The minimal Debian and, on top of it, one image with Python and one with Java."""
    say(f"minimal Debian {VERSIONS['debian']}, Python and Java")
    tar = fetch.root_files(VERSIONS["debian"], work)
    docker("import", str(tar), tags["base"], what="import the base image")
    for part, text in DOCKERFILES.items():
        tree = {"python": "python", "jre": "java"}[part]
        context = work / f"context-{part}"
        context.mkdir()
        (work / tree).rename(context / tree)
        (context / "Dockerfile").write_text(text.format(base=tags["base"]), encoding="utf-8")
        docker("build", "--quiet", "--tag", tags[part], str(context), what=f"build the image with {part}")


def build_folder(images: list[Image], tags: dict[str, str], work: Path) -> None:
    """Build the images of one folder, which differ in their tag only, from one context."""
    started = time.monotonic()
    folder = images[0].folder
    context = work / folder
    shutil.copytree(HERE / folder, context, ignore=shutil.ignore_patterns("__pycache__"))
    if folder == "neo4j":
        fetch.neo4j_jars(images[0].tag, VERSIONS["maven_dependency_plugin"], context / "lib")
    else:
        architecture = docker("version", "--format", "{{.Server.Arch}}", what="ask Docker for its architecture").strip()
        fetch.wheels(context / "requirements.txt", PYTHON, architecture, context / "site")
    for image in images:
        arguments = ["--build-arg", f"BASE={tags[image.base]}", "--build-arg", f"VERSION={image.tag}"]
        tag = tags[image.reference]
        docker("build", "--quiet", *arguments, "--tag", tag, str(context), what=f"build {image.reference}")
        say(f"{image.reference} built, {time.monotonic() - started:.0f} s after its start")


def build_missing(tags: dict[str, str]) -> None:
    known = known_images()
    if all(tags[image.reference] in known for image in IMAGES):
        return
    WORK.mkdir(parents=True, exist_ok=True)
    # One build at a time on a machine, also of two checkouts: they share the engine and its tags.
    lock_file = Path(tempfile.gettempdir()) / "omlab-images.lock"
    with open(lock_file, "a", encoding="utf-8") as lock, tempfile.TemporaryDirectory(dir=WORK) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        work = Path(scratch)
        work.chmod(0o755)
        known = known_images()
        if any(tags[part] not in known for part in ("base", *DOCKERFILES)):
            build_bases(tags, work)
        folders: dict[str, list[Image]] = {}
        for image in IMAGES:
            if tags[image.reference] not in known:
                folders.setdefault(image.folder, []).append(image)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(build_folder, images, tags, work) for images in folders.values()]:
                done.result()


def registry_has(registry: str, image: Image) -> str | None:
    """The image ID that the registry holds under this name and tag, or None."""
    request = urllib.request.Request(
        f"http://{registry}/v2/{image.name}/manifests/{image.tag}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=10) as answer:
            return str(json.load(answer)["config"]["digest"])
    except urllib.error.HTTPError as failure:
        if failure.code == 404:
            return None
        raise fetch.FetchError(f"the registry {registry} answers {failure.code} for {image.reference}") from failure
    except OSError as failure:
        raise fetch.FetchError(f"the registry {registry} cannot be reached: {failure}") from failure


def push(registry: str, image: Image, local: str) -> None:
    remote = f"{registry}/{image.reference}"
    docker("tag", local, remote, what=f"name {image.reference} for the registry")
    try:
        docker(
            "push", "--quiet", remote, what=f"push {image.reference} (is {registry} an insecure registry for Docker?)"
        )
    finally:
        docker("rmi", remote, what=f"drop the registry's name of {image.reference}")


def build_all(registry: str | None = None) -> dict[str, str]:
    """Build what is missing and, with a registry (HOST:PORT, plain HTTP), push what it lacks.

    Returns the local tag of each image by its public reference. Raises fetch.FetchError with one sentence.
    """
    tags = local_tags()
    build_missing(tags)
    if registry:
        known = known_images()
        published = {image: tags[image.reference] for image in IMAGES}
        published[LATEST] = tags[LATEST_IS.reference]
        for image, local in published.items():
            if registry_has(registry, image) != known[local]:
                push(registry, image, local)
                say(f"{image.reference} pushed to {registry}")
    return {image.reference: tags[image.reference] for image in IMAGES}


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the reference images and push what the registry lacks.")
    parser.add_argument("--registry", metavar="HOST:PORT", help="registry to push to (plain HTTP)")
    options = parser.parse_args()
    try:
        for reference, local in build_all(options.registry).items():
            print(f"{reference} {local}")
    except fetch.FetchError as failure:
        print(f"images: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
