# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests that break things share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from cheap_key import made_cheap
from restore_stack import image, made, snapshot, stack
from small_disks import small

__all__ = ["image", "made", "small", "snapshot", "stack"]  # fixtures

Repository.init = made_cheap(Repository.init)
LAB = Path(__file__).resolve().parents[2] / "build" / "lab"
NEWER_HOST = "127.0.1.2"  # lab2: the newer of the two Debians


@pytest.fixture(scope="session")
def newer_restic(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The restic of the lab's newer host, to run here: it needs the C library only."""
    place = tmp_path_factory.mktemp("newer") / "restic"
    options = ("-i", str(LAB / "id_ed25519"), "-o", f"UserKnownHostsFile={LAB / 'known_hosts'}", "-o", "BatchMode=yes")
    with place.open("wb") as out:
        subprocess.run(["ssh", *options, f"root@{NEWER_HOST}", "cat /usr/bin/restic"], stdout=out, check=True)
    place.chmod(0o755)
    return str(place)


@pytest.fixture(params=["own", "newer"])
def restic_command(request: pytest.FixtureRequest) -> str:
    """restic as it is on this machine, then the newer one."""
    return "restic" if request.param == "own" else str(request.getfixturevalue("newer_restic"))
