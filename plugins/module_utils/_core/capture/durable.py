# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a copy rests on: flushing a file system, the clock that file times come from, clones instead of copies."""

from __future__ import annotations

import fcntl
import glob
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ..errors import StackError

KNOWN = ("ext4", "xfs", "btrfs")
"""File systems on which a flush write-protects dirty pages, so that every later store moves the file's times."""
EACH = ("ext4", "xfs")
"""Those on which flushing one file does the same for it; btrfs may leave compressed pages to a thread of its own."""

MARGIN_S = 2.0
VMSTAT = "/proc/vmstat"
FICLONE, FICLONERANGE = 0x40049409, 0x4020940D  # linux/fs.h
_BEGUN = 2  # SYNC_FILE_RANGE_WRITE, linux/fs.h
_WRITTEN = 1 | _BEGUN | 4  # with SYNC_FILE_RANGE_WAIT_BEFORE and _WAIT_AFTER
_STEP_S = 1.0  # a clock that was set by less than this is covered by the margin


class OpenFileSystems:
    """The file systems of some directories, each opened once. Raises StackError where one cannot be.

    A flush sees each error of writing since then, whoever else has flushed and been told of it meanwhile: an error is
    told once to everybody who had the file system open before (errseq_t, Linux 5.8 and newer; older ones tell of
    metadata only).
    """

    def __init__(self, paths: Iterable[str]):
        self._open: dict[int, tuple[str, int]] = {}  # by device
        try:
            for path in paths:
                self._add(path)
        except BaseException:
            self.close()
            raise

    def _add(self, path: str) -> None:
        try:
            device = os.stat(path).st_dev
            if device not in self._open:
                self._open[device] = path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StackError(f"{path} cannot be opened to flush its file system: {error.strerror}.") from None

    def __enter__(self) -> OpenFileSystems:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def flush(self) -> float:
        """Write out all dirty pages; returns time.time() (seconds) at the START.

        Raises StackError where a file system reports that writing failed.
        """
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        started = time.time()
        for path, descriptor in self._open.values():
            if library.syncfs(descriptor) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise StackError(f"The file system of {path} could not be flushed ({reason}): check its disk first.")
        return started

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1][1])


def sync_filesystem(path: str) -> float:
    """Write out all dirty pages of the file system of path; returns and raises as OpenFileSystems.flush() does."""
    with OpenFileSystems([path]) as system:
        return system.flush()


def sync_filesystems(paths: Iterable[str]) -> None:
    """sync_filesystem() once for each file system on which some of the paths lie."""
    with OpenFileSystems(paths) as systems:
        systems.flush()


def much_is_dirty() -> bool:
    """Whether half of what makes the kernel write by itself waits to be written; somewhat later it slows writers down.

    True where it cannot be told.
    """
    try:
        with open(VMSTAT, encoding="ascii") as lines:
            pages = {name: int(count) for name, count in map(str.split, lines)}
        return 2 * (pages["nr_dirty"] + pages["nr_writeback"]) > pages["nr_dirty_background_threshold"]
    except (OSError, ValueError, KeyError):
        return True


def write_out(file: int) -> None:
    """Write the dirty pages of one open file out, without its metadata. Raises OSError where writing failed."""
    _sync_range(file, 0, 0, _WRITTEN)


def begin_writing(file: int, offset: int, length: int) -> None:
    """Begin to write out what is dirty of a range (bytes) of an open file; does not tell whether it worked."""
    _sync_range(file, offset, length, _BEGUN)


def _sync_range(file: int, offset: int, length: int, how: int) -> None:
    """sync_file_range(2); a length of 0 is to the end."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.sync_file_range(file, ctypes.c_longlong(offset), ctypes.c_longlong(length), how) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def await_journal(directory: str) -> float:
    """Wait until the journal of the file system of a directory of ours has committed; time.time() at the START.

    A store to a clean page first moves the file's times, may then wait for the journal, and makes the page dirty only
    after that. Raises StackError where nothing can be written there.
    """
    started = time.time()
    name = os.path.join(directory, f".committed-{os.getpid()}")
    try:
        with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            os.fsync(file.fileno())
        os.unlink(name)
    except OSError as error:
        raise StackError(f"{name} cannot be written ({error.strerror}): make room or correct its owner.") from error
    return started


class Flush:
    """A flush, and whether file times can still be compared with the time it began.

    beside: a directory of ours on the same file system. Then only its journal is waited for, and each file is flushed
    right before it is read, which is for who reads to do.
    """

    def __init__(self, path: str, beside: str = ""):
        self.each = bool(beside)
        self._offset = _clock_offset()
        started = await_journal(beside) if beside else sync_filesystem(path)
        self._before_ns = int((started - MARGIN_S) * 1e9)

    def covers(self, about: os.stat_result) -> bool:
        """Whether what has these times, and was looked at after the flush, cannot change without moving them.

        Not if somebody set the clock meanwhile: a file that is dirty again could then carry an older time.
        """
        if abs(_clock_offset() - self._offset) > _STEP_S:
            self._before_ns = -(1 << 63)
        return about.st_mtime_ns < self._before_ns and about.st_ctime_ns < self._before_ns


def _clock_offset() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def can_clone(source_dir: str, target_dir: str) -> bool:
    """Whether files of source_dir can be cloned (FICLONE) into target_dir; really tried.

    Both must be on one file system. The source is not written to; target_dir must exist. A file of the source's own is
    tried as well, since two mounts of one file system may refuse what one mount allows.
    """
    first, second = (os.path.join(target_dir, f".clone-{os.getpid()}-{part}") for part in ("from", "to"))
    try:
        if os.stat(source_dir).st_dev != os.stat(target_dir).st_dev:
            return False
        with open(first, "xb") as made:
            made.write(b"x" * 4096)
        _clone(first, second)
        for sample in _some_files(source_dir):
            with suppress(FileNotFoundError):  # the store has removed it meanwhile: another one tells
                _clone(sample, second)
                break
    except OSError:
        return False
    finally:
        for name in (first, second):
            with suppress(FileNotFoundError):
                os.unlink(name)
    return True


def _plain(path: str, flags: int) -> int:
    """What was a regular file when it was looked at may be a link or a pipe by now."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _clone(sample: str, to: str) -> None:
    with open(sample, "rb", opener=_plain) as source, open(to, "wb") as target:
        fcntl.ioctl(target.fileno(), FICLONE, source.fileno())


def _some_files(directory: str) -> Iterator[str]:
    """Regular files that are not empty, at most two directories down."""
    for depth in ("*", "*/*", "*/*/*"):
        for path in glob.iglob(os.path.join(glob.escape(directory), depth)):
            with suppress(FileNotFoundError):
                about = os.lstat(path)
                if stat.S_ISREG(about.st_mode) and about.st_size:
                    yield path
