"""The Neo4j image behaves as the official one where the stack depends on it."""

from __future__ import annotations

import base64

import pytest

from .conftest import PREFIX, Containers, ask, docker, wait_for

CAPPED = ["--cap-drop=ALL", *(f"--cap-add={c}" for c in ("CHOWN", "SETUID", "SETGID", "DAC_OVERRIDE", "FOWNER"))]
DATA = ("--volume", f"{PREFIX}-data:/data")


def query(address: str, statement: str, password: str = "") -> tuple[int, object]:
    login = base64.b64encode(f"neo4j:{password}".encode()).decode()
    url = f"http://{address}:7474/db/neo4j/query/v2"
    status, answer = ask(url, "POST", {"statement": statement}, authorization=f"Basic {login}")
    return status, answer["data"]["values"] if status == 202 else answer


def test_password_is_set_by_the_first_start_only(containers: Containers) -> None:
    image = containers.image("neo4j")
    options = [*CAPPED, "--security-opt=no-new-privileges", *DATA]
    address = containers.run("neo4j", image, "--env=NEO4J_AUTH=neo4j/first-password", *options)
    wait_for(f"http://{address}:7474")
    assert query(address, "CREATE (n:Kept {id: 1}) RETURN n.id", "first-password") == (202, [[1]])
    owners = docker("exec", f"{PREFIX}-neo4j", "stat", "-c", "%u:%g", "/data", "/logs", "/data/databases").split()
    assert owners == ["7474:7474"] * 3
    docker("stop", "--time", "30", f"{PREFIX}-neo4j")
    assert containers.exit_code("neo4j") in (0, 143)
    address = containers.replace("neo4j", image, "--env=NEO4J_AUTH=neo4j/other-password", *options)
    wait_for(f"http://{address}:7474")
    assert query(address, "MATCH (n:Kept) RETURN n.id", "first-password") == (202, [[1]])
    assert query(address, "RETURN 1", "other-password")[0] == 401


def test_unprivileged_without_login_and_with_settings(containers: Containers) -> None:
    setting = "--env=NEO4J_db_tx__log_rotation_retention__policy=1 files"
    options = ["--user=7474:7474", "--cap-drop=ALL", "--env=NEO4J_AUTH=none", setting, *DATA]
    address = containers.run("neo4j", containers.image("neo4j"), *options)
    wait_for(f"http://{address}:7474")
    shown = "SHOW SETTINGS 'db.tx_log.rotation.retention_policy' YIELD value RETURN value"
    assert query(address, shown) == (202, [["1 files"]])


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ("neo4j/short", "minimum password length is 8"),
        ("neo4j/neo4j", "cannot be 'neo4j'"),
        ("someone/long-enough", "'none' or 'neo4j/<password>'"),
    ],
)
def test_bad_login_is_refused(containers: Containers, auth: str, message: str) -> None:
    containers.run("neo4j", containers.image("neo4j"), f"--env=NEO4J_AUTH={auth}")
    assert containers.exit_code("neo4j") == 1
    assert message in containers.logs("neo4j")


def test_offline_dump_with_the_admin_tool(containers: Containers) -> None:
    image = containers.image("neo4j")
    address = containers.run("neo4j", image, "--env=NEO4J_AUTH=none", *DATA)
    wait_for(f"http://{address}:7474")
    docker("stop", "--time", "30", f"{PREFIX}-neo4j")
    dump = [
        "run",
        "--rm",
        *DATA,
        image,
        "bash",
        "-c",
        "neo4j-admin database dump neo4j --to-path=/tmp && ls /tmp/neo4j.dump",
    ]
    assert "/tmp/neo4j.dump" in docker(*dump)


def test_what_the_official_image_has_inside(containers: Containers) -> None:
    inside = ["run", "--rm", "--entrypoint=bash", containers.image("neo4j"), "-c"]
    assert docker(*inside, "command -v wget; command -v curl || echo none").split() == ["/usr/bin/wget", "none"]
