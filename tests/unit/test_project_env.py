# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings file, read back by the real Docker Compose."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_env import redact_env, render_env

NASTY = [
    "a$b", "a$$b${X}", "$(id)", "it's", 'say "hi"', "sp ace", " lead", "trail ", "#hash", "a #b",
    "back\\slash", "end\\",
    "\\n", "a\\$b", "new\nline", "tab\tx", "cr\rx", "=eq", "ünï", "'single'", '"dq"', "`bt`", "a:b@c/d",
    "%41", "\\u0041",
    "\\101", "\\0", "!", 'a\\"b', "\\\\", "\\'", "x'\"$`\\#y", "~", "*", "{}", "0x1f", "a\\tb\\v", "",
]  # fmt: skip


def test_every_value_survives_composes_parser(tmp_path: Path) -> None:
    settings = {f"V{number}": value for number, value in enumerate(NASTY)}
    environment = {name: f"${{{name}}}" for name in settings}
    compose = {"services": {"a": {"image": "x", "environment": environment}}}
    (tmp_path / "docker-compose.yml").write_text(json.dumps(compose), encoding="utf-8")
    (tmp_path / ".env").write_text(render_env(settings), encoding="utf-8")
    found = subprocess.run(
        ["docker", "compose", "config", "--format", "json"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    read = json.loads(found.stdout)["services"]["a"]["environment"]
    assert {name: value.replace("$$", "$") for name, value in read.items()} == settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"A B": "x"}, "The setting 'A B' is no name of an environment variable; use letters, digits and _."),
        ({"1A": "x"}, "The setting '1A' is no name of an environment variable; use letters, digits and _."),
        ({"A": "x\0y"}, "The value of the setting A has a NUL byte in it; remove it."),
    ],
)
def test_what_cannot_be_a_setting_is_refused(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(StackError) as refused:
        render_env(settings)
    assert str(refused.value) == sentence


def test_only_public_settings_are_shown() -> None:
    shown = redact_env(render_env({"OPEN": "yes", "KEY": "s3cret=1"}), {"OPEN"})
    assert shown[1:] == ["OPEN=yes", "KEY=********"]
