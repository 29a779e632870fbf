# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes this repository importable as ansible_collections.openmemory.stack for a plain pytest."""

from __future__ import annotations

from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

COLLECTIONS = Path(__file__).resolve().parents[1] / ".collections"
LINK = COLLECTIONS / "ansible_collections" / "openmemory" / "stack"

if not LINK.exists():  # as the set-up makes it
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.symlink_to("../../..", target_is_directory=True)
_AnsibleCollectionFinder(paths=[str(COLLECTIONS)])._install()
