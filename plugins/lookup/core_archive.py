# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The code of the command openmemory-stack as one archive, for a host to unpack."""

from __future__ import annotations

DOCUMENTATION = """
name: core_archive
short_description: The code of the command openmemory-stack as an archive
version_added: 0.2.0
author: The openmemory.stack developers (@openmemory)
description:
  - Packs what the modules of this collection are made of into an archive on the controller, for the role
    P(openmemory.stack.backup#role) to unpack on a host, where it is the command C(openmemory-stack).
  - The archive is the same as long as the code is. It lies in Ansible's own temporary directory and goes with it.
options: {}
"""

EXAMPLES = """
- name: Show the version of the code
  ansible.builtin.debug:
    msg: "{{ lookup('openmemory.stack.core_archive').version }}"
"""

RETURN = """
_list:
  description: One dictionary with C(path), the archive on the controller, and C(version), which changes with the code.
  type: list
  elements: dict
"""

from gzip import compress
from hashlib import sha256
from io import BytesIO
from os import getpid
from pathlib import Path
from tarfile import DIRTYPE, USTAR_FORMAT, TarFile, TarInfo
from typing import Any

from ansible import constants as C
from ansible.plugins.lookup import LookupBase

CORE = Path(__file__).resolve().parents[1] / "module_utils" / "_core"
TOP = "openmemory-stack"
PACKAGE = "openmemory_stack"
COMPLETE = "complete"  # unpacked last: where it is, all the rest is


def sources() -> dict[str, bytes]:
    """The files of the core by their path in it."""
    return {str(path.relative_to(CORE)): path.read_bytes() for path in sorted(CORE.rglob("*.py"))}


def version_of(files: dict[str, bytes]) -> str:
    digest = sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def pack(files: dict[str, bytes], version: str) -> bytes:
    """A tar archive, compressed; root owns all in it. The same files always give the same bytes."""
    place = f"{TOP}/{version}"
    members = {f"{place}/{PACKAGE}/{name}": content for name, content in files.items()}
    members[f"{place}/{COMPLETE}"] = b""
    directories = sorted({str(parent) for name in members for parent in Path(name).parents} - {"."})
    raw = BytesIO()
    with TarFile(fileobj=raw, mode="w", format=USTAR_FORMAT) as archive:
        for name in directories:
            about = TarInfo(name)
            about.type, about.mode = DIRTYPE, 0o755
            archive.addfile(about)
        for name, content in members.items():
            about = TarInfo(name)
            about.size, about.mode = len(content), 0o644
            archive.addfile(about, BytesIO(content))
    return compress(raw.getvalue(), mtime=0)


class LookupModule(LookupBase):
    """What Ansible loads."""

    def run(self, terms: Any, variables: Any = None, **kwargs: Any) -> list[dict[str, str]]:
        files = sources()
        version = version_of(files)
        path = Path(C.DEFAULT_LOCAL_TMP) / f"{TOP}-{version}.tar.gz"
        if not path.exists():
            draft = path.with_name(f"{path.name}.{getpid()}")
            draft.write_bytes(pack(files, version))
            draft.replace(path)  # another host's task may do the same
        return [{"path": str(path), "version": version}]
