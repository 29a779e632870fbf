# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Far repositories on real servers, on good days and bad ones, with the oldest restic that we take and a newer one."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import copying
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.copying import Copy, bring
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot
from fault_proxy import Fault, FaultProxy, a_pack_sent, s3_error
from remote_servers import ADMIN_KEYS, BUCKET, HOST_KEYS, REST_LOGIN, rest, s3

PROJECT = "p"
TAGS = ["openmemory-stack", f"project={PROJECT}"]
SECRETS = [*HOST_KEYS.values(), *ADMIN_KEYS.values(), *REST_LOGIN.values()]


@dataclass
class Host:
    """A host with a near repository and what it keeps of its far ones."""

    home: Path
    command: str
    places: Places = field(init=False)
    near: Repository = field(init=False)

    def __post_init__(self) -> None:
        (self.home / "staging").mkdir(parents=True)
        password = self.home / "password"
        password.touch(0o600)
        password.write_text("right")
        self.places = Places.of(PROJECT, str(self.home / "state"), runtime_dir=str(self.home / "run"))
        place = str(self.home / "near")
        self.near = Repository(Restic(place, str(password), cache_dir=str(self.home / "cache"), command=self.command))
        self.near.init()

    def snapshot(self, megabytes: int = 1) -> str:
        (self.home / "staging" / f"file{time.time_ns()}").write_bytes(os.urandom(megabytes << 20))
        return str(self.near.commit(str(self.home), ["staging"], TAGS).snapshot_id)

    def here(self) -> list[Snapshot]:
        return list(self.near.snapshots(PROJECT))

    def copy(self, url: str, environment: Mapping[str, str], keep: Keep | None = None) -> Copy:
        return Copy("far", url, str(self.home / "password"), environment, keep)

    def far(self, copy: Copy, patience_s: float = 1.5) -> Repository:
        return copy.open(str(self.home / "state"), self.near, patience_s)

    def bring(self, copy: Copy, patience_s: float = 1.5) -> list[str]:
        found = bring(copy, self.far(copy, patience_s), self.here(), PROJECT, self.places, pause_s=0.2)
        return list(found["copied"])

    def there(self, copy: Copy) -> list[str]:
        """What the far repository holds, by the ids of the near one."""
        return [each.origin for each in self.far(copy).snapshots(PROJECT)]


@pytest.fixture
def host(tmp_path: Path, restic_command: str) -> Host:
    return Host(tmp_path / "host", restic_command)


@pytest.fixture(autouse=True)
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside restic's own tries; ours have a test of their own."""
    monkeypatch.setattr(copying, "_TRIES", 1)


@pytest.fixture(scope="module")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    home = tmp_path_factory.mktemp("oms3")
    with s3(home) as port:
        bucket = f"s3:http://127.0.0.1:{port}/{BUCKET}"
        (home / "password").touch(0o600)
        (home / "password").write_text("right")
        Repository(Restic(f"{bucket}/first", str(home / "password"), ADMIN_KEYS)).init()  # restic makes the bucket
        yield port


@pytest.fixture(scope="module")
def rest_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with rest(tmp_path_factory.mktemp("omrestserver")) as port:
        yield port


def unique(host: Host) -> str:
    return re.sub(r"\W", "", str(host.home))


def far_of(kind: str, host: Host, port: int) -> Copy:
    if kind == "s3":
        return host.copy(f"s3:http://127.0.0.1:{port}/{BUCKET}/{unique(host)}", HOST_KEYS)
    return host.copy(f"rest:http://127.0.0.1:{port}/{unique(host)}/", REST_LOGIN)


def said(host: Host, copy: Copy, patience_s: float = 1.5) -> str:
    """The one sentence of a run that fails; nothing secret is in it, and the near repository has all that it had."""
    before = [each.id for each in host.here()]
    begun = time.monotonic()
    with pytest.raises(StackError) as error:
        host.bring(copy, patience_s)
    text = str(error.value)
    assert time.monotonic() - begun < 180  # bounded, also on a busy machine
    assert "\n" not in text
    assert not [secret for secret in SECRETS if secret in text]
    assert [each.id for each in host.here()] == before
    return text


@pytest.mark.parametrize("kind", ["s3", "rest"])
def test_it_is_given_what_it_lacks_and_the_host_is_read_once(
    host: Host, kind: str, s3_port: int, rest_port: int
) -> None:
    copy = far_of(kind, host, s3_port if kind == "s3" else rest_port)
    first, second = host.snapshot(3), host.snapshot()
    shutil.rmtree(host.home / "staging")  # what was read once is not needed any more
    assert host.bring(copy) == [first, second]
    assert host.bring(copy) == []
    (host.home / "staging").mkdir()
    third = host.snapshot()
    found = bring(copy, host.far(copy), host.here(), PROJECT, host.places)
    assert found["copied"] == [third]
    assert 1 << 20 < found["bytes"] < 3 << 20  # the new part only
    assert host.there(copy) == [first, second, third]
    assert host.far(copy).check(read_data=True) == []
    same = {each.origin: each for each in host.far(copy).snapshots(PROJECT)}
    assert {(each.time, each.tags) for each in same.values()} == {(each.time, each.tags) for each in host.here()}


def test_what_was_removed_there_is_not_brought_again(host: Host, tmp_path: Path) -> None:
    """By whoever prunes it, or by its own keep, which is another than the near one's."""
    first, second = host.snapshot(), host.snapshot()
    copy = host.copy(str(tmp_path / "far"), {})
    assert host.bring(copy) == [first, second]
    far = host.far(copy)
    far.forget([far.snapshots(PROJECT)[0].id], prune=True)
    assert (host.bring(copy), host.there(copy)) == ([], [second])
    shutil.rmtree(tmp_path / "far")  # it is lost, and another takes its place
    assert host.bring(copy) == [first, second]
    frugal = host.copy(str(tmp_path / "frugal"), {}, Keep(last=1))
    assert host.bring(frugal) == [second]


