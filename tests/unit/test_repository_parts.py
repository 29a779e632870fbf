# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The repository without restic: command lines, secrets, what its answers mean, which snapshot is meant."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import snapshots as info
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup.description import without_secrets
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.places import Places
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository import kept_manifests, listing
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.choosing import choose
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.failures import Failure, error_of
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.manifest import Manifest
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.retention import Keep
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.snapshot import Snapshot

ID = "1bb7fd9b247d1e5fb2c3bf37726033dc8ab9c54f1ab0f3210687b7c3f7d59ef7"
FAKE = """#!/bin/sh
[ "$1" = version ] && { echo "restic VERSION compiled with go"; exit; }
printf '%s\\n' "$@" >HOME/argv
env >HOME/env
cat >HOME/stdin
case "$1" in
backup)
  echo '{"message_type":"status","total_bytes":9,"bytes_done":4}'
  echo '{"message_type":"summary","SUMMARY}' ;;
snapshots)
  echo '[{"time":"2026-11-25T02:45:27.765235625Z","tags":["openmemory-stack","project=p","weekly"],"id":"IDENTITY"}]' ;;
restore) mkdir -p "$4/volumes/[a]" && echo x >"$4/volumes/[a]/file" ;;
esac
"""

LOGIN = {"RESTIC_REST_USERNAME": "me", "RESTIC_REST_PASSWORD": "hidden"}


def fake(home: Path, version: str = "0.14.0", summary: str = "") -> Restic:
    """A restic that keeps what it was given."""
    command = home / "restic"
    text = FAKE.replace("HOME", str(home)).replace("VERSION", version).replace("IDENTITY", ID)
    command.write_text(text.replace("SUMMARY", summary or f'snapshot_id":"{ID}"'))
    command.chmod(0o755)
    ensure_password(str(home / "password"))
    return Restic(
        "rest:https://example.org/repo",
        str(home / "password"),
        LOGIN,
        str(home / "cache"),
        command=str(command),
        limit_upload=100,
    )


def argv(home: Path) -> list[str]:
    return (home / "argv").read_text().splitlines()


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    place = tmp_path / "staging"
    (place / "volumes").mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    return place


