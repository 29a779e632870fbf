# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration sends equals a plain copy taken inside the same freeze, byte for byte, from pass to pass."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.durable import Flush
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import transfer
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.arrival import RSYNCD
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.ledger import Batch, Ledger
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.transfer import send, sweep
from test_byte_truth import KINDS, QUIET_S, ROUNDS, Scene, disks, scene

__all__ = ["disks"]  # a fixture

QUICK_S = 1.0  # of silence, after which a live pass is ended: rsync waits for ever to open what has become a pipe


class Sender:
    """A ledger of a scene's source, and rsync's daemon for its copy, as the target has it.

    live_s: the silence that ends a live pass. In a freeze nothing becomes a pipe, and a busy machine is silent too.
    """

    def __init__(self, stage: Scene, live_s: float = transfer.STALLED_S):
        self.stage = stage
        self.live_s = live_s
        self.ledger = Ledger(str(stage.source))
        stage.target.mkdir(parents=True)
        conf, shell = stage.root / "rsyncd.conf", stage.root / "shell"
        conf.write_text(f"{RSYNCD}[data]\npath = {stage.target}\n")
        shell.write_text(f"#!/bin/sh\nexec rsync --server --daemon --config={conf} .\n")
        shell.chmod(0o755)
        self.shell = [str(shell)]

    def send(self, frozen: bool) -> Batch:
        batch = self.ledger.batch(frozen)
        if batch.paths:
            with pytest.MonkeyPatch.context() as patch:
                if not frozen:
                    patch.setattr(transfer, "STALLED_S", self.live_s)
                whole = send(batch, self.ledger.source, "data", self.shell, frozen=frozen)
            self.ledger.sent(batch, whole)
        if frozen:
            sweep(self.ledger.source, "data", self.shell)
        return batch

    def move(self) -> Batch:
        """Passes while all write, the last one in a freeze, and the truth by cp inside the same freeze."""
        self.send(frozen=False)
        time.sleep(random.random() * 0.2)
        with self.stage.frozen():
            batch = self.send(frozen=True)
            shutil.rmtree(self.stage.truth, ignore_errors=True)
            subprocess.run(["cp", "-a", "--sparse=always", self.stage.source, self.stage.truth], check=True)
        return batch


@pytest.mark.parametrize("disk", ["ext4", "xfs"])
def test_what_has_been_sent_is_the_truth(disks: dict[str, Path], disk: str) -> None:
    with scene(disks[disk], disks["ext4"]) as stage:
        (stage.source / "still").write_bytes(b"nobody writes to this one")
        sender = Sender(stage, QUICK_S)
        stage.start(*KINDS)
        batches = []
        for number in range(ROUNDS):
            batches.append(sender.move())
            assert stage.wrong() == {}, number
            time.sleep(random.random() * 0.2 + (QUIET_S if number % 3 == 2 else 0))
        assert "still" not in batches[-1].paths, "nothing was ever skipped"


@pytest.mark.parametrize("disk", ["ext4", "xfs"])
def test_times_alone_would_miss_stores(disks: dict[str, Path], disk: str, monkeypatch: Any) -> None:
    """The same test fails when times are believed as they are."""
    monkeypatch.setattr(Flush, "covers", lambda flush, about: True)
    with scene(disks[disk], disks["ext4"]) as stage:
        sender = Sender(stage)
        stage.start("store")
        wrong: dict[str, Any] = {}
        for _round in range(20):
            sender.move()
            wrong = stage.wrong()
            if wrong:
                break
    assert wrong
    assert all(path.startswith("mapped-") for path in wrong)


def test_names_that_become_anything_stop_no_live_pass(disks: dict[str, Path]) -> None:
    """Also a file that is a pipe when rsync opens it, which would wait for ever."""
    with scene(disks["ext4"], disks["ext4"]) as stage:
        sender = Sender(stage, QUICK_S)
        stage.start("names", "names")
        end = time.monotonic() + 6
        while time.monotonic() < end:
            sender.send(frozen=False)
        sender.move()
        assert stage.wrong() == {}


def test_a_disk_that_is_full_is_said(disks: dict[str, Path], tmp_path: Path) -> None:
    with scene(disks["ext4"], disks["ext4"]) as stage:
        sender = Sender(stage)
        with open(stage.source / "big", "wb") as file:
            for _megabyte in range(250):
                file.write(random.randbytes(1 << 20))
        with pytest.raises(StackError, match=r"could not be sent: .*No space left on device"):
            sender.send(frozen=False)
