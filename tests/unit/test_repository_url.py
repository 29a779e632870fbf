# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A password in the URL of a repository is refused everywhere, and shown nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import settings
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic, mask
from ansible_collections.openmemory.stack.plugins.modules import volume_backup, volume_backup_info, volume_restore

SAID = "repository has a password in its URL"
LOGIN = {"RESTIC_REST_USERNAME": "me@home", "RESTIC_REST_PASSWORD": "p:/ss@word"}


@pytest.mark.parametrize(
    "url",
    [
        "rest:http://user:hunter22@host/",
        "rest:https://user:hun/ter22@host:8000/x",
        "rest:https://user:hun@ter22@host/x",
        "rest:https://:hunter22@host",
        "s3:https://key:hunter22@s3.example.com/bucket",
        "sftp://user:hunter22@host//srv",
    ],
)
def test_refused_and_not_shown(url: str) -> None:
    with pytest.raises(StackError, match=SAID) as error:
        Restic(url, "/password")
    assert "ter22" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "/srv/a:b@c", "rest:http://host:8000/", "rest:http://host:8000/user@home", "rest:http://user@host:8000/",
        "sftp:user@host:/srv/x", "sftp://user@host:22//srv/a@b", "s3:https://s3.example.com/bucket",
        "rest:http://[::1]:8000/x", "rclone:remote:a@b", "azure:container:/",
    ],
)  # fmt: skip
def test_others_are_not(url: str) -> None:
    assert Restic(url, "/password").repository == url


@pytest.mark.parametrize(
    ("version", "url", "given"),
    [
        ((0, 14, 0), "rest:https://host:8000/x", "rest:https://me%40home:p%3A%2Fss%40word@host:8000/x"),
        ((0, 18, 0), "rest:https://host:8000/x", "rest:https://host:8000/x"),
        ((0, 14, 0), "rest:https://other@host/x", "rest:https://other@host/x"),
        ((0, 14, 0), "s3:https://host/x", "s3:https://host/x"),
    ],
)
def test_the_login_reaches_every_version(version: tuple[int, ...], url: str, given: str) -> None:
    restic = Restic(url, "/password", LOGIN)
    restic._version = version
    assert restic.environ()["RESTIC_REPOSITORY"] == given
    assert "word" not in " ".join(restic.arguments("backup"))
    assert "word" not in restic.hide(f"Head {given}: refused")
    assert (restic.shown, restic.repository) == (url, url)


def test_secrets_are_masked() -> None:
    restic = Restic("rest:https://example.org/repo", "/password", {"RESTIC_REST_PASSWORD": "hidden"})
    assert restic.hide("is hidden https://me:hidden@example.org") == "is *** https://***@example.org"
    assert mask("s3:https://host/bucket sftp:user@host:/x") == "s3:https://host/bucket sftp:user@host:/x"


@pytest.mark.parametrize("module", [volume_backup, volume_backup_info, volume_restore])
def test_modules_refuse_it_and_their_result_does_not_hold_it(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        "ansible.module_utils.basic.AnsibleModule._log_to_syslog", lambda _self, text: logged.append(text)
    )
    options = {
        "compose_project": "om",
        "repository": "rest:http://user:hunter22@host/x",
        "password_file": "/secret",
        "state_dir": str(tmp_path / "state"),
        "_ansible_check_mode": True,
        "_ansible_syslog_facility": "LOG_USER",
    }
    with patch_module_args(options), pytest.raises(SystemExit):
        module.main()
    printed = capsys.readouterr().out
    found = json.loads(printed)
    assert found["failed"]
    assert SAID in found["msg"]
    assert "hunter22" not in printed + "".join(logged)
    assert "invocation" in found


def test_the_command_refuses_it_for_every_verb(tmp_path: Path) -> None:
    (tmp_path / "om.json").write_text(json.dumps({"project": "om", "repository": "rest:http://u:hunter22@host/"}))
    with pytest.raises(settings.UsageError, match=SAID) as error:
        settings.load(str(tmp_path), {})
    assert "hunter22" not in str(error.value)
    assert settings.load(str(tmp_path), {"repository": "/other"}).repository == "/other"
