# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration is asked to do, its key, and the mark that it leaves on the host that a stack has left."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.request import (
    Key,
    MigrateRequest,
    forget_keys,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.retired import (
    Retirement,
    read_retirement,
    refuse_retired,
)

from .conftest import FakeEngine

OPERATION = "20261125t021500-5f0c2a"
NEXT = "20261126t021500-000000"
REQUEST = MigrateRequest("om", OPERATION, "new", "192.0.2.7", ["ssh-ed25519 AAAA", "ssh-rsa BBBB"])


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of("om", str(tmp_path / "state"), str(tmp_path / "run"))


def test_a_whole_request_is_taken() -> None:
    REQUEST.check()
    replace(REQUEST, address="fe80::1%eth0", user="some_one.else", port=2222).check()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"project": "a/b"}, "compose_project is 'a/b'"),
        ({"operation": ""}, "operation is ''"),
        ({"operation": "../../etc"}, "operation is"),
        ({"operation": f"{OPERATION}\n"}, "operation is"),
        ({"address": "-oProxyCommand=id"}, "address is '-oProxyCommand=id', which SSH cannot use"),
        ({"address": "a b"}, "address is"),
        ({"address": ""}, "address is ''"),
        ({"user": "-v"}, "user is '-v'"),
        ({"user": "me;id"}, "user is"),
        ({"host_keys": []}, "host_keys is empty"),
        ({"freeze_timeout": 0}, "freeze_timeout is 0; give seconds between 0 and 86400"),
        ({"wait_timeout": float("nan")}, "wait_timeout is nan"),
        ({"wait_timeout": 86401}, "wait_timeout is 86401"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(StackError, match=said):
        replace(REQUEST, **wrong).check()


def test_a_request_survives_the_journal() -> None:
    assert MigrateRequest(**json.loads(json.dumps(REQUEST.as_json()))) == REQUEST


def test_the_key_is_for_root_alone_and_its_public_half_is_told(places: Places) -> None:
    key = Key(places, OPERATION)
    assert not key.exists
    public = key.make()
    assert public.startswith("ssh-ed25519 AAAA")
    assert public.count(" ") == 1
    assert key.exists
    assert stat.S_IMODE(os.stat(key.directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(f"{key.directory}/id_ed25519").st_mode) == 0o600


def options_of(command: list[str], host: str = "target") -> dict[str, str]:
    """What the ssh of this machine makes of a command, up to the host."""
    asked = [*command[: command.index(host)], "-G", host]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in listed.splitlines() if " " in line)


def test_ssh_goes_to_the_host_with_these_keys_and_no_other(places: Places) -> None:
    key = Key(places, OPERATION)
    key.make()
    key.know(REQUEST.host_keys)
    request = replace(REQUEST, port=2222, user="me")
    for command in (key.line(request), [*key.shell(request), "target"], key.question(request)):
        found = options_of(command)
        assert (found["hostname"], found["port"], found["user"]) == ("192.0.2.7", "2222", "me")
        assert (found["stricthostkeychecking"], found["batchmode"]) == ("true", "yes")
        assert found["identityfile"] == f"{key.directory}/id_ed25519"
        assert found["identitiesonly"] == "yes"
        assert found["userknownhostsfile"] == f"{key.directory}/known_hosts"
        assert found["hostkeyalias"] == "target"
    known = Path(f"{key.directory}/known_hosts").read_text()
    assert known == "target ssh-ed25519 AAAA\ntarget ssh-rsa BBBB\n"


def test_transfers_share_the_connection_of_the_line_and_the_question_has_its_own(places: Places) -> None:
    key = Key(places, OPERATION)
    line, transfer, question = (
        options_of(one) for one in (key.line(REQUEST), [*key.shell(REQUEST), "target"], key.question(REQUEST))
    )
    assert line["controlpath"] == transfer["controlpath"]
    assert (line["controlmaster"], transfer["controlmaster"]) == ("true", "false")
    assert "controlpath" not in question or question["controlpath"] == "none"


def test_keys_are_forgotten_and_nothing_else(places: Places) -> None:
    for operation in (OPERATION, NEXT):
        Key(places, operation).make()
    other = Path(places.state, "migration-notes")
    other.mkdir()
    assert forget_keys(places, check_mode=True) == [OPERATION, NEXT]
    assert Key(places, OPERATION).exists
    assert forget_keys(places) == [OPERATION, NEXT]
    assert [name for name in os.listdir(places.state) if name.startswith("migration-")] == ["migration-notes"]
    assert forget_keys(Places("om", "/no/where", "/no/where")) == []


def retired(places: Places, operation: str = OPERATION, target: str = "new") -> Retirement:
    one = Retirement(operation, "om", target, "192.0.2.7", volumes={"a": {"name": "om_a"}})
    one.write(places)
    return one


def test_a_stack_that_was_not_moved_has_no_mark(places: Places) -> None:
    assert read_retirement(places) is None
    refuse_retired(places)


def test_the_mark_is_read_as_it_was_written(places: Places) -> None:
    one = retired(places)
    assert read_retirement(places) == one
    assert stat.S_IMODE(os.stat(places.retired).st_mode) == 0o600
    about = {"target": "new", "address": "192.0.2.7", "at": one.at, "operation": OPERATION}
    assert one.as_result()["retired"] == {**about, "project": one.project, "snapshot": None}


def test_finishing_twice_keeps_the_first_time(places: Places) -> None:
    first = retired(places)
    first.at = "2026-11-25T02:15:07+00:00"
    os.unlink(places.retired)
    first.write(places)
    retired(places)
    found = read_retirement(places)
    assert found is not None
    assert found.at == first.at
    retired(places, NEXT, "newer")
    assert (read_retirement(places) or first).target == "newer"


def test_what_uses_the_old_data_is_refused_with_where_the_stack_is(places: Places) -> None:
    retired(places)
    with pytest.raises(StackError, match=r"moved from this host to new on .*state: returned"):
        refuse_retired(places)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"operation": "x", "more": 1}'])
def test_a_damaged_mark_is_not_taken_for_none(places: Places, content: str) -> None:
    Path(places.retired).write_text(content)
    with pytest.raises(StackError, match="is damaged"):
        refuse_retired(places)


def test_a_backup_of_a_retired_stack_is_refused(places: Places, engine: FakeEngine, tmp_path: Path) -> None:
    """Its old data must not become the newest snapshot."""
    retired(places)
    state_dir = str(tmp_path / "state")
    request = BackupRequest("om", str(tmp_path / "repository"), str(tmp_path / "password"), state_dir=state_dir)
    with pytest.raises(StackError, match="moved from this host to new"):
        backup.run(request, engine, Progress())
