# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup of one volume, made by hand, must not look like the stack's own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.regular import is_usual, kind_of, tags


def plan(*keys: str, whole: bool = False) -> Any:
    volumes = [SimpleNamespace(key=key, name=f"om_{key}") for key in keys]
    return SimpleNamespace(project="om", volumes=volumes, whole=whole)


def settings(*names: str) -> str:
    return json.dumps({"project": "om", "options": {"volumes": [{"name": name} for name in names] or None}})


@pytest.mark.parametrize(
    ("found", "captured", "kind", "tag"),
    [
        (None, plan("a"), "backup", "partial=a"),  # whoever has no settings says each time what is wanted
        (settings(), plan("a", "b", whole=True), "backup", ""),
        (settings(), plan("a"), "backup_of_some", "partial=a"),
        (settings("a", "om_b"), plan("a"), "backup_of_some", "partial=a"),
        (settings("a", "om_b"), plan("b", "a"), "backup", "volumes=a+b"),
        (settings("a"), plan("a", "b"), "backup", "volumes=a+b"),
        ('{"options": []}', plan("a"), "backup_of_some", "partial=a"),
        ("{", plan("a"), "backup", "partial=a"),
        ("[]", plan("a"), "backup", "partial=a"),
    ],
)
def test_which_backups_count(tmp_path: Path, found: str | None, captured: Any, kind: str, tag: str) -> None:
    if found is not None:
        (tmp_path / "om.json").write_text(found)
    usual = is_usual(captured, str(tmp_path))
    assert kind_of(usual) == kind
    assert tags(captured, usual) == ([tag] if tag else [])
