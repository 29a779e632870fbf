# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The set-up script says in one sentence why it cannot go on, and has then changed nothing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = "bash dirname awk cut sha256sum mkdir grep rm cat sort head tail seq sleep ln"
OLD_PYTHON = 'case "$1" in -V) echo Python 3.9.2 ;; *) exit 1 ;; esac'
NEW_PYTHON = "exit 0"
DF = "echo head; echo dev 99999 9 {0} 1% /"

CASES = {
    "not root": (
        "all",
        {"id": '[ "$1" = -u ] && echo 1000 || echo alice', "python3": NEW_PYTHON},
        "This needs root (it installs packages, starts Docker and builds hosts for the lab), and you are alice",
    ),
    "no room for the lab": (
        "all",
        {"id": "echo 0", "df": DF.format(512), "python3": NEW_PYTHON},
        "Not enough room in . for the lab (Python environment, root file systems, images): needed 12000 MB, found 512",
    ),
    "no room for Python": (
        "python",
        {"id": "echo 1000", "df": DF.format(64), "python3": NEW_PYTHON},
        "Not enough room in . for the Python environment: needed 2000 MB, found 64 MB",
    ),
    "old Python": (
        "python",
        {"id": "echo 0", "df": DF.format(99999), "python3": OLD_PYTHON},
        "No Python 3.11 or newer found (Python 3.9.2)",
    ),
    "no Python": (
        "python",
        {"id": "echo 0", "df": DF.format(99999)},
        "No Python 3.11 or newer found (no python3 at all)",
    ),
    "no Docker, no apt": (
        "docker-only",
        {"id": "echo 0", "df": DF.format(99999), "python3": NEW_PYTHON},
        "Docker is not installed and there is no apt to install it with",
    ),
    "nothing but Docker, no apt": (
        "docker-only",
        {"id": "echo 0", "df": DF.format(99999), "python3": NEW_PYTHON, "docker": "exit 0"},
        "There is no apt to install git ",
    ),
    "unknown part": ("everything", {"id": "echo 0"}, "Unknown part 'everything'"),
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository that holds just the set-up script, and a PATH with the plain tools only."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(REPOSITORY / "tests" / "setup.sh", tmp_path / "tests")
    (tmp_path / "requirements.txt").write_text("one==1\n")
    for tool in TOOLS.split():
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_one_sentence(clone: Path, case: str) -> None:
    part, commands, sentence = CASES[case]
    for name, script in commands.items():
        (clone / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (clone / "bin" / name).chmod(0o755)
    if part == "docker-only":  # as after an earlier run of `make lint`
        part = "all"
        (clone / ".venv").mkdir()
        lock = hashlib.sha256(b"one==1\n").hexdigest()
        (clone / ".venv" / "stamp").write_text(f"{lock} {clone}/bin/python3\n")
    before = {path for path in clone.rglob("*") if ".collections" not in path.parts}
    command = [str(clone / "bin" / "bash"), "tests/setup.sh", part]
    done = subprocess.run(
        command, cwd=clone, env={"PATH": f"{clone}/bin"}, capture_output=True, text=True, check=False, timeout=60
    )
    said = done.stderr.strip().splitlines()
    assert (done.returncode, len(said)) == (1, 1), done.stdout + done.stderr
    assert said[0].startswith(f"setup: {sentence}"), said[0]
    assert {path for path in clone.rglob("*") if ".collections" not in path.parts} == before
