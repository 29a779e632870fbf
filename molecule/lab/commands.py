"""Run other programs and turn their failures into one sentence."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .errors import LabError


def run(argv: Sequence[str], *, stdin: bytes = b"", check: bool = True) -> str:
    """Run a program to its end.

    Args:
        argv: the program and its arguments.
        stdin: what it reads; nothing by default.
        check: raise when it fails; otherwise a failure yields an empty string.

    Returns:
        What it wrote on standard output, without surrounding white space.

    Raises:
        LabError: the program is missing, or it failed and ``check`` is set.
    """
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    except FileNotFoundError as missing:
        raise LabError(f"The program {argv[0]} is not installed; install it and run the lab again.") from missing
    if done.returncode == 0:
        return done.stdout.decode(errors="replace").strip()
    if check:
        raise LabError(f"'{' '.join(argv[:3])}' failed with {done.returncode}: {reason(done.stderr)}.")
    return ""


def docker(*arguments: str, stdin: bytes = b"", check: bool = True) -> str:
    """Run the Docker CLI; see :func:`run`."""
    return run(["docker", *arguments], stdin=stdin, check=check)


def reason(output: bytes) -> str:
    """The line that says why: Docker's answer if there is one, else the last, which is where programs put it."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    answers = [line for line in lines if line.startswith("Error response from daemon: ")]
    return (answers or lines or ["it gave no reason"])[-1].removeprefix("Error response from daemon: ").rstrip(".")
