# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Far repositories: what is refused, what reaches restic, what is told. Real servers: tests/chaos/test_copies.py."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import copies as copies_core
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import forgetting
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.request import BackupRequest
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import main as command
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import show_repositories
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import PartlyDoneError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.copying import Copy
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.failures import Failure, explain
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.sftp import ssh_command

FAR: dict[str, Any] = {"name": "far", "repository": "rest:https://b.example.com/om/"}
KEYS = {"SFTP_KEY_FILE": "/etc/k ey", "SFTP_KNOWN_HOSTS_FILE": "/etc/known"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "has no name"),
        ({"name": "Far Away"}, "name in copies is 'Far Away'"),
        ({"name": "near"}, "and not 'near'"),
        ({"repository": ""}, "has no repository"),
        ({"repository": "/near/"}, "is the near repository itself"),
        ({"repository": "rest:https://me:secret1@b.example.com/"}, "has a password in its URL"),
        ({"password_file": "p"}, "is p, which is not an absolute path"),
        ({"limit_upload": -1}, "limit_upload of the copy far is -1"),
        ({"keep": {"last": -3}}, "keep.last is -3"),
        ({"environment": {"AWS_ACCESS_KEY_ID": "b"}}, "another AWS_ACCESS_KEY_ID than the near"),
        ({"wrong": 1}, "copies has 'wrong', which is not known"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, Any], said: str) -> None:
    request = BackupRequest("om", "/near", "/secret", {"AWS_ACCESS_KEY_ID": "a"}, copies=[{**FAR, **change}])
    with pytest.raises(StackError) as error:
        request.check()
    assert said in str(error.value)
    assert "secret1" not in str(error.value)


def test_a_name_twice_and_two_keys() -> None:
    with pytest.raises(StackError, match="has the name far twice"):
        BackupRequest("om", "/near", "/secret", copies=[FAR, FAR]).check()
    near = "sftp:me@a.example.com:/r"
    far = {**FAR, "repository": "sftp:me@b.example.com:/r", "environment": KEYS}
    with pytest.raises(StackError, match="both are sftp: with a key"):
        BackupRequest("om", near, "/secret", KEYS, copies=[far]).check()


def test_the_near_ones_password_is_the_default() -> None:
    assert Copy.of({**FAR, "keep": {"last": 2, "daily": None}}, "/secret") == Copy(
        "far", FAR["repository"], "/secret", {}, Keep(last=2)
    )
    assert Copy.of({**FAR, "password_file": "/own"}, "/secret").password_file == "/own"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sftp:me@b.example.com:/r", ["-l", "me", "b.example.com"]),
        ("sftp:b.example.com:r", ["b.example.com"]),
        ("sftp://me@b.example.com:2222//r", ["-p", "2222", "-l", "me", "b.example.com"]),
        ("sftp://[2001:db8::1]:2222/r", ["-p", "2222", "2001:db8::1"]),
    ],
)
def test_one_key_and_one_pinned_host_key(url: str, words: list[str]) -> None:
    found = shlex.split(ssh_command(url, KEYS) or "")
    assert found[-len(words) - 2 :] == [*words, "-s", "sftp"]
    assert found[0] == "ssh"
    options = {found[at + 1] for at, word in enumerate(found) if word == "-o"}
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "UserKnownHostsFile=/etc/known", "IdentitiesOnly=yes"} <= (
        options
    )
    assert found[found.index("-i") + 1] == "/etc/k ey"
    assert ssh_command(url, {}) is None
    assert ssh_command("s3:https://s3.example.com/b", KEYS) is None


