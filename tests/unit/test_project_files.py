# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The project's files: what differs, what is shown of it, and how it is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_files import (
    file_diffs,
    find_changes,
    is_ours,
    wanted_files,
    write_changes,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.project_secrets import Mask

FILES = [{"name": "a.yml", "content": "services: {}\n"}, {"name": "b.yml", "content": "x: y\n", "mode": "0600"}]


def write(directory: Path, settings: dict[str, str]) -> None:
    wanted = wanted_files(FILES, settings, "om")
    write_changes(str(directory), find_changes(str(directory), wanted), keep_old=not is_ours(str(directory)))


def test_files_and_settings_get_their_modes_and_a_second_time_nothing_differs(tmp_path: Path) -> None:
    directory = tmp_path / "project"
    write(directory, {"KEY": "s3cret"})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"a.yml": 0o644, "b.yml": 0o600, ".env": 0o600}
    lines = (directory / ".env").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["KEY=s3cret", "COMPOSE_PROJECT_NAME=om", "COMPOSE_FILE=a.yml:b.yml"]
    assert find_changes(str(directory), wanted_files(FILES, {"KEY": "s3cret"}, "om")) == []


def test_a_wrong_mode_is_a_change(tmp_path: Path) -> None:
    write(tmp_path, {})
    os.chmod(tmp_path / ".env", 0o644)
    (change,) = find_changes(str(tmp_path), wanted_files(FILES, {}, "om"))
    (diff,) = file_diffs([change], (), Mask(()))
    assert diff["before"].startswith("mode: 0644\n")
    assert diff["after"].startswith("mode: 0600\n")


def test_a_diff_shows_that_a_secret_changed_and_not_what_it_is(tmp_path: Path) -> None:
    write(tmp_path, {"KEY": "old-s3cret", "SAME": "kept-s3cret", "COLOR": "blue"})
    wanted = wanted_files(FILES, {"KEY": "new-s3cret", "SAME": "kept-s3cret", "COLOR": "red"}, "om")
    (diff,) = file_diffs(find_changes(str(tmp_path), wanted), {"COLOR"}, Mask(()))
    assert "s3cret" not in str(diff)
    assert diff["after"].splitlines()[1:4] == ["KEY=******** (changed)", "SAME=********", "COLOR=red"]


def test_a_secret_that_stands_in_a_compose_file_is_hidden_too(tmp_path: Path) -> None:
    wanted = wanted_files([{"name": "a.yml", "content": "key: pa$$word\n"}], {"KEY": "pa$word"}, "om")
    diffs = file_diffs(find_changes(str(tmp_path), wanted), (), Mask(["pa$word"]))
    assert diffs[0]["after"] == "key: ********\n"


def test_files_of_somebody_else_are_kept_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GOOGLE_API_KEY=theirs\n", encoding="utf-8")
    (tmp_path / "a.yml").write_text("theirs\n", encoding="utf-8")
    write(tmp_path, {"KEY": "1"})
    write(tmp_path, {"KEY": "2"})
    kept = tmp_path / ".env.before-openmemory-stack"
    assert kept.read_text(encoding="utf-8") == "GOOGLE_API_KEY=theirs\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert (tmp_path / "a.yml.before-openmemory-stack").read_text(encoding="utf-8") == "theirs\n"
    assert len(list(tmp_path.iterdir())) == 5


def test_files_of_our_own_are_replaced_without_keeping_them(tmp_path: Path) -> None:
    write(tmp_path, {"KEY": "1"})
    write(tmp_path, {"KEY": "2"})
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([{"name": "../a", "content": ""}], "is no plain file name"),
        ([{"name": "a:b", "content": ""}], "is no plain file name"),
        ([{"name": ".env", "content": ""}], "is no plain file name"),
        ([FILES[0], FILES[0]], "a.yml is named twice"),
        ([{"name": "a", "content": "", "mode": "rw"}], "the mode 'rw' of a is not octal"),
        ([{"name": "a", "content": "", "mode": "0888"}], "the mode '0888' of a is not octal"),
    ],
)
def test_bad_files_are_one_sentence(files: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(StackError, match=r"^files: ") as refused:
        wanted_files(files, {}, "om")
    assert sentence in str(refused.value)


def test_a_directory_in_a_files_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.yml").mkdir()
    with pytest.raises(StackError, match=r"a\.yml cannot be read \(Is a directory\); move it away\."):
        find_changes(str(tmp_path), wanted_files(FILES, {}, "om"))


def test_a_project_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wanted = wanted_files(FILES, {}, "om")
    with pytest.raises(StackError, match="correct project_src"):
        write_changes(str(tmp_path / "file" / "x"), find_changes(str(tmp_path), wanted), keep_old=False)


def test_a_mask_knows_the_forms_that_a_secret_takes() -> None:
    mask = Mask(['p$ss "w"', "abc"])
    text = 'p$ss "w" p$$ss "w" "p$ss \\"w\\"" p%24ss%20%22w%22 cCRzcyAidyI= abc'
    assert mask(text) == '******** ******** "********" ******** ******** abc'
