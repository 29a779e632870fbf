# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file and its copy: data with its holes, then owner, mode, extended attributes (ACLs are some) and times."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable

from .durable import FICLONE, FICLONERANGE
from .extents import differing, extents

CHUNK = 16 << 20  # bytes per system call, so that progress and a deadline are looked at in between
_BUFFER = 1 << 18
_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h
_NO_RANGE_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EBADF, errno.ETXTBSY)
_NOT_TOLD = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EBADR)
_NO_ATTRIBUTES = (errno.EOPNOTSUPP, errno.ENOSYS)


def copy_data(source: int, target: int, about: os.stat_result, old: os.stat_result, tell: Callable[[int], None]) -> int:
    """Make the contents of the open file target those of source, holes and unwritten extents as holes.

    about and old are the stat results of the two. tell gets the bytes of each step. Returns the bytes copied.
    """
    size, position, copied = about.st_size, 0, 0
    length = min(old.st_size, size)
    step = _in_kernel
    if old.st_size > size:
        os.ftruncate(target, size)
    used = min(old.st_size, size)  # only below this can the target hold what must become a hole
    while position < size:
        # This also waits for a write() under way, which moved the time before.
        begin, end = next_data(source, position, size)
        if position < begin and position < used:
            dig(target, position, min(begin, used) - position)
        while begin < end:
            count = step(source, target, min(CHUNK, end - begin), begin)
            if not count and step is _in_kernel:  # some file systems answer 0 for what the kernel cannot copy there
                step = _by_hand
                continue
            if not count:  # the file was cut off meanwhile
                size = end = begin
                break
            begin += count
            copied += count
            length = max(length, begin)
            tell(count)
        position = end
    if length != size:
        os.ftruncate(target, size)
    return copied


def next_data(source: int, position: int, size: int) -> tuple[int, int]:
    """The next range of the open file that is not a hole, as (begin, end) in bytes; (size, size) after the last."""
    try:
        begin = os.lseek(source, position, os.SEEK_DATA)
        end = os.lseek(source, begin, os.SEEK_HOLE)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno == errno.EINVAL:  # a file system that knows no holes
            return position, size
        raise
    return min(begin, size), min(end, size)


def _in_kernel(source: int, target: int, count: int, offset: int) -> int:
    try:
        return os.copy_file_range(source, target, count, offset, offset)
    except OSError as error:
        if error.errno not in _NO_RANGE_COPY:
            raise
        return 0


def _by_hand(source: int, target: int, count: int, offset: int) -> int:
    return os.pwrite(target, os.pread(source, min(count, _BUFFER), offset), offset)


def dig(target: int, offset: int, length: int) -> None:
    """Turn a range (bytes) of the open file into a hole; where that is not supported, into zeros."""
    size = os.fstat(target).st_size
    if offset + length >= size > offset:
        os.ftruncate(target, offset)  # forgets what waits to be written, which XFS would write before it digs
        os.ftruncate(target, size)
        return
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    wide = ctypes.c_longlong
    if library.fallocate(target, _PUNCH, wide(offset), wide(length)) == 0:
        return
    while length > 0:
        done = os.pwrite(target, bytes(min(length, _BUFFER)), offset)
        offset, length = offset + done, length - done


def clone_data(source: int, target: int, about: os.stat_result, old: os.stat_result, ranges: bool) -> int:
    """Let the open file target share the blocks of source; the bytes that it did not share before, holes left out.

    ranges: where target is an older clone, only what lies on other blocks; the rest stays in the page cache. Raises
    OSError where the file system cannot.
    """
    shared = _clone_ranges(source, target, about.st_size, old.st_size) if ranges else None
    if shared is not None:
        return shared
    if old.st_size:
        os.ftruncate(target, 0)  # a clone never shortens
    if about.st_size:
        fcntl.ioctl(target, FICLONE, source)
    return min(about.st_size, about.st_blocks * 512)


