# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The probe, the exports and the login, with the real stores on this machine's own engine; all is named omproof."""

from __future__ import annotations

import copy
import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof import ask, census, ids, login
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.exports import export
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.probe import probe
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.throwaway import LABEL, Changes, Throwaway
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.trial import changes_for
from ansible_collections.openmemory.stack.plugins.module_utils._core.proof.volume_keys import StoreContainer, stores_of

from live_stack import images

PROJECT = "omproof"
ROOT = Path("/var/tmp") / PROJECT
MEMORIES = [str(uuid.UUID(int=number)) for number in range(1, 41)]
EXPECTED = {
    "m": {"tables": {"memories": 41, "users": 1}},
    "n": {"nodes": 40, "relationships": 39},
    "q": {"collections": {"mem": 40}},
}
SEGMENTS = "collections/mem/0/segments"


class Ledger:
    """A journal that forgets nothing: seen has all that was ever noted, left what was not taken out again."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.left: list[str] = []

    def add(self, key: str, *items: Any) -> None:
        self.seen += [f"{key} {item}" for item in items]
        self.left += [f"{key} {item}" for item in items]

    def drop(self, key: str, *items: Any) -> None:
        self.left = [one for one in self.left if one not in [f"{key} {item}" for item in items]]


class Stores:
    """Running Qdrant and Neo4j, a container of OpenMemory that never ran, and a frozen copy of their volumes."""

    def __init__(self) -> None:
        self.engine = Engine.connect()
        self.keys = {f"{PROJECT}_{key}": key for key in EXPECTED}
        self.staged = {key: str(ROOT / key) for key in EXPECTED}
        self.scratch = str(ROOT / "scratch")
        tags = images()
        self._make("q", tags["qdrant"], "/qdrant/storage", "QDRANT__SERVICE__API_KEY=the-key")
        self._make("n", tags["neo4j"], "/data", "NEO4J_AUTH=neo4j/first-password")
        self._make("m", tags["openmemory-mcp"], "/data", "DATABASE_URL=sqlite:////data/openmemory.db", start=False)
        self._fill()
        self.containers = [self.engine.inspect_container(f"{PROJECT}-{key}") for key in EXPECTED]
        self.live = {key: self.engine.inspect_container(f"{PROJECT}-{key}") for key in EXPECTED}
        self.census = census.ask(self.engine, self.containers, self.keys)
        for key in "qn":
            self.engine.pause(f"{PROJECT}-{key}")
        for key, path in self.staged.items():
            place = self.engine.inspect_volume(f"{PROJECT}_{key}")["Mountpoint"]
            subprocess.run(["cp", "-a", "--sparse=always", place, path], check=True)
        for key in "qn":
            self.engine.unpause(f"{PROJECT}-{key}")

    def _make(self, key: str, image: str, destination: str, variable: str, start: bool = True) -> None:
        mount = {"Type": "volume", "Source": f"{PROJECT}_{key}", "Target": destination}
        self.engine.create_container(
            f"{PROJECT}-{key}", {"Image": image, "Env": [variable], "HostConfig": {"Mounts": [mount]}}
        )
        if start:
            self.engine.start(f"{PROJECT}-{key}")

    def _fill(self) -> None:
        vectors = {"vectors": {"size": 4, "distance": "Cosine"}}
        points = [{"id": one, "vector": [1, 2, 3, number], "payload": {}} for number, one in enumerate(MEMORIES)]
        qdrant = answering(lambda: ask.qdrant(self.engine.inspect_container(f"{PROJECT}-q")), "/readyz")
        qdrant.ask("PUT", "/collections/mem", vectors)
        qdrant.ask("PUT", "/collections/mem/points?wait=true", {"points": points})
        with sqlite3.connect(f"{self.engine.inspect_volume(f'{PROJECT}_m')['Mountpoint']}/openmemory.db") as made:
            made.executescript("CREATE TABLE users (id); INSERT INTO users VALUES (1);")
            made.executescript("CREATE TABLE memories (id TEXT PRIMARY KEY, state TEXT, content TEXT)")
            rows = [*((one, "active", "x" * 300) for one in MEMORIES), (str(uuid.UUID(int=99)), "deleted", "")]
            made.executemany("INSERT INTO memories VALUES (?, ?, ?)", rows)
        graph = answering(lambda: neo4j_service(self.engine.inspect_container(f"{PROJECT}-n")), "/")
        statement = "UNWIND $ids AS one CREATE (:Memory {id: one})"
        ask.Neo4j(graph).run(statement, {"ids": MEMORIES})
        ask.Neo4j(graph).run("MATCH (a:Memory {id: $id}), (b:Memory) WHERE a <> b CREATE (a)-[:NEAR]->(b)",
                             {"id": MEMORIES[0]})  # fmt: skip

    def store(self, key: str) -> StoreContainer:
        return next(store for store in stores_of(self.engine, self.containers, self.keys) if store.key == key)

    def left(self) -> list[str]:
        """Throw-aways and scratch that are still there."""
        found = [str(one["Names"]) for one in self.engine.containers() if (one["Labels"] or {}).get(LABEL) == PROJECT]
        found += [str(one["Name"]) for one in self.engine.networks(f"{LABEL}={PROJECT}")]
        return found + (os.listdir(self.scratch) if os.path.isdir(self.scratch) else [])


def neo4j_service(inspected: dict[str, Any]) -> ask.Service | None:
    graph = ask.neo4j(inspected)
    return graph.service if graph else None


def answering(find: Callable[[], ask.Service | None], path: str) -> ask.Service:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        service = find()
        try:
            if service and service.exchange("GET", path)[0] == 200:
                return service
        except ask.UnansweredError:
            pass
        time.sleep(0.2)
    pytest.fail(f"no answer to {path}")


def remove_all() -> None:
    subprocess.run(f"docker ps -aq --filter name={PROJECT} | xargs -r docker rm -fv >/dev/null", shell=True, check=True)
    subprocess.run(
        f"docker volume ls -q --filter name={PROJECT} | xargs -r docker volume rm >/dev/null", shell=True, check=True
    )
    shutil.rmtree(ROOT, ignore_errors=True)


@pytest.fixture(scope="module")
def stores() -> Iterator[Stores]:
    with open(f"/var/tmp/{PROJECT}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_all()
        ROOT.mkdir()
        yield Stores()
        remove_all()


def digest(root: str) -> str:
    seen = hashlib.sha256()
    for path in sorted(Path(root).rglob("*")):
        about = path.lstat()
        seen.update(f"{path} {about.st_mode} {about.st_uid} {about.st_mtime_ns}".encode())
        seen.update(path.read_bytes() if path.is_file() else b"")
    return seen.hexdigest()


def test_a_good_copy_gives_its_census_and_stays_as_it_is(stores: Stores) -> None:
    ledger, notes, before = Ledger(), list[str](), {key: digest(path) for key, path in stores.staged.items()}
    found = probe(
        stores.engine, ledger, PROJECT, stores.containers, stores.staged, stores.scratch, keys=stores.keys, notes=notes
    )
    assert found == EXPECTED
    assert notes == []
    assert census.compare(stores.census, found) == []
    assert stores.census == {key: EXPECTED[key] for key in "nq"}
    assert {key: digest(path) for key, path in stores.staged.items()} == before
    assert stores.left() == []
    assert len(ledger.seen) == 3
    assert ledger.left == []


def test_memories_that_a_store_has_lost_are_named(stores: Stores) -> None:
    lost = str(uuid.UUID(int=77))
    assert ids.disagreements(MEMORIES, stores.live["q"], stores.live["n"]) == []
    assert ids.disagreements([*MEMORIES, lost], stores.live["q"], stores.live["n"]) == [
        f"Qdrant has no point for 1 of 41 active memories ({lost}).",
        f"Neo4j has no node for 1 of 41 active memories ({lost}).",
    ]


def vectors_gone(root: Path) -> None:
    for segment in (root / SEGMENTS).iterdir():
        shutil.rmtree(segment)


def state_lost(root: Path) -> None:
    for file in (root / SEGMENTS).glob("*/payload_storage/config.json"):
        file.write_text("{")


def overwrite(file: str, offset: int) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        with open(root / file, "r+b") as stream:
            stream.seek(offset)
            stream.write(os.urandom(4096))

    return damage


@pytest.mark.parametrize(
    ("key", "damage", "sentence"),
    [
        ("q", vectors_gone, "The copy is damaged: q (qdrant): shard mem/0 has no complete segment"),
        ("q", state_lost, "The qdrant store does not recover from the copy of q: it ended with code 1"),
        (
            "n",
            lambda root: os.truncate(root / "databases/neo4j/neostore.nodestore.db", 100),
            "is cut off inside a page",
        ),
        ("n", overwrite("databases/neo4j/neostore", 0), "The neo4j store does not recover from the copy of n: its"),
        ("m", overwrite("openmemory.db", 8192), "The copy is damaged: m (sqlite): openmemory.db"),
    ],
)
def test_a_damaged_copy_fails_with_a_sentence_and_leaves_nothing(
    stores: Stores, key: str, damage: Callable[[Path], None], sentence: str
) -> None:
    broken, ledger = ROOT / "broken", Ledger()
    shutil.rmtree(broken, ignore_errors=True)
    subprocess.run(["cp", "-a", "--sparse=always", stores.staged[key], broken], check=True)
    damage(broken)
    with pytest.raises(StackError) as caught:
        probe(stores.engine, ledger, PROJECT, stores.containers, {key: str(broken)}, stores.scratch, keys=stores.keys)
    assert sentence in str(caught.value)
    assert ("\n  " in str(caught.value)) == ("does not recover" in sentence)
    assert stores.left() == []
    assert ledger.left == []


def test_a_store_that_never_answers_is_given_up(stores: Stores) -> None:
    with pytest.raises(StackError, match="does not recover from the copy of n: it did not answer within"):
        probe(stores.engine, None, PROJECT, stores.containers, {"n": stores.staged["n"]}, stores.scratch, 0.5,
              keys=stores.keys)  # fmt: skip
    assert stores.left() == []


def test_exports_can_be_loaded_and_get_the_hosts_password(stores: Stores) -> None:
    ledger, target = Ledger(), ROOT / "export"
    before = {key: digest(path) for key, path in stores.staged.items()}
    made = export(
        stores.engine, ledger, PROJECT, stores.containers, stores.staged, str(target), stores.scratch, keys=stores.keys
    )
    assert [one["path"] for one in made] == [
        "sqlite/m/openmemory.db",
        "neo4j/n/neo4j.dump",
        "neo4j/n/system.dump",
        "qdrant/q/mem.snapshot",
    ]
    for one in made:
        about = (target / one["path"]).stat()
        assert (about.st_mode & 0o7777, about.st_uid, about.st_gid, about.st_size) == (0o600, 0, 0, one["bytes"])
    assert {path.stat().st_mode & 0o7777 for path in [target, *target.rglob("*")] if path.is_dir()} == {0o700}
    with sqlite3.connect(target / "sqlite/m/openmemory.db") as database:
        assert database.execute("SELECT count(*) FROM memories").fetchone() == (41,)
    assert {key: digest(path) for key, path in stores.staged.items()} == before
    assert stores.left() == []
    assert ledger.left == []
    load_and_log_in(stores, target / "neo4j/n")
    recover_and_count(stores, target / "qdrant/q")


def test_a_server_without_snapshots_is_exported_without_them(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = ask.Service.exchange

    def elsewhere(self: Any, method: str, path: str, *more: Any, **named: Any) -> Any:
        return exchange(self, method, path.replace("/snapshots?", "/none?"), *more, **named)  # its own answer

    monkeypatch.setattr(ask.Service, "exchange", elsewhere)
    notes: list[str] = []
    made = export(
        stores.engine, None, PROJECT, stores.containers, {key: stores.staged[key] for key in ("m", "q")},
        str(ROOT / "export"), stores.scratch, keys=stores.keys, notes=notes,
    )  # fmt: skip
    assert [one["path"] for one in made] == ["sqlite/m/openmemory.db"]
    assert len(notes) == 1
    assert notes[0].startswith("The export of q lacks the snapshots of its collections")
    assert "HTTP 404" in notes[0]
    assert stores.left() == []


def recover_and_count(stores: Stores, snapshots: Path) -> None:
    """An empty Qdrant takes the snapshot in, and has all of its points then."""
    fresh, place = ROOT / "empty", "/snapshots"
    fresh.mkdir()
    with Throwaway(stores.engine, None, PROJECT) as throwaway:
        changes = Changes({"/qdrant/storage": str(fresh), place: str(snapshots)})
        name = throwaway.start(stores.live["q"], "recover", changes)
        qdrant = answering(lambda: ask.qdrant(throwaway.inspect(name)), "/readyz")
        assert census.count_qdrant(qdrant) == {"collections": {}}
        location = {"location": f"file://{place}/mem.snapshot"}
        qdrant.ask("PUT", "/collections/mem/snapshots/recover?wait=true", location)
        assert census.count_qdrant(qdrant) == stores.census["q"]
    assert stores.left() == []


def load_and_log_in(stores: Stores, dumps: Path) -> None:
    """What was dumped is loaded into an empty directory, given another password, and started with a login."""
    fresh, store = ROOT / "fresh", stores.store("n")
    fresh.mkdir()
    for path in (fresh, dumps, *dumps.iterdir()):
        os.chown(path, 7474, 7474)
    with Throwaway(stores.engine, None, PROJECT) as throwaway:
        changes = changes_for(store, str(fresh), {"/dumps": str(dumps)})
        command = ["neo4j-admin", "database", "load", "*", "--from-path=/dumps", "--overwrite-destination=true"]
        load = Changes(changes.binds, changes.environment, changes.drop, command)
        throwaway.run(stores.live["n"], "load", load, 120)
    login.set_password(stores.engine, None, PROJECT, store, str(fresh), "second-password")
    with Throwaway(stores.engine, None, PROJECT) as throwaway:
        name = throwaway.start(stores.live["n"], "login", Changes({"/data": str(fresh)}))
        answering(lambda: neo4j_service(throwaway.inspect(name)), "/")
        inspected = throwaway.inspect(name)
        assert "refuses the password of this host's settings" in str(login.login_problem(inspected))
        graph = ask.neo4j(inspected, "second-password")
        assert graph is not None
        assert census.count_neo4j(graph) == EXPECTED["n"]
    assert stores.left() == []


def test_the_login_of_the_live_neo4j_is_checked(stores: Stores) -> None:
    assert login.login_problem(stores.live["n"]) is None
    other = copy.deepcopy(stores.live["n"])
    other["Config"]["Env"] = ["NEO4J_AUTH=neo4j/another-password"]
    problem = str(login.login_problem(other))
    assert "refuses the password of this host's settings" in problem
    assert "another-password" not in problem
    notes: list[str] = []
    assert census.ask(stores.engine, [other], stores.keys, notes) == {"n": None}
    assert "refuses the login" in notes[0]
