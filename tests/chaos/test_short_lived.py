# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that comes and goes within the freeze, as docker run --rm does, on the real engine."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror, PassReport
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from restore_stack import IMAGE, PROJECT, Stack

VISIT = ["docker", "run", "--rm", "--network=none", f"--name={PROJECT}-visitor"]


@pytest.mark.parametrize(
    ("mount", "refused"),
    [
        (f"{PROJECT}_data:/x", True),
        (f"{PROJECT}_place:/x", True),
        (f"{PROJECT}_data:/x:ro", False),
        ("", False),
    ],
)
def test_it_is_seen_though_nothing_of_it_is_left(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, mount: str, refused: bool
) -> None:
    copy = Mirror.frozen_pass
    visited: list[object] = []

    def frozen_pass(self: Mirror, timeout: float) -> PassReport:
        if not visited:
            options = ["--volume", mount] if mount else []
            visited.append(subprocess.run([*VISIT, *options, IMAGE, "/bin/sleep", "0"], check=True))
        return copy(self, timeout)

    monkeypatch.setattr(Mirror, "frozen_pass", frozen_pass)
    if refused:
        with pytest.raises(StackError, match=f"Container {PROJECT}-visitor was started on the volume"):
            stack.backup()
    else:
        assert stack.backup()
    assert visited
    assert stack.running() == ["omrest-app", "omrest-store"]
