# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQLite, as OpenMemory uses it: one database file in the root of the volume.

Only headers are read, and nothing is opened through SQLite: opening a live database takes locks and may roll its
journal back. Offsets are those of https://www.sqlite.org/fileformat2.html#the_database_header.
"""

from __future__ import annotations

import os
import struct

from .container import Container
from .found import UNKNOWN, Found
from .plain_file import plain, plain_size

KIND = "sqlite"
OWNER = None  # the image runs as root
EXTRA_PATHS: tuple[str, ...] = ()
MAGIC = b"SQLite format 3\0"
JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_UPSTREAM_URL = "sqlite:///./openmemory.db"  # upstream's default, outside of the volume
_MOST_FILES = 200  # a root directory with more is not OpenMemory's


def look(path: str) -> Found | None:
    """The databases in the directory, or None."""
    databases = [file for file in _files(path) if starts_with(file, MAGIC)]
    if not databases:
        return None
    found = Found(KIND, details={"databases": []})
    for file in sorted(databases):
        _look_at(file, found)
    return found


def data_paths(container: Container) -> list[str] | None:
    """The directory that this container writes its database to, or None if it is not an OpenMemory server's."""
    if not container.image_name.startswith("openmemory") or container.image_name.endswith("-ui"):
        return None
    url = container.environment.get("DATABASE_URL") or _UPSTREAM_URL
    scheme, _separator, path = url.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not path:
        return []  # a server elsewhere: nothing to keep here
    return [os.path.dirname(container.path(path.partition("?")[0]))]


def _files(path: str) -> list[str]:
    with os.scandir(path) as entries:
        files = [entry.path for entry in entries if entry.is_file(follow_symlinks=False)]
    return files if len(files) <= _MOST_FILES else []


def starts_with(file: str, magic: bytes) -> bool:
    """Whether a file begins with these bytes; False where it is not there or cannot be read."""
    try:
        with open(file, "rb", opener=plain) as stream:
            return stream.read(len(magic)) == magic
    except OSError:
        return False


def _look_at(file: str, found: Found) -> None:
    name = os.path.basename(file)
    with open(file, "rb", opener=plain) as stream:
        header = stream.read(100)
        length = os.fstat(stream.fileno()).st_size
    if len(header) < 100:
        found.damaged(f"{name} is cut off inside its header ({len(header)} of 100 bytes).")
        return
    (page_size,) = struct.unpack_from(">H", header, 16)
    page_size = 65536 if page_size == 1 else page_size
    changes, pages = struct.unpack_from(">II", header, 24)
    (user_version,) = struct.unpack_from(">i", header, 60)
    valid_for, writer = struct.unpack_from(">II", header, 92)
    hot = starts_with(file + "-journal", JOURNAL_MAGIC)
    wal = bool(plain_size(file + "-wal"))
    if page_size < 512 or page_size & (page_size - 1):
        found.damaged(f"{name} has the impossible page size {page_size} in its header.")
    elif pages and changes == valid_for and length < pages * page_size:
        # While a journal or WAL is pending, the file may rightly be shorter than its header says.
        if hot or wal:
            found.health = UNKNOWN if found.health != "damaged" else found.health
        else:
            found.damaged(f"{name} is {length} bytes long, and its header says {pages * page_size}: it is cut off.")
    version = f"{writer // 1000000}.{writer // 1000 % 1000}.{writer % 1000}" if writer else None
    found.version = found.version or version
    found.details["databases"].append(
        {
            "file": name,
            "bytes": length,
            "written_by": version,
            "user_version": user_version,
            "journal_mode": "wal" if header[18] == 2 else "rollback",
            "pending_journal": hot or wal,
        }
    )
