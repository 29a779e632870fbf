# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process that keeps changing a directory: writer.py KIND DIRECTORY SECONDS SEED. It ends by itself.

Kinds: `write` (write(), append, truncate, holes, preallocation), `store` (shared mmaps, mostly to pages that are dirty
already), `names` (files and directories that appear, vanish, are renamed, exchanged, linked, or change their kind).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

PAGE = 4096
LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2
RESTING, TURN_S = 6, 0.7
KEEP_SIZE, PUNCH_HOLE = 1, 2


def write(root: Path, dice: random.Random) -> Callable[[], None]:
    """Blocks, appended lines, cuts, holes dug into files and space allocated ahead."""
    files = [os.open(root / f"written-{number}", os.O_RDWR | os.O_CREAT, 0o640) for number in range(12)]

    def step() -> None:
        file = dice.choice(files)
        place = dice.randrange(256) * PAGE
        match dice.randrange(9):
            case 0:
                os.ftruncate(file, dice.randrange(1 << 20))
            case 1:
                os.posix_fallocate(file, place, 16 * PAGE)
            case 2:
                LIBC.fallocate(file, KEEP_SIZE, ctypes.c_longlong(place), ctypes.c_longlong(64 * PAGE))
            case 3:
                LIBC.fallocate(file, KEEP_SIZE | PUNCH_HOLE, ctypes.c_longlong(place), ctypes.c_longlong(8 * PAGE))
            case 4:
                os.pwrite(file, dice.randbytes(dice.randrange(200)), os.fstat(file).st_size)
            case _:
                os.pwrite(file, dice.randbytes(dice.randrange(1, 3 * PAGE)), place + dice.randrange(PAGE))

    return step


def store(root: Path, dice: random.Random) -> Callable[[], None]:
    """Stores through shared mmaps: to one page of three files all the time, and to others that rest in between."""
    maps = []
    resting = [(f"mapped-resting-{number}", 1 << 17) for number in range(RESTING)]
    for name, size in (("mapped-allocated", 1 << 20), ("mapped-sparse", 64 << 20), ("mapped-full", 1 << 20), *resting):
        file = os.open(root / name, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(file, size)
        if name.endswith("allocated"):
            os.posix_fallocate(file, 0, size)
        if name.endswith("full"):
            os.pwrite(file, dice.randbytes(size), 0)
        maps.append(mmap.mmap(file, size))

    def step() -> None:
        awake = maps[3 + int(time.monotonic() / TURN_S) % RESTING]
        for memory in (*maps[:3], awake):
            memory[8:16] = dice.randbytes(8)
        memory = dice.choice(maps[:3])
        if not dice.randrange(20):
            place = dice.randrange(len(memory) // PAGE) * PAGE
            memory[place : place + 8] = dice.randbytes(8)

    return step


def names(root: Path, dice: random.Random) -> Callable[[], None]:
    """A forest of small directories in which every name may become anything."""

    def anything() -> Path:
        return root.joinpath(*(f"d{dice.randrange(3)}" for level in range(dice.randrange(3))), f"n{dice.randrange(6)}")

    def drop(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def step() -> None:
        path, other = anything(), anything()
        path.parent.mkdir(parents=True, exist_ok=True)
        match dice.randrange(14):
            case 0 | 1 | 2 | 3:
                # not blocking: the name may be a pipe by now, and nobody reads from it
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
                with open(file, "wb") as content:
                    content.write(dice.randbytes(dice.randrange(20000)))
            case 4:
                drop(path)
            case 5:
                os.replace(path, other)
            case 6:
                first, second = (os.fsencode(root / f"d{dice.randrange(3)}") for side in range(2))
                LIBC.renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)
            case 7:
                os.link(path, other)
            case 8:
                drop(path)
                link = partial(path.symlink_to, f"to{dice.randrange(99)}")
                makers: list[Callable[[], None]] = [link, partial(os.mkfifo, path), path.mkdir]
                dice.choice(makers)()
            case 9:
                os.chmod(path, dice.choice([0o600, 0o4711, 0o1755, 0o2640]), follow_symlinks=False)
            case 10:
                os.setxattr(path, f"user.x{dice.randrange(3)}", dice.randbytes(4))
            case 11:
                os.chown(path, dice.randrange(3), dice.randrange(3), follow_symlinks=False)
            case 12:
                os.rename(root / f"d{dice.randrange(3)}", root / f"moved{dice.randrange(3)}")
            case 13:
                drop(root / f"moved{dice.randrange(3)}")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / f"socket-{dice.randrange(1 << 30)}"))
    return step


def main(kind: str, directory: str, seconds: str, seed: str) -> None:
    dice = random.Random(seed)
    root = Path(directory)
    step = {"write": write, "store": store, "names": names}[kind](root, dice)
    print("ready", flush=True)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        with suppress(OSError, NotImplementedError):  # a name that is something else by now
            step()
        time.sleep(dice.choice([0, 0, 0, 0.001]))


if __name__ == "__main__":
    main(*sys.argv[1:])