def test_an_address_without_a_repository(host: Host, s3_port: int) -> None:
    host.snapshot()
    copy = far_of("s3", host, s3_port)
    refused = Copy(copy.name, copy.repository, copy.password_file, copy.environment, init=False)
    assert "There is no repository at s3:" in said(host, refused)


BAD_DAYS = {
    "503": (s3_error(503, "SlowDown", "Please reduce your request rate."), "is overloaded or broken"),
    "503 halfway": (s3_error(503, "SlowDown", "", a_pack_sent), "is overloaded or broken"),
    "dropped halfway": (Fault(a_pack_sent, drop_after=1000), "broke again and again|cannot be reached"),
    "full": (s3_error(507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold.",
                      a_pack_sent), "is full"),
    "quota": (s3_error(403, "QuotaExceeded", "Quota exceeded for this bucket.", a_pack_sent), "is full"),
    "clock": (s3_error(403, "RequestTimeTooSkewed", "The difference between the request time and the server's time is "
                       "too large."), "does not accept the time"),
    "expired": (s3_error(400, "ExpiredToken", "The provided token has expired."), "have expired"),
    "denied": (s3_error(403, "AccessDenied", "Access Denied."), "refuses us"),
}  # fmt: skip


NEWER_DIFFERS = ("503", "dropped halfway", "expired")  # it tries otherwise there; each day costs half a minute


@pytest.mark.parametrize(
    ("restic_command", "day"),
    [*(("own", day) for day in BAD_DAYS), *(("newer", day) for day in NEWER_DIFFERS)],
    indirect=["restic_command"],
)
def test_a_bad_day_of_s3(host: Host, s3_port: int, day: str) -> None:
    """One sentence, in time, the near snapshot is there, and the next run brings all that is missing."""
    fault, words = BAD_DAYS[day]
    first = host.snapshot()
    with FaultProxy(s3_port) as proxy:
        copy = far_of("s3", host, proxy.port)
        host.bring(copy)
        second, third = host.snapshot(), host.snapshot()
        proxy.fault = fault
        text = said(host, copy)
        assert re.search(words, text), text
        assert proxy.hits
        proxy.fault = None
        assert host.bring(copy)
        assert host.there(copy) == [first, second, third]


@pytest.mark.parametrize("fault", [s3_error(503, "SlowDown", times=4), Fault(a_pack_sent, 3, drop_after=1000)])
def test_what_passes_is_no_failure(host: Host, s3_port: int, fault: Fault) -> None:
    snapshot = host.snapshot(20)
    with FaultProxy(s3_port) as proxy:
        copy = far_of("s3", host, proxy.port)
        host.far(copy).init()
        proxy.fault = Fault(fault.wanted, fault.times, fault.status, fault.body, fault.drop_after)
        assert host.bring(copy, 30.0) == [snapshot]
        assert proxy.hits >= 3
        assert proxy.fault.times == 0


def test_a_server_that_says_nothing(host: Host, s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that drops everything gives no error; restic itself would wait for ever."""
    from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import watching

    host.snapshot()
    with FaultProxy(s3_port) as proxy:
        copy = far_of("s3", host, proxy.port)
        host.bring(copy)
        host.snapshot()
        monkeypatch.setattr(watching, "_STALL_S", 3.0)  # not before: a busy machine may stand still that long
        proxy.fault = Fault(a_pack_sent, silent_s=60)
        text = said(host, copy)
        assert re.search(r"cannot be reached \(nothing moved for \d+ seconds\)", text), text


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({**HOST_KEYS, "AWS_ACCESS_KEY_ID": "nobody-at-all"}, "refuses us"),
        ({**HOST_KEYS, "AWS_SECRET_ACCESS_KEY": "wrong-secret-0123"}, "refuses us"),
    ],
)
def test_wrong_credentials_of_s3(host: Host, s3_port: int, environment: dict[str, str], words: str) -> None:
    host.snapshot()
    copy = host.copy(far_of("s3", host, s3_port).repository, environment)
    text = said(host, copy)
    assert words in text
    assert "wrong-secret-0123" not in text


def test_a_rest_server_that_refuses(host: Host, rest_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    host.snapshot()
    good = far_of("rest", host, rest_port)
    host.bring(good)
    host.snapshot()
    wrong = host.copy(good.repository, {**REST_LOGIN, "RESTIC_REST_PASSWORD": "not-the-password"})
    assert "refuses us (401 Unauthorized)" in said(host, wrong)
    with FaultProxy(rest_port) as proxy:
        copy = host.copy(good.repository.replace(str(rest_port), str(proxy.port)), REST_LOGIN)
        for fault, words in (
            (Fault(status=403), "refuses us"),
            (Fault(status=503), "is overloaded or broken"),
            (Fault(a_pack_sent, status=507), "is full"),
            (Fault(drop_after=10), "broke again and again"),
        ):
            proxy.fault = fault
            text = said(host, copy)
            assert words in text, text
        proxy.fault = Fault(status=503, times=1)  # the older restic gives up at once, and we do not
        monkeypatch.setattr(copying, "_TRIES", 2)
        assert len(host.bring(copy)) == 1
        assert proxy.fault.times == 0
        monkeypatch.setattr(copying, "_TRIES", 1)
    gone = host.copy(good.repository.replace(f":{rest_port}/", ":1/"), REST_LOGIN)
    assert "cannot be reached" in said(host, gone)
