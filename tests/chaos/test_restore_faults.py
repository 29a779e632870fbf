# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole restores in which something breaks: each ends in one sentence, with all as before, and the next one is good."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core import compose_health
from ansible_collections.openmemory.stack.plugins.module_utils._core.backup import backup
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.durable import OpenFileSystems
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import restore
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore.safety import backup_request
from restore_stack import IMAGE, LABELS, PROJECT, VOLUMES
from small_disks import SmallStack, happening, on_small_disks, sentence

MIB = 1 << 20
made = pytest.fixture(scope="module")(on_small_disks)


def test_what_no_step_foresaw_is_a_sentence_too(
    small: SmallStack, snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = small.trees()
    for owner, name in ((restore, "in_root_moves"), (OpenFileSystems, "flush")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse_all)
            sentence(small.restore, "The restore failed at /some/where (Input/output error)", "then run it again")
        small.assert_untouched(live)
    small.assert_restores(snapshot)


def refuse_all(*_given: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO), "/some/where")


@contextmanager
def broken(small: SmallStack) -> Iterator[Path]:
    """The repository, to be broken, and whole again afterwards."""
    place = small.repository
    spare = small.disks["staging"].place / "spare"
    shutil.copytree(place, spare)
    shutil.rmtree(small.state / "cache", ignore_errors=True)  # as on another host: what is in it needs no reading
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(spare, place)
        shutil.rmtree(spare)


