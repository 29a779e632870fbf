# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our retention keeps what restic's own rules keep: compared with its dry run, in both versions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep, to_remove

NEWEST = datetime(2026, 3, 31, 23, 30, tzinfo=UTC)
HOURS_AGO = [0, 1, 1.2, 5, 23.4, 23.6, 47, 48, 80, 160, 168, 169, 700, 744, 800, 1500, 2300, 8700, 8800, 17600, 26400]
POLICIES: list[dict[str, Any]] = [
    {"last": 4},
    {"hourly": 5},
    {"daily": 4, "hourly": 2},
    {"weekly": 3},
    {"monthly": 3, "last": 2},
    {"yearly": 2},
    {"yearly": 9},
    {"monthly": 999},
    {"within": "2d"},
    {"within": "1m"},
    {"within": "1y2m3d4h", "yearly": 2},
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("omrepo")
    ensure_password(str(home / "password"))
    restic = Restic(str(home / "repository"), str(home / "password"), {"TZ": "UTC"}, str(home / "cache"))
    Repository(restic).init()
    for hours in HOURS_AGO:
        time = (NEWEST - timedelta(hours=hours)).strftime("%Y-%m-%d %H:%M:%S")
        tags = "openmemory-stack,project=p"
        restic.call("backup", "--tag", tags, "--time", time, "password", cwd=str(home), doing="fill")
    return home


def test_as_restic_does(filled: Path, restic_command: str) -> None:
    home = filled
    restic = Restic(
        str(home / "repository"), str(home / "password"), {"TZ": "UTC"}, str(home / "cache"), command=restic_command
    )
    snapshots = Repository(restic).snapshots("p")
    assert len(snapshots) == len(HOURS_AGO)
    for policy in POLICIES:
        options = [word for name, value in policy.items() for word in (f"--keep-{name}", str(value))]
        said = restic.call("forget", "--dry-run", "--json", "--group-by", "", *options, doing="ask").json()
        theirs = {each["id"] for each in said[0]["remove"] or []}
        ours = {each.id for each in to_remove(snapshots, Keep(**policy), NEWEST)}
        oldest = snapshots[0].id
        # restic 0.14 does not yet let the oldest one stand in for what is not there.
        assert ours in (theirs, theirs - {oldest}), policy
        assert ours == theirs or restic.version() < (0, 18), policy
