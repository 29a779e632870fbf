"""What the reference images are made of, fetched on this machine with its own apt, pip and Maven.

Doing so outside of the image builds means that mirrors, proxies and certificate authorities configured here apply.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Packages of each file tree. `keep` names the only ones to unpack: the rest of Java's serve printing and sound.
TREES = {
    "python": ("python3", ()),
    "java": ("openjdk-17-jre-headless wget", ("openjdk-17-jre-headless", "wget", "libpsl5")),
}
DROP = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/info", "usr/share/bug")
WHEELS = {
    "amd64": ("manylinux_2_28_x86_64", "manylinux2014_x86_64"),
    "arm64": ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
}


class FetchError(Exception):
    """One sentence for the user about something that could not be fetched."""


def run(command: list[str], what: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return its output; raise FetchError with its reason if it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is needed to {what}; install it (apt-get install {command[0]})") from None
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip("\x1b[0m ")]
        # Maven says its reason first and then much about itself; others say it last.
        tail = "\n".join([line for line in lines if "[ERROR]" in line][:1] or lines[-8:])
        raise FetchError(f"could not {what}: {command[0]} ended with {done.returncode}:\n{tail}")
    return done.stdout


def root_files(suite: str, work: Path) -> Path:
    """A minimal Debian as `base.tar` in `work`, and beside it the file trees `python/` and `java/` to lay over it."""
    hook = work / "trees.sh"
    lines = ["set -eu"]
    for name, (packages, keep) in TREES.items():
        debs = work / f"debs-{name}"
        (debs / "partial").mkdir(parents=True)
        install = (
            f"install --yes -qq --no-install-recommends --download-only -o Dir::Cache::archives={debs}/ {packages}"
        )
        lines.append(f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get {install}')
        chosen = " ".join(f"{debs}/{package}_*.deb" for package in keep) or f"{debs}/*.deb"
        lines.append(f"mkdir -p {work}/{name}/usr/lib {work}/{name}/usr/bin {work}/{name}/usr/sbin")
        # The base has /lib, /bin and /sbin as links into /usr; the trees must not bring directories of these names.
        lines.append(f"for d in lib bin sbin; do ln -s usr/$d {work}/{name}/$d; done")
        unpack = f'dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C {work}/{name}'
        lines.append(f"for deb in {chosen}; do {unpack}; done")
        lines.append(f"rm -f {work}/{name}/lib {work}/{name}/bin {work}/{name}/sbin")
    hook.write_text("\n".join(lines) + "\n")
    excludes = [f"--dpkgopt=path-exclude=/{path}/*" for path in DROP]
    run(
        ["mmdebstrap", "--variant=minbase", *excludes, f"--customize-hook=sh {hook}", suite, str(work / "base.tar")],
        f"make a minimal Debian {suite}",
    )
    for name in TREES:
        for path in DROP:
            shutil.rmtree(work / name / path, ignore_errors=True)
    return work / "base.tar"


def neo4j_jars(version: str, plugin: str, target: Path) -> None:
    """Neo4j's server and its runtime dependencies into `target`, by Maven (installed here first if missing)."""
    if shutil.which("mvn") is None:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise FetchError("Maven is needed to fetch Neo4j; install it (apt-get install maven)")
        quiet = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        run(["apt-get", "install", "--yes", "-qq", "--no-install-recommends", "maven"], "install Maven", env=quiet)
    command = ["mvn", "-q", "-B", "-f", str(HERE / "neo4j" / "pom.xml"), f"-Dneo4j.version={version}"]
    command += [f"org.apache.maven.plugins:maven-dependency-plugin:{plugin}:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    run(command, f"fetch Neo4j {version} from Maven Central")


def wheels(requirements: Path, python: str, architecture: str, target: Path) -> None:
    """The pinned and hashed wheels of `requirements` unpacked into `target`, for the Python of the images."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-compile"]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    command += [option for name in WHEELS[architecture] for option in ("--platform", name)]
    command += ["--target", str(target), "--requirement", str(requirements)]
    run(command, f"fetch the packages of {requirements.parent.name}/{requirements.name}")
    shutil.rmtree(target / "bin", ignore_errors=True)
