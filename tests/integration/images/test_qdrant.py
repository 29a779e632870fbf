"""Qdrant's engine behind its REST subset, asked with Qdrant's own client."""

from __future__ import annotations

import uuid

import pytest
from qdrant_client import QdrantClient, models

from .conftest import PREFIX, Containers, ask, docker, wait_for

NAME = "things"
COUNT = 300


def client_of(url: str, **options: str) -> QdrantClient:
    return QdrantClient(url=url, trust_env=False, timeout=30, check_compatibility=False, **options)


def fill(client: QdrantClient, count: int = COUNT) -> list[str]:
    client.create_collection(NAME, vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    ids = [str(uuid.uuid4()) for _number in range(count)]
    for number, identity in enumerate(ids):
        payload = {"number": number, "parity": "odd" if number % 2 else "even"}
        client.upsert(NAME, [models.PointStruct(id=identity, vector=[1, 2, 3, number], payload=payload)], wait=True)
    return ids


@pytest.fixture
def url(containers: Containers) -> str:
    address = containers.run("qdrant", containers.image("qdrant"), "--volume", f"{PREFIX}-storage:/qdrant/storage")
    wait_for(f"http://{address}:6333/readyz")
    return f"http://{address}:6333"


def test_collections_and_points(url: str) -> None:
    client = client_of(url)
    ids = fill(client)
    assert [c.name for c in client.get_collections().collections] == [NAME]
    assert client.collection_exists(NAME)
    assert client.get_collection(NAME).points_count == COUNT
    assert client.count(NAME, exact=True).count == COUNT
    odd = models.Filter(must=[models.FieldCondition(key="parity", match=models.MatchValue(value="odd"))])
    assert client.count(NAME, count_filter=odd, exact=True).count == COUNT // 2
    seen, offset = [], None
    while True:
        page, offset = client.scroll(NAME, scroll_filter=odd, limit=40, offset=offset)
        seen += [str(point.id) for point in page]
        if offset is None:
            break
    assert sorted(seen) == sorted(ids[1::2])
    nearest = client.query_points(NAME, query=[1.0, 2.0, 3.0, 7.0], limit=1, with_payload=True).points[0]
    assert (nearest.id, nearest.payload) == (ids[7], {"number": 7, "parity": "odd"})
    assert client.retrieve(NAME, [ids[3]], with_vectors=True)[0].vector is not None
    client.delete(NAME, points_selector=ids[:10])
    client.delete(NAME, points_selector=models.FilterSelector(filter=odd))
    assert client.count(NAME, exact=True).count == COUNT // 2 - 5
    client.delete_collection(NAME)
    assert not client.collection_exists(NAME)


def test_killed_server_keeps_every_acknowledged_point(containers: Containers, url: str) -> None:
    ids = fill(client_of(url))
    client_of(url).delete(NAME, points_selector=ids[:20])
    docker("kill", "--signal", "KILL", f"{PREFIX}-qdrant")
    docker("start", f"{PREFIX}-qdrant")
    url = f"http://{containers.address('qdrant')}:6333"
    wait_for(f"{url}/readyz")
    found = {str(point.id) for point in client_of(url).scroll(NAME, limit=2 * COUNT)[0]}
    assert found == set(ids[20:])


def test_damaged_storage_stops_the_start(containers: Containers, url: str) -> None:
    fill(client_of(url), 5)
    docker(
        "exec", f"{PREFIX}-qdrant", "bash", "-c", f"rm -r /qdrant/storage/collections/{NAME}/0/segments/*/segment.json"
    )
    docker("restart", "--time", "0", f"{PREFIX}-qdrant")
    assert containers.exit_code("qdrant") == 1
    assert "cannot load the collections" in containers.logs("qdrant")


def test_snapshots(url: str) -> None:
    client = client_of(url)
    ids = fill(client, 50)
    made = client.create_snapshot(NAME)
    assert [s.name for s in client.list_snapshots(NAME)] == [made.name]
    client.delete(NAME, points_selector=ids[:30])
    place = f"file:///qdrant/snapshots/{NAME}/{made.name}"
    client.recover_snapshot(NAME, location=place, priority=models.SnapshotPriority.SNAPSHOT)
    assert client.count(NAME, exact=True).count == 50
    client.delete_snapshot(NAME, made.name)
    assert client.list_snapshots(NAME) == []
    status, answer = ask(f"{url}/collections/{NAME}/snapshots/recover", "PUT", {"location": place})
    assert (status, "not found" in answer["status"]["error"]) == (404, True)


def test_api_key(containers: Containers, url: str) -> None:
    address = containers.run("keyed", containers.image("qdrant"), "--env", "QDRANT__SERVICE__API_KEY=secret")
    keyed = f"http://{address}:6333"
    for path in ("/", "/healthz", "/livez", "/readyz"):
        wait_for(keyed + path)
    assert ask(f"{keyed}/collections")[0] == 401
    assert ask(f"{keyed}/collections", api_key="wrong")[0] == 401
    assert ask(f"{keyed}/collections", api_key="secret")[0] == 200
    assert ask(f"{keyed}/collections", authorization="Bearer secret")[0] == 200
    assert client_of(keyed, api_key="secret").get_collections().collections == []


def test_what_it_does_not_serve_is_an_error_not_a_guess(url: str) -> None:
    fill(client_of(url), 3)
    assert ask(f"{url}/collections/{NAME}/points/recommend", "POST", {})[0] == 404
    status, answer = ask(f"{url}/collections/{NAME}/points/scroll", "POST", {"filter": {"min_should": {}}})
    assert (status, answer["status"]["error"]) == (400, "filter clause 'min_should' is not served here")
    assert ask(f"{url}/collections/none/points/count", "POST", {})[0] == 404
    assert ask(f"{url}/collections/{NAME}", "PUT", {"vectors": {"size": 4, "distance": "Dot"}})[0] == 409


def test_what_the_real_image_has_inside(url: str) -> None:
    inside = ["exec", f"{PREFIX}-qdrant", "bash", "-c"]
    assert docker(*inside, "id -u; command -v curl wget || echo none").split() == ["0", "none"]
    probe = "exec 3<>/dev/tcp/127.0.0.1/6333; printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; head -1 <&3"
    assert " 200 " in docker(*inside, probe)