def test_no_secret_is_on_the_command_line_and_each_server_gets_its_own_login(tmp_path: Path) -> None:
    near_login = {"RESTIC_REST_USERNAME": "near", "RESTIC_REST_PASSWORD": "near/pass1"}
    far_login = {"RESTIC_REST_USERNAME": "far", "RESTIC_REST_PASSWORD": "far:pass2"}
    near = Restic("rest:http://a.example.com/", "/near-password", near_login)
    far = Restic("rest:http://b.example.com/", "/far-password", far_login, source=near)
    near._version = far._version = (0, 18, 0)  # which knows the variables, and one of each only
    found = far.environ()
    assert found["RESTIC_FROM_REPOSITORY"] == "rest:http://near:near%2Fpass1@a.example.com/"
    assert found["RESTIC_REPOSITORY"] == "rest:http://far:far%3Apass2@b.example.com/"
    assert (found["RESTIC_FROM_PASSWORD_FILE"], found["RESTIC_PASSWORD_FILE"]) == ("/near-password", "/far-password")
    assert far.arguments("copy", "5f0c") == ["restic", "copy", "5f0c"]
    assert far.hide("near/pass1 far:pass2") == "*** ***"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Fatal: unable to open config file: Stat: Please reduce your request rate.\nIs there a repository at the "
         "following location?", "is overloaded or broken"),
        ("Fatal: unable to open config file: unexpected HTTP response (503): 503 Service Unavailable\nIs there a "
         "repository", "is overloaded or broken"),
        ("Fatal: unable to open config file: Stat: words of tomorrow\nIs there a repository at the following location?",
         "restic could not look"),
        ("Fatal: unable to open config file: Stat: The specified key does not exist.", "There is no repository at"),
        ("Fatal: unable to open config file: <config/> does not exist", "There is no repository at"),
        ("Fatal: unable to open config file: stat /x/config: no such file or directory", "There is no repository at"),
        ("Fatal: unable to open config file: Stat: The access key ID you provided does not exist in our records.",
         "refuses us"),
        ("subprocess ssh: Host key verification failed.\nFatal: unable to open repository at sftp:x: unable to start "
         "the sftp session, error: EOF", "is not the one that was pinned"),
        ("Save(<data/5>) returned error, retrying after 503.2ms: client.PutObject: Put: write: broken pipe",
         "broke again and again"),
    ],
)  # fmt: skip
def test_what_restic_says_is_understood(line: str, said: str) -> None:
    """An overloaded server above all is not one without a repository: a new one would be made there."""
    assert said in explain(Failure("look", "there", "/p", 1, line.split("\n")))


