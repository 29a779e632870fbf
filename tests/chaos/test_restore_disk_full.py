# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole restores for which a disk gets full, at every step that writes: once, and for as long as it stays full."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import swap
from small_disks import SmallStack, happening, on_small_disks, sentence

FULL = "No space left on device"
MIB = 1 << 20
made = pytest.fixture(scope="module")(on_small_disks)


JOURNAL = ("journal.json cannot be written", FULL, "free space")
BACK = (*JOURNAL, "It was taken back: the data is as it was before, and omrest-store, omrest-app started on it again.")
SAFETY = ("The safety capture of what is live failed: ", "Set safety: false")
STEPS = {
    # where: (the disk, when, bytes that are left, whether there is a safety capture, what is said)
    "the place beside a path": ("place", ("journal", "fetch"), 0, False, (FULL, "make room")),
    "the fetch to a path": ("place", ("journal", "fetch"), MIB, False, ("The disk is full", "make room")),
    "the fetch into a mount point": ("disk", ("journal", "fetch"), MIB, False, ("The disk is full", "make room")),
    "the journal at the beginning": ("state", ("progress", "plan"), 0, False, JOURNAL),
    "the journal at the fetch": ("state", ("journal", "fetch"), 0, False, JOURNAL),
    "the scratch space of the checks": ("state", ("progress", "check"), 0, False, (FULL, "scratch", "make room")),
    "the journal at the safety capture": ("state", ("journal", "safety"), 0, True, JOURNAL),
    "the copy of the safety capture": ("staging", ("journal", "copy"), 0, True, (*SAFETY, FULL)),
    "the freeze of the safety capture": ("staging", ("journal", "freeze"), 0, True, (*SAFETY, FULL)),
    "the manifest of the safety capture": ("staging", ("journal", "check"), 0, True, (*SAFETY, FULL)),
    "the safety snapshot": ("repository", ("journal", "commit"), 0, True, (*SAFETY, "full", "make room")),
    "the journal at the stop": ("state", ("journal", "stop"), 0, False, JOURNAL),
    "the journal before the swap": ("state", ("journal", "swapping"), 0, False, JOURNAL),
    "the journal at the start": ("state", ("journal", "start"), 0, False, BACK),
    "the journal at the health": ("state", ("journal", "health"), 0, False, BACK),
    "the journal at the end": ("state", ("journal", "accepted"), 0, False, BACK),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_disk_is_full(small: SmallStack, snapshot: dict[str, Any], step: str) -> None:
    """Really, from one step on: that run and each after it fails, until there is room again."""
    name, hook, leave, safety, words = STEPS[step]
    asked = {"safety": safety, "staging_dir": str(small.disks["staging"].place)}
    disk, live = small.disks[name], small.trees()
    with happening(hook, lambda: disk.fill(leave)) as progress:
        sentence(lambda: small.restore(progress, **asked), *words)
    small.assert_untouched(live)
    assert not list(small.disks["staging"].place.glob("*/staging"))  # a safety capture that failed leaves no copy
    again = []
    for _run in range(2):
        disk.fill(leave)
        again.append(sentence(lambda: small.restore(**asked)))
        small.assert_untouched(live)
    assert again[0] == again[1]
    disk.empty()
    small.assert_restores(snapshot, **asked)


def test_a_disk_that_is_full_once_the_swap_is_recorded_is_no_fault(small: SmallStack, snapshot: dict[str, Any]) -> None:
    """Renames need no room, and what the end has to write has got its own."""
    disk = small.disks["disk"]
    with happening(("journal", "swapping"), disk.fill) as progress:
        small.restore(progress)
    small.assert_untouched(snapshot)


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_rename_is_refused(
    small: SmallStack, snapshot: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, done, rename = small.trees(), [], swap._rename

    def refuse(source: str, target: str) -> None:
        done.append(source)
        if len(done) == number:
            raise OSError(errno.ENOSPC, FULL, source)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(swap, "_rename", refuse)
        sentence(small.restore, "could not be swapped in", FULL, "It was taken back", "started on it again")
    small.assert_untouched(live)
    small.assert_restores(snapshot)