def test_backup_command_line_and_environment(tmp_path: Path, staging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTIC_PASSWORD", "another's")
    seen: list[tuple[int, int]] = []
    done = Repository(fake(tmp_path)).commit(
        str(staging), ["manifest.json", "volumes"], ["one", "project=p"], "abc", lambda *amounts: seen.append(amounts)
    )
    assert argv(tmp_path) == [
        *["backup", "--limit-upload", "100", "--json", "--tag", "one", "--tag", "project=p", "--parent", "abc", "--"],
        *["manifest.json", "volumes"],
    ]
    assert done.snapshot_id == ID
    assert seen == [(4, 9)]
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert {key: value for key, value in environment.items() if key.startswith("RESTIC_")} == {
        "RESTIC_REPOSITORY": "rest:https://me:hidden@example.org/repo",
        "RESTIC_PASSWORD_FILE": str(tmp_path / "password"),
        "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
        "RESTIC_PROGRESS_FPS": "2",
        **LOGIN,
    }
    assert environment["LC_ALL"] == "C"
    assert (tmp_path / "stdin").read_text() == ""


def test_a_short_id_is_completed(tmp_path: Path, staging: Path) -> None:
    restic = fake(tmp_path, summary='snapshot_id":"1bb7fd9b"')
    assert Repository(restic).commit(str(staging), ["volumes"], ["one"]).snapshot_id == ID
    assert argv(tmp_path) == ["snapshots", "--limit-upload", "100", "--json", "--no-lock", "1bb7fd9b"]


@pytest.mark.parametrize(("version", "more"), [("0.14.0", []), ("0.15.2", ["--sparse"]), ("0.18.0", ["--sparse"])])
def test_restore_command_line(tmp_path: Path, version: str, more: list[str]) -> None:
    repository = Repository(fake(tmp_path, version))
    repository.restic.limit_upload = 0
    repository.restore(ID, "/volumes/[a]", str(tmp_path / "target"))
    scratch = str(tmp_path / ".target.restoring")
    assert argv(tmp_path) == ["restore", "--json", "--target", scratch, "--include", "/volumes/\\[a]", *more, ID]
    assert (tmp_path / "target" / "file").read_text() == "x\n"
    assert not os.path.exists(scratch)


@pytest.mark.parametrize(
    ("target", "said"),
    [("relative", "no absolute path"), ("{}/full", "is not empty"), ("{}/no/such", "is missing: make it first")],
)
def test_restore_refuses_a_target(tmp_path: Path, target: str, said: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StackError, match=said):
        Repository(fake(tmp_path)).restore(ID, "/volumes/a", target.format(tmp_path))
    assert not (tmp_path / "argv").exists()


@pytest.mark.parametrize(("version", "said"), [("0.13.1", "too old: 0.14 or newer"), ("x", "is this restic")])
def test_restic_that_does_not_serve(tmp_path: Path, version: str, said: str) -> None:
    with pytest.raises(StackError, match=said):
        Repository(fake(tmp_path, version)).snapshots()
    with pytest.raises(StackError, match="is not on this host: install the package restic"):
        Repository(Restic("/r", "/p", command=str(tmp_path / "none"))).snapshots()


def test_snapshots_of_both_versions(tmp_path: Path) -> None:
    [found] = Repository(fake(tmp_path)).snapshots("p", ["weekly"])
    assert Repository(fake(tmp_path)).snapshots("other", ["weekly"]) == []
    assert Repository(fake(tmp_path)).snapshots("p", ["monthly"]) == []
    assert found.time == datetime(2026, 11, 25, 2, 45, 27, 765235, tzinfo=UTC)
    assert (found.project, found.verified, found.paths) == ("p", "none", ())


# What restic really said (0.14 or 0.18) -> the sentence's parts.
SAID: list[tuple[str, str]] = [
    ("Fatal: wrong password or no key found", "does not open the repository"),
    ("Fatal: an empty password is not allowed by default. Pass the flag", "holds no usable password"),
    (
        "Fatal: repository does not exist: unable to open config file: stat /r/config: no such file or directory\n"
        "Is there a repository at the following location?\n/r",
        "There is no repository at /r",
    ),
    (
        'Fatal: unable to open config file: client.Head: Head "http://u:***@h:1/config": dial tcp 127.0.0.1:1: '
        "connect: connection refused\nIs there a repository at the following location?",
        "cannot be reached (dial tcp 127.0.0.1:1: connect: connection refused)",
    ),
    (
        "Fatal: unable to save snapshot: write /r/data/ab-tmp-1: no space left on device",
        "no room to write /r/data/ab-tmp-1",
    ),
    (
        "ignoring error for /a: ciphertext verification failed\nFatal: There were 1 errors",
        "is damaged: data in it is not",
    ),
    (
        "Load(<data/d5>, 1, 0) returned error, retrying after 552ms: open /r/data/d5: no such file or directory",
        "(open /r/",
    ),
    ('Fatal: cannot dump file: path "/manifest.json" not found in snapshot', "holds no /manifest.json"),
    ("Load(<snapshot/0000>, 0, 0) failed: open /r/snapshots/0000: no such file or directory", "has no snapshot 0000"),
    ("Fatal: something new", "restic could not do it (repository /r): something new."),
    ("", "exit code 7"),
    (
        "unable to create lock in backend: repository is already locked exclusively by PID 31 on vm by root (UID 0)\n"
        "lock was created at 2026-11-25 02:46:06 (5.06s ago)",
        "is locked by the living process 31 on the host vm since 2026-11-25 02:46:06 UTC",
    ),
]


@pytest.mark.parametrize(("said", "part"), SAID)
def test_failures_are_one_sentence(said: str, part: str) -> None:
    sentence = str(error_of(Failure("do it", "/r", "/p", 7, said.splitlines())))
    assert part in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def snapshot(number: int, *tags: str, project: str = "p") -> Snapshot:
    time = datetime(2026, 11, 20, 2, 0, tzinfo=UTC) + timedelta(days=number)
    return Snapshot(
        f"{number:08x}{'0' * 56}", f"{number:08x}", time, ("openmemory-stack", f"project={project}", *tags), "h", ()
    )


THERE = [snapshot(1), snapshot(2, "weekly"), snapshot(3), snapshot(4, "safety"), snapshot(20, project="q")]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("latest", 3),
        ("", 3),
        ("tag:weekly", 2),
        ("00000004", 4),
        (THERE[0].id, 1),
        ("2026-11-22 02:00+00:00", 2),
        ("2026-11-22T01:59:59Z", 1),
        ("2027-01-01", 3),
    ],
)
def test_the_snapshot_that_is_meant(text: str, number: int) -> None:
    assert choose(THERE, text, "p", "/r") == snapshot(number, *THERE[number - 1].tags[2:])