class Far:
    """Stands in for Copy.open(): one that works, one that does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: bool):
        def bring(copy: Copy, *_more: Any) -> dict[str, Any]:
            if copy.name == "bad" and broken:
                raise StackError("The back end refuses us.")
            return {"copied": ["5f0c2a9be1"], "bytes": 2048, "seconds": 1.5, "made": False}

        monkeypatch.setattr(copies_core, "bring", bring)
        monkeypatch.setattr(copies_core, "own_of", lambda *_given: [])


def request(tmp_path: Path) -> BackupRequest:
    far = [{**FAR, "name": name} for name in ("bad", "good")]
    return BackupRequest("om", "/near", "/secret", state_dir=str(tmp_path / "state"), copies=far)


def test_one_that_fails_hinders_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Far(monkeypatch, broken=True)
    asked = request(tmp_path)
    places = Places.of("om", asked.state_dir, runtime_dir=str(tmp_path / "run"))
    near = Repository(Restic("/near", "/secret"))
    result: dict[str, Any] = {"snapshot_id": "5f0c2a9be1", "actions": [], "warnings": []}
    copies_core.fill(asked, places, near, Progress(str(tmp_path / "progress"), None), result)
    assert [(each["name"], each["ok"], each["copied"]) for each in result["copies"]] == [
        ("bad", False, []),
        ("good", True, ["5f0c2a9be1"]),
    ]
    with pytest.raises(PartlyDoneError, match=r"was made, but it was not copied to bad; the next run .* refuses us"):
        copies_core.raise_for_failed(result)
    kept = read_last(places)["copies"]["repositories"]
    assert (kept["bad"]["success"], bool(kept["good"]["success"])) == (None, True)
    Far(monkeypatch, broken=False)
    copies_core.fill(asked, places, near, Progress(str(tmp_path / "progress"), None), result)
    copies_core.raise_for_failed(result)
    assert read_last(places)["copies"]["repositories"]["bad"]["success"]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "om.json"
    path.touch(0o600)
    found = {"project": "om", "repository": "/near", "password_file": "/secret", "state_dir": str(tmp_path / "state")}
    copies = [{**FAR, "environment": {"RESTIC_REST_PASSWORD": "s3cret-of-it"}}]
    path.write_text(json.dumps({**found, "keep": {"last": 2}, "copies": copies}))
    return path


def test_the_command_uses_a_far_repository_as_the_near_one(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Restic] = []

    def check(self: Repository, _read_data: Any) -> list[str]:
        asked.append(self.restic)
        return []

    monkeypatch.setattr(Repository, "check", check)
    words = ["--config-dir", str(settings.parent)]
    assert command.main(["check", *words, "--copy", "far"]) == 0
    assert (asked[0].repository, asked[0].environment) == (FAR["repository"], {"RESTIC_REST_PASSWORD": "s3cret-of-it"})
    assert command.main(["check", *words, "--copy", "fat"]) == 2
    assert command.main(["backup", *words, "--copy", "far"]) == 2
    printed = capsys.readouterr()
    assert "which is no far repository of this stack; there are far" in printed.err
    assert "leave --copy out" in printed.err
    settings.chmod(0o644)
    assert command.main(["check", *words]) == 2
    assert "holds credentials and others can read it" in capsys.readouterr().err


def test_a_copy_that_fails_prints_what_was_done_and_ends_with_1(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"name": "far", "copied": ["a"], "bytes": 2048, "seconds": 1.5, "removed": [], "ok": False}
    result = {"changed": True, "copies": [entry], "actions": [], "warnings": []}

    def run(*_given: Any) -> dict[str, Any]:
        raise PartlyDoneError("It was not copied to far.", result)

    monkeypatch.setattr(copies_core, "run", run)
    assert command.main(["copy", "--config-dir", str(settings.parent)]) == 1
    printed = capsys.readouterr()
    assert printed.err == "openmemory-stack: It was not copied to far.\n"
    assert printed.out.splitlines()[1].split() == ["far", "1", "2", "KiB", "1.50", "s", "0", "FAILED"]
    assert command.main(["copy", "--config-dir", str(settings.parent), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["failed"], said["exit_code"], said["msg"]) == (True, 1, "It was not copied to far.")


def test_forget_tells_what_goes(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {"id": "5f0c", "short_id": "5f0c", "time": "2026-01-02T03:04:05Z", "verified": "quick", "safety": True}
    entry = {"name": "near", "repository": "/near", "kept": [{}, {}], "removed": [{**gone, "tags": ["t"]}]}
    asked: list[Any] = []

    def run(request: BackupRequest, _near: Any, check_mode: bool) -> dict[str, Any]:
        asked.append((request.keep, check_mode))
        return {"changed": True, "repositories": [entry], "warnings": []}

    monkeypatch.setattr(forgetting, "run", run)
    assert command.main(["forget", "--dry-run", "--config-dir", str(settings.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "near, /near: 1 of 3 snapshots of om would be removed"
    assert lines[2].split()[0] == "5f0c"
    assert lines[2].endswith("quick     safety t")
    assert lines[3] == "Nothing was done; to do it, leave --dry-run out."
    assert asked == [(Keep(last=2), True)]


def test_status_says_what_lacks_something() -> None:
    from datetime import UTC, datetime

    when = "2026-11-25T02:00:00+00:00"
    about = {"ok": False, "error": "It refuses us.", "success": None}
    last = {"copies": {"created": when, "repositories": {"far": about, "good": {"ok": True, "success": when}}}}
    now = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)
    assert show_repositories.attention(last, None, now) == ["The copy to far, 2 h ago, failed: It refuses us."]
    assert show_repositories.attention(last, 3600.0, now)[1] == "The last copy to good is 2 h old."
    assert show_repositories.status(last)[0] == "  copy          far: never complete yet"
