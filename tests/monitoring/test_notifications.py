# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notifications through the real command apprise to a real mail server and a real web server on loopback."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.command import main as command
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import BusyError, StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring import apprise, hook
from ansible_collections.openmemory.stack.plugins.module_utils._core.monitoring.watch import Watch, watched
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.last import read_last

from receivers import LOOPBACK, Mailbox, start

TOKEN = "t0ken-that-nobody-sees"


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "received")


@pytest.fixture
def ports(mailbox: Mailbox) -> Iterator[tuple[int, int]]:
    mail, web = start(mailbox)
    yield mail.server_address[1], web.server_address[1]
    for server in (mail, web):
        server.shutdown()
        server.server_close()


class Host:
    """The settings and the state of a stack om, in a directory of the test."""

    def __init__(self, place: Path):
        self.etc, self.state = place / "etc", place / "state"
        self.etc.mkdir()
        self.metrics = place / "textfiles"
        self.metrics.mkdir()
        self.watch_for({})

    def watch_for(self, more: dict[str, Any]) -> None:
        settings = {"metrics_dir": str(self.metrics), **more}
        (self.etc / "om.monitoring.json").write_text(json.dumps(settings))

    def targets(self, **urls: str) -> None:
        file = self.etc / "om.apprise"
        file.touch(0o600)
        file.write_text("".join(f"{name}={url}\n" for name, url in urls.items()))

    def run(self, work: Callable[[], dict[str, Any]], operation: str = "backup") -> dict[str, Any]:
        result: dict[str, Any] = watched(Watch("om", operation, str(self.state), str(self.etc)), work)
        return result

    def fail(self, message: str = "No room is left.", operation: str = "backup") -> str:
        with pytest.raises(StackError) as caught:
            self.run(self._raise(StackError(message)), operation)
        return str(caught.value)

    @staticmethod
    def _raise(error: BaseException) -> Callable[[], dict[str, Any]]:
        def work() -> dict[str, Any]:
            raise error

        return work

    def succeed(self, operation: str = "backup") -> dict[str, Any]:
        return self.run(lambda: {"snapshot_id": "5f0c2a9be1", "warnings": []}, operation)

    def command(self, *words: str) -> int:
        known = ["-p", "om", "--config-dir", str(self.etc), "--state-dir", str(self.state)]
        return int(command.main([words[0], *known, *words[1:]]))

    def text(self) -> str:
        return (self.metrics / "openmemory-stack-om.prom").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def titles(mailbox: Mailbox, kind: str) -> list[str]:
    found = [each for each in mailbox.read() if each["kind"] == kind]
    return [each["title"] if kind == "mail" else each["body"]["title"] for each in found]