def test_a_snapshot_of_some_volumes_is_only_the_latest_where_there_is_no_other() -> None:
    some = snapshot(5, "partial=qdrant_storage", "before-update")
    assert choose([*THERE[:3], some], "latest", "p", "/r") == THERE[2]
    assert choose([*THERE[:3], some], "2027-01-01", "p", "/r") == THERE[2]
    assert choose([*THERE[:3], some], "tag:before-update", "p", "/r") == some
    assert choose([some], "latest", "p", "/r") == some
    assert some.user_tags == ("before-update",)


@pytest.mark.parametrize("text", ["latest", "2027-01-01", "tag:weekly"])
def test_two_hosts_with_a_stack_of_one_name_keep_to_their_own(text: str) -> None:
    here = [replace(snapshot(2, "weekly"), hostname="here"), replace(snapshot(4, "safety"), hostname="here")]
    there = [replace(snapshot(3, "weekly"), hostname="there")]
    both = sorted(here + there, key=lambda each: each.time)
    assert choose(both, text, "p", "/r", "here") == here[0]
    assert choose(both, text, "p", "/r", "a new host") == there[0]
    assert choose(both, there[0].id, "p", "/r", "here") == there[0]


@pytest.mark.parametrize(
    ("text", "project", "said"),
    [
        (
            "2026-11-01",
            "p",
            r"none of the stack p in /r: .*there are 00000004 \(2026-11-24T02:00:00Z, safety\), 00000003",
        ),
        ("tag:no", "p", "names none of the stack p"),
        ("00000014", "p", "is of the stack q, not of p"),
        ("0000000", "p", "fits 4 snapshots"),
        ("latest", "r", "no snapshot of the stack r; it has some of p, q: make a backup first"),
    ],
)
def test_a_snapshot_that_is_not_there(text: str, project: str, said: str) -> None:
    with pytest.raises(StackError, match=said):
        choose(THERE, text, project, "/r")


MANIFEST = Manifest("p", "1", "2026-11-25T02:00:00Z", "h", "1", "reflink", 0.02, volumes={"data": {"files": 3}})


def test_a_manifest_comes_back() -> None:
    assert Manifest.from_json(MANIFEST.to_json(), ID) == MANIFEST
    newer = json.dumps({**MANIFEST.to_dict(), "added": 1, "freeze_s": 1})
    assert Manifest.from_json(newer, ID).freeze_s == 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "is cut off or damaged"),
        ({"format": 2}, "has format 2, and this version reads up to 1: update"),
        ({"format": None}, "is none of ours"),
        ({"project": 3}, "is damaged .project is 3"),
        ({"volumes": {"../x": {}}}, "is damaged .volume"),
        ({"volumes": {"x": 1}}, "is damaged .volume"),
    ],
)
def test_a_manifest_that_is_damaged(change: dict[str, Any] | None, said: str) -> None:
    text = MANIFEST.to_json()[:-20] if change is None else json.dumps({**MANIFEST.to_dict(), **change})
    with pytest.raises(StackError, match=f"The manifest of snapshot 1bb7fd9b {said}"):
        Manifest.from_json(text, ID)


def test_a_password_is_generated_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "password"
    with pytest.raises(StackError, match="is not there"):
        ensure_password(str(path), generate=False)
    assert ensure_password(str(path)) is True
    first = path.read_text()
    assert len(first) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert ensure_password(str(path)) is False
    assert path.read_text() == first
    assert os.listdir(path.parent) == ["password"]
    path.chmod(0o644)
    with pytest.raises(StackError, match=r"can be read by everybody .* 0600"):
        ensure_password(str(path))
    path.write_text("")
    path.chmod(0o600)
    with pytest.raises(StackError, match="is empty"):
        ensure_password(str(path))
    with pytest.raises(StackError, match="no absolute path"):
        ensure_password("password")