def _clone_ranges(source: int, target: int, size: int, old_size: int) -> int | None:
    """None where there is little to keep, what differs is not told, or source has changed its size meanwhile."""
    block = os.fstatvfs(target).f_bsize
    kept = min(size, old_size) // block * block
    if not kept:
        return None
    shared = 0
    try:
        if size != old_size:
            os.ftruncate(target, kept)  # elsewhere in a block it would be read, filled with zeros and written at once
            os.ftruncate(target, size)
        _clone_range(source, target, 0, block)  # waits for direct I/O that is under way, as extents() does not
        ours, theirs = extents(source, size), extents(target, size)
        if ours is None or theirs is None:
            return None
        for begin, end in differing(ours, theirs, size):
            _clone_range(source, target, begin, 0 if end == size else end - begin)
            shared += end - begin
    except OSError as error:
        if error.errno in _NOT_TOLD:
            return None
        raise  # above all what a write has failed with: it is told once
    return shared


def _clone_range(source: int, target: int, begin: int, length: int) -> None:
    """length 0 is to the end of source, which need not be a block's."""
    fcntl.ioctl(target, FICLONERANGE, struct.pack("=qQQQ", source, begin, length, begin))


def same_data(source: int, target: int, tell: Callable[[int], None]) -> bool:
    """Whether two open files have the same size and contents; what is a hole in both is not read."""
    size = os.fstat(source).st_size
    if size != os.fstat(target).st_size:
        return False
    ours, theirs = bytearray(_BUFFER), bytearray(_BUFFER)
    position = 0
    while position < size:
        begin = min(next_data(source, position, size)[0], next_data(target, position, size)[0])
        end = max(next_data(source, position, size)[1], next_data(target, position, size)[1])
        while begin < end:
            count = os.preadv(source, [ours], begin)
            if count != os.preadv(target, [theirs], begin) or not count or ours != theirs:
                return False
            begin += count
            tell(count)
        position = max(begin, end)
    return True


def copy_metadata(source: int, target: int, about: os.stat_result) -> None:
    """Give the open file or directory target the owner, attributes, mode and times (ns) of source; what is so already
    is left alone, since each of these moves its ctime.
    """
    now = os.fstat(target)
    if (now.st_uid, now.st_gid) != (about.st_uid, about.st_gid):
        os.chown(target, about.st_uid, about.st_gid)
    copy_attributes(source, target)
    now = os.fstat(target)  # again, as an owner and an ACL change the mode
    if stat.S_IMODE(now.st_mode) != stat.S_IMODE(about.st_mode):
        os.chmod(target, stat.S_IMODE(about.st_mode))
    if now.st_mtime_ns != about.st_mtime_ns:
        os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))


def copy_attributes(source: int | str, target: int | str) -> None:
    """Make the extended attributes of target those of source; descriptors, or paths whose last part is not followed."""
    wanted, found = attributes(source), attributes(target)
    if wanted == found:
        return
    for name in found.keys() - wanted.keys():
        _remove_attribute(target, name)
    for name, value in wanted.items():
        if found.get(name) != value:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)


def _remove_attribute(target: int | str, name: str) -> None:
    if isinstance(target, int):
        os.removexattr(target, name)
    else:
        os.removexattr(target, name, follow_symlinks=False)


def attributes(of: int | str) -> dict[str, bytes]:
    """The extended attributes of a descriptor, or of a path whose last part is not followed."""
    try:
        if isinstance(of, int):
            return {name: os.getxattr(of, name) for name in os.listxattr(of)}
        names = os.listxattr(of, follow_symlinks=False)
        return {name: os.getxattr(of, name, follow_symlinks=False) for name in names}
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return {}
        raise


def copy_special(source_dir: int, target_dir: int, name: str, about: os.stat_result) -> None:
    """Make name in target_dir the symbolic link, pipe, socket or device that it is in source_dir; it must be free."""
    if stat.S_ISLNK(about.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_dir), name, dir_fd=target_dir)
    else:
        os.mknod(name, about.st_mode, about.st_rdev, dir_fd=target_dir)
    os.chown(name, about.st_uid, about.st_gid, dir_fd=target_dir, follow_symlinks=False)
    copy_attributes(f"/proc/self/fd/{source_dir}/{name}", f"/proc/self/fd/{target_dir}/{name}")
    if not stat.S_ISLNK(about.st_mode):
        os.chmod(name, stat.S_IMODE(about.st_mode), dir_fd=target_dir)
    os.utime(name, ns=(about.st_atime_ns, about.st_mtime_ns), dir_fd=target_dir, follow_symlinks=False)