def largest_pack(repository: Path) -> Path:
    return max((repository / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def flip_bytes(repository: Path) -> None:
    pack = largest_pack(repository)
    content = bytearray(pack.read_bytes())
    for at in range(1000, len(content) // 2, 4096):
        content[at] ^= 0xFF
    pack.write_bytes(content)


def cut_index(repository: Path) -> None:
    for path in (repository / "index").iterdir():
        os.truncate(path, 50)


DAMAGED = "is damaged: data in it is not what was written"
BROKEN: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a damaged pack": (flip_bytes, (DAMAGED, "with check")),
    "a deleted pack": (lambda place: largest_pack(place).unlink(), ("a file of it is missing", "with check")),
    "a truncated index": (cut_index, (DAMAGED, "with check")),
    "a truncated config": (lambda place: os.truncate(place / "config", 20), ("config file cannot be read", "copy")),
    "no keys": (lambda place: shutil.rmtree(place / "keys"), ("password",)),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_repository_is_broken(small: SmallStack, snapshot: dict[str, Any], fault: str) -> None:
    harm, words = BROKEN[fault]
    live = small.trees()
    with broken(small) as place:
        harm(place)
        said = [sentence(small.restore, *words, str(place)) for _run in range(2)]
        assert said[0] == said[1]
        small.assert_untouched(live)
    small.assert_restores(snapshot)


@contextmanager
def thief(place: Path, sign: Callable[[], bool]) -> Iterator[Path]:
    """Renames a directory away at a sign, and back at the end."""
    away, over = place.with_name("away"), threading.Event()

    def watch() -> None:
        while not over.is_set() and not sign():
            time.sleep(0.001)
        place.rename(away)

    work = threading.Thread(target=watch)
    work.start()
    try:
        yield away
    finally:
        over.set()
        work.join()
        shutil.rmtree(place, ignore_errors=True)
        away.rename(place)


VANISHES = {
    "before the fetch": ("There is no repository at", "check the address"),
    "halfway through the fetch": ("vanished meanwhile",),
}


@pytest.mark.parametrize("when", VANISHES)
def test_the_repository_vanishes(small: SmallStack, snapshot: dict[str, Any], when: str) -> None:
    live, begun = small.trees(), threading.Event()
    (small.root("data") / "much").write_bytes(os.urandom(64 * MIB))  # in several packs, which are read one by one
    much = small.backup()
    (small.root("data") / "much").unlink()

    def has_come() -> bool:
        if when == "before the fetch":
            return begun.is_set()
        return any(path.is_file() for path in small.root("data").parent.glob(".openmemory-restore-*/*/volumes/**/*"))

    def let_steal() -> None:
        begun.set()
        end = time.monotonic() + 60
        while when == "before the fetch" and small.repository.exists():
            assert time.monotonic() < end
            time.sleep(0.001)

    with thief(small.repository, has_come) as away:
        with happening(("journal", "fetch"), let_steal) as progress:
            sentence(lambda: small.restore(progress, snapshot=much), str(small.repository), *VANISHES[when])
        assert away.exists()
        small.assert_untouched(live)
        sentence(lambda: small.restore(snapshot=much), f"There is no repository at {small.repository}")
        small.assert_untouched(live)
    small.assert_restores(snapshot)


def test_a_wrong_password(small: SmallStack, snapshot: dict[str, Any]) -> None:
    live, right = small.trees(), small.password.read_text()
    small.password.write_text("wrong")
    try:
        said = [sentence(small.restore, "does not open the repository", "give the file that was used") for _run in "12"]
        assert said[0] == said[1]
        small.assert_untouched(live)
    finally:
        small.password.write_text(right)
    small.assert_restores(snapshot)


def change(name: str, act: Callable[[str], str]) -> Callable[[Path], None]:
    def harm(staging: Path) -> None:
        text = (staging / name).read_text()
        (staging / name).write_text(act(text))

    return harm


def without(what: str) -> Callable[[str], str]:
    return lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != what})


ADVICE = "take another snapshot"
TAMPERED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "a truncated manifest": (change("manifest.json", lambda text: text[:60]), ("is cut off or damaged", ADVICE)),
    "an empty manifest": (change("manifest.json", lambda text: ""), ("is cut off or damaged", ADVICE)),
    "a manifest without volumes": (change("manifest.json", without("volumes")), ("(volumes is None)", ADVICE)),
    "a manifest of something else": (change("manifest.json", lambda text: "[]"), ("is none of ours", ADVICE)),
    "a truncated listing": (change("listing.jsonl", lambda text: text[: len(text) // 2]), ("cut off", ADVICE)),
    "a listing without its end": (change("listing.jsonl", lambda text: text[: text.rindex("{")]), ("cut off", ADVICE)),
    "an empty listing": (change("listing.jsonl", lambda text: ""), ("cut off or damaged", ADVICE)),
    "no listing": (lambda staging: (staging / "listing.jsonl").unlink(), ("holds no /listing.jsonl", "see what")),
    "no manifest": (lambda staging: (staging / "manifest.json").unlink(), ("holds no /manifest.json", "damaged")),
    "another size": (
        change("listing.jsonl", lambda text: text.replace(f'"size":{3 * MIB}', f'"size":{3 * MIB + 1}')),
        ("is not what was captured: bulk", "Nothing was put in place", ADVICE),
    ),
    "a file too few": (lambda staging: (staging / "volumes/disk/bulk").unlink(), ("bulk: missing", ADVICE)),
    "a volume too few": (lambda staging: shutil.rmtree(staging / "volumes/disk"), ("holds no /volumes/disk", "see")),
}


def test_the_snapshot_is_damaged(small: SmallStack, snapshot: dict[str, Any]) -> None:
    """In itself: restic hands out what it was given."""
    small.bulk()
    small.backup()
    small.fill("later")
    live, copy = small.trees(), small.disks["staging"].place / "tampered"
    repository = backup.open_repository(backup_request(small.request), small.places)
    for harm, words in TAMPERED.values():
        subprocess.run(["cp", "-a", small.places.staging, copy], check=True)
        harm(copy)
        names = [name for name in ("manifest.json", "listing.jsonl", "volumes") if (copy / name).exists()]
        damaged = repository.commit(str(copy), names, ["openmemory-stack", f"project={PROJECT}"]).snapshot_id
        shutil.rmtree(copy)
        sentence(partial(small.restore, snapshot=damaged), *words)
        small.assert_untouched(live)
        repository.forget([damaged])
    small.assert_restores(snapshot)


@pytest.fixture
def judged(small: SmallStack) -> Iterator[SmallStack]:
    """A third container, whose health check is a program in the volume data."""
    shutil.copy("/bin/sleep", small.root("data") / "judge")
    check = {"test": ["CMD", "/data/judge", "0"], "interval": 200_000_000, "timeout": 10**10, "retries": 2}
    labels = {f"{LABELS}project": PROJECT, f"{LABELS}service": "judge", f"{LABELS}depends_on": ""}
    settings = small.client.create_host_config(binds=[f"{PROJECT}_data:/data"], network_mode="none")
    made = small.client.create_container(
        IMAGE, ["/bin/sleep", "600"], name=f"{PROJECT}-judge", labels=labels, host_config=settings,
        stop_signal="SIGKILL", healthcheck=check,
    )  # fmt: skip
    small.client.start(made)
    yield small
    small.client.remove_container(made, force=True)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("judge", "container omrest-judge is running and unhealthy"),
        ("run", "container omrest-store is exited (exit code 1)"),
    ],
)
def test_a_store_that_does_not_become_healthy(
    judged: SmallStack, program: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts, and then does not work on the new data, or ends: the old data comes back, and works."""
    monkeypatch.setattr(compose_health, "_UNHEALTHY_SECONDS", 1.0)
    place = judged.root("data") / program
    good = place.read_bytes()
    replace_program(place, Path("/bin/false").read_bytes())
    broken_snapshot = judged.backup()
    replace_program(place, good)
    live = judged.trees()
    with pytest.raises(StackError) as raised:
        judged.restore(snapshot=broken_snapshot, wait_timeout=15)
    text = str(raised.value)  # with the last lines of the log, so it is no single line
    assert said in text
    assert "It was taken back: the data is as it was before, and omrest-" in text
    assert "do not work on it either" not in text
    assert "Traceback" not in text
    assert judged.trees() == live
    assert judged.running() == [f"{PROJECT}-{name}" for name in ("app", "judge", "store")]
    assert judged.client.inspect_container(f"{PROJECT}-judge")["State"]["Health"]["Status"] == "healthy"
    assert len(judged.left()) == len(VOLUMES)  # what was swapped in was live, and is kept


def replace_program(place: Path, content: bytes) -> None:
    """As a new file: the old one may be running."""
    place.unlink()
    place.write_bytes(content)
    place.chmod(0o755)