@pytest.mark.parametrize("harm", ["last line", "head", "middle", "words"])
def test_a_listing_that_is_damaged(tmp_path: Path, harm: str) -> None:
    (tmp_path / "volumes" / "data").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "volumes" / "data" / name).touch()
    file = str(tmp_path / "listing")
    assert listing.write(str(tmp_path / "volumes"), ["data"], file) == 3
    assert [entry.path for entry in listing.read(file, "data")] == ["", "a", "b"]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    lines = Path(file).read_text().splitlines()
    changed = {
        "last line": lines[:-1],
        "head": lines[1:],
        "middle": lines[:2] + lines[3:],
        "words": [*lines[:2], lines[2][:20], *lines[3:]],
    }
    Path(file).write_text("\n".join(changed[harm]))
    with pytest.raises(StackError, match="is cut off"):
        list(listing.read(file, "data"))


class Known(Repository):
    """Snapshots without restic, counting what is asked of it."""

    def __init__(self) -> None:
        super().__init__(Restic("/nowhere", "/p"))
        self.asked: list[str] = []

    def snapshots(self, project: str | None = None, tags: Any = ()) -> list[Snapshot]:
        return [each for each in THERE if project in (None, each.project)]

    def manifest_text(self, snapshot_id: str) -> str:
        self.asked.append(snapshot_id)
        return MANIFEST.to_json().rstrip()[:-1] + ', "of_a_newer_version": 1}'


def test_manifests_are_asked_for_once(tmp_path: Path) -> None:
    places, known = Places("p", str(tmp_path / "state"), str(tmp_path / "run")), Known()
    kept_manifests.remember_manifest(places, THERE[2].id, MANIFEST)
    first = info.snapshots_info(known, places, "p")
    assert sorted(known.asked) == [THERE[0].id, THERE[1].id, THERE[3].id]
    assert [each["short_id"][-1] for each in first["snapshots"]] == ["4", "3", "2", "1"]
    assert all(each["manifest"]["way"] == "reflink" for each in first["snapshots"])
    assert "of_a_newer_version" in Path(places.manifests, f"{THERE[1].id}.json").read_text()
    Path(places.manifests, f"{THERE[0].id}.json").write_text("{")
    kept_manifests.forget_manifests(places, [THERE[1].id, "none"])
    info.snapshots_info(known, places, "p")
    assert sorted(known.asked[3:]) == [THERE[0].id, THERE[1].id]


def test_filters_and_the_newest(tmp_path: Path) -> None:
    found = info.snapshots_info(Known(), None, "p", newest_only=True, manifests=False)
    assert [each["id"] for each in found["snapshots"]] == [THERE[2].id]
    assert found["newest_age_s"] == pytest.approx((datetime.now(UTC) - THERE[2].time).total_seconds(), abs=60)
    assert found["repository"] == {"location": "/nowhere", "size_bytes": 0, "snapshots": 0, "health": "unchecked"}
    within = info.snapshots_info(Known(), None, since=THERE[1].time, until=THERE[2].time, manifests=False, host="h")
    assert [each["id"] for each in within["snapshots"]] == [THERE[2].id, THERE[1].id]
    assert info.snapshots_info(Known(), None, host="other")["newest_age_s"] is None


def test_retention_is_for_what_this_host_made(tmp_path: Path) -> None:
    removed: list[tuple[list[str], bool]] = []

    class Shared(Known):
        """Two hosts keep a stack of one name here."""

        def snapshots(self, project: str | None = None, tags: Any = ()) -> list[Snapshot]:
            return [replace(each, hostname=host) for each in super().snapshots(project) for host in ("here", "there")]

        def forget(self, ids: Any, prune: bool = False) -> None:
            removed.append((list(ids), prune))

    places = Places("p", str(tmp_path / "state"), str(tmp_path / "run"))
    regular = [each for each in THERE if each.project == "p" and not each.is_safety]
    gone = info.retain(Shared(), places, Keep(last=1), "here", True)
    assert {each.hostname for each in gone} == {"here"}
    assert regular[-1].id not in {each.id for each in gone}
    assert removed == [([each.id for each in gone], True)]
    assert info.retain(Shared(), places, Keep(last=1), "elsewhere", True) == []


@pytest.mark.parametrize(
    ("option", "kept"),
    [
        ("bind", "bind"),
        ("addr=nas,username=u,password=hunter2,vers=3.0", "addr=nas,username=u,password=***,vers=3.0"),
        ("username=u,pass=hunter2", "username=u,pass=***"),
    ],
)
def test_the_password_of_a_share_is_not_in_a_manifest(option: str, kept: str) -> None:
    assert without_secrets(option) == kept