def test_once_when_it_fails_and_once_when_it_works_again(
    host: Host, mailbox: Mailbox, ports: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    mail, web = ports
    host.targets(
        ops=f"mailto://user:{TOKEN}@{LOOPBACK}:{mail}?from=stack@example.com&to=ops@example.com",
        hook=f"json://user:{TOKEN}@{LOOPBACK}:{web}/hooks/{TOKEN}",
    )
    assert host.succeed()["warnings"] == []
    assert mailbox.read() == []  # it was well, and is
    for _run in range(3):
        assert host.fail() == "No room is left."
    assert [title.split(":")[0] for title in titles(mailbox, "mail")] == ["FAILED"]
    assert [title.split(":")[0] for title in titles(mailbox, "web")] == ["FAILED"]
    for _run in range(3):
        assert host.succeed()["warnings"] == []
    assert [title.split(":")[0] for title in titles(mailbox, "mail")] == ["FAILED", "Recovered"]
    assert [title.split(":")[0] for title in titles(mailbox, "web")] == ["FAILED", "Recovered"]
    letter = next(each for each in mailbox.read() if each["kind"] == "mail")
    assert (letter["sender"], letter["to"]) == ("stack@example.com", ["ops@example.com"])
    assert "No room is left." in letter["body"]
    assert "openmemory-stack status --project om" in letter["body"]
    post = next(each for each in mailbox.read() if each["kind"] == "web")
    assert (post["path"], post["body"]["type"]) == (f"/hooks/{TOKEN}", "failure")
    kept = "".join(path.read_text() for path in host.state.rglob("*") if path.is_file())
    said = "".join(capfd.readouterr())
    assert TOKEN not in kept + said + host.text()


def test_each_operation_is_told_by_itself(host: Host, mailbox: Mailbox, ports: tuple[int, int]) -> None:
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/")
    host.fail(operation="drill")
    host.succeed()
    host.fail("Damaged.", operation="check")
    host.succeed("drill")
    told = [title.rpartition(": ")[2] for title in titles(mailbox, "web")]
    assert told == ["drill of om", "check of om", "drill of om"]


def test_a_target_that_refuses_is_seen_and_tried_again_and_fails_nothing(
    host: Host, mailbox: Mailbox, ports: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    host.targets(bad=f"json://user:{TOKEN}@{LOOPBACK}:{ports[1]}/refuse/{TOKEN}", good=f"json://{LOOPBACK}:{ports[1]}/")
    said = host.fail()
    assert said.startswith("No room is left. bad was not told: ")
    assert TOKEN not in said
    assert len(titles(mailbox, "web")) == 1  # good
    assert 'openmemory_stack_notification_success{project="om",target="bad"} 0\n' in host.text()
    assert 'openmemory_stack_notification_success{project="om",target="good"} 1\n' in host.text()
    assert host.command("status") == 3
    assert "Monitoring: bad was not told" in capsys.readouterr().out
    host.targets(bad=f"json://{LOOPBACK}:{ports[1]}/", good=f"json://{LOOPBACK}:{ports[1]}/")
    assert host.fail() == "No room is left."  # only who does not know yet
    assert len(titles(mailbox, "web")) == 2
    assert 'target="bad"} 1\n' in host.text()


def test_a_recovery_with_a_notifier_that_is_down_is_a_warning(host: Host, ports: tuple[int, int]) -> None:
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/")
    host.fail()
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/refuse")
    warnings = host.succeed()["warnings"]
    assert len(warnings) == 1
    assert warnings[0].startswith("hook was not told: ")


def test_only_what_was_asked_for(host: Host, mailbox: Mailbox, ports: tuple[int, int]) -> None:
    host.watch_for({"notify_on": ["failure"]})
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/")
    host.fail()
    host.succeed()
    host.fail()
    assert [title.split(":")[0] for title in titles(mailbox, "web")] == ["FAILED", "FAILED"]


def test_what_is_under_way_or_interrupted_is_told_to_nobody(
    host: Host, mailbox: Mailbox, ports: tuple[int, int]
) -> None:
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/")
    for error in (BusyError("Another."), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            host.run(host._raise(error))
    assert mailbox.read() == []
    places = Watch("om", "backup", str(host.state), str(host.etc)).places()
    assert read_last(places)["backup_failed"]["message"] == "It was interrupted."


def test_a_recovery_that_is_tried_again_is_told_by_the_hook(
    host: Host, mailbox: Mailbox, ports: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/")
    monkeypatch.setenv("INVOCATION_ID", "1f")
    watch = Watch("om", "recover", str(host.state), str(host.etc), quiet=True)
    with pytest.raises(StackError):
        watched(watch, host._raise(StackError("The other host does not answer.")))
    assert mailbox.read() == []
    failed = {"ActiveState": "failed", "Result": "start-limit-hit", "InvocationID": "1f"}
    monkeypatch.setattr(hook, "show", lambda unit: failed if "recover" in unit else {})
    hook.run("om", str(host.state), str(host.etc))
    (told,) = mailbox.read()
    assert "The other host does not answer." in told["body"]["message"]


def test_the_verb_notify_sends_a_test(
    host: Host, mailbox: Mailbox, ports: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.command("notify") == 1
    assert "Nobody is to be told" in capsys.readouterr().err
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/", bad=f"json://{LOOPBACK}:{ports[1]}/refuse")
    assert host.command("notify") == 1
    assert "openmemory-stack: bad was not told" in capsys.readouterr().err
    assert titles(mailbox, "web")[0].startswith("Test: ")
    host.targets(hook=f"json://{LOOPBACK}:{ports[1]}/")
    assert host.command("notify") == 0
    assert capsys.readouterr().out == "A test message was sent to hook.\n"


def test_no_process_shows_a_secret(host: Host, mailbox: Mailbox, ports: tuple[int, int]) -> None:
    host.targets(hook=f"json://user:{TOKEN}@{LOOPBACK}:{ports[1]}/{TOKEN}")
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
                except OSError:
                    continue
            time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    host.fail()
    over.set()
    watcher.join()
    assert len(mailbox.read()) == 1
    assert any("apprise" in line and "--tag=hook" in line for line in seen)
    assert not any(TOKEN in line for line in seen)


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("hook=json://127.0.0.1/\n", 0o644, "others can read it .mode 0644.; chmod 600"),
        (f"json://user:{TOKEN}@127.0.0.1/\n", 0o600, "Line 1 of .* is no NAME=URL"),
        ("# who\n\na=json://127.0.0.1/\na=json://127.0.0.1/\n", 0o600, "Line 4 of .* names a a second time"),
        ("hook=nonsense://127.0.0.1/secret/\n", 0o600, "hook was not told: "),
    ],
)
def test_targets_that_cannot_be_meant(host: Host, text: str, mode: int, says: str) -> None:
    (host.etc / "om.apprise").write_text(text)
    (host.etc / "om.apprise").chmod(mode)
    with pytest.raises(StackError, match=says) as caught:
        host.run(host._raise(StackError("No room is left.")))
    assert str(caught.value).startswith("No room is left. ")
    assert TOKEN not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "openmemory_stack_last_run_success" in host.text()


def test_without_the_command_there_is_one_sentence(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apprise, "COMMAND", "apprise-that-is-not-there")
    host.targets(hook=f"json://{LOOPBACK}:9/")
    assert host.fail().endswith(
        "hook was not told: the command apprise-that-is-not-there is not on this host; install the package "
        "apprise-that-is-not-there."
    )


def test_one_that_never_answers_is_ended(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(apprise, "COMMAND", str(slow))
    monkeypatch.setattr(apprise, "_WITHIN_S", 0.5)
    host.targets(hook=f"json://{LOOPBACK}:9/")
    begun = time.monotonic()
    assert host.fail().endswith("hook was not told: no answer within 0.5 seconds.")
    assert time.monotonic() - begun < 10


def test_the_message_reaches_slack_and_discord_as_apprise_knows_them() -> None:
    """Their servers are not asked; apprise itself says that it knows the URLs of the documentation."""
    for url in (
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops",
        "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js",
    ):
        said = subprocess.run(
            ["apprise", "--dry-run", "-b", "x", url], capture_output=True, text=True, check=True
        ).stdout
        assert url.partition(":")[0] in said
