"""The table of status.yml: what a person reads of each kind of volume."""

from __future__ import annotations

from ansible_collections.openmemory.stack.plugins.filter.status_table import status_table

QDRANT = {
    "name": "om_qdrant",
    "backing": "path",
    "device": "/srv/q",
    "mountpoint": "/var/lib/docker/volumes/om_qdrant/_data",
    "size_bytes": 818937856,
    "allocated_bytes": 143654912,
    "size_complete": True,
    "filesystem": {"free_bytes": 5 * 1024**3},
    "store": {"kind": "qdrant", "version": "1.18.0", "health": "ok"},
    "containers": [{"name": "om-qdrant-1", "state": "running"}],
    "empty": False,
}


def test_a_volume_is_one_line_with_its_backing_place_size_store_health_and_users():
    table = status_table(
        [
            {
                "host": "a",
                "volumes": [QDRANT],
                "containers": [{"name": "om-qdrant-1", "state": "running", "health": "healthy"}],
            }
        ]
    )
    header, line = table.splitlines()
    assert header.split() == ["HOST", "VOLUME", "BACKING", "WHERE", "SIZE", "FREE", "STORE", "HEALTH", "USED", "BY"]
    assert line.split("  ")[0] == "a"
    for cell in (
        "om_qdrant",
        "path",
        "/srv/q",
        "137.0 MiB",
        "5.0 GiB",
        "qdrant 1.18.0",
        "ok",
        "om-qdrant-1 (running, healthy)",
    ):
        assert cell in line


def test_columns_are_aligned():
    table = status_table([{"host": "a-long-host-name", "volumes": [QDRANT]}, {"host": "b", "volumes": [QDRANT]}])
    assert len({line.index("path") for line in table.splitlines()[1:]}) == 1


def test_a_host_without_an_answer_is_on_the_table_with_its_reason():
    table = status_table([{"host": "gone", "problem": "Failed to connect"}])
    assert "no answer" in table
    assert table.endswith("gone: Failed to connect")


def test_what_is_wrong_with_a_volume_is_said_below():
    volume = {
        **QDRANT,
        "empty": True,
        "containers": [],
        "problem": "Its directory /srv/q is gone from disk.",
        "misplaced": [
            {"container": "q", "store": "qdrant", "destination": "/mem0/storage", "expected": "/qdrant/storage"}
        ],
    }
    table = status_table([{"host": "a", "volumes": [volume]}])
    assert "empty" in table
    assert "nobody" in table
    assert "a: om_qdrant: Its directory /srv/q is gone from disk." in table
    assert "/mem0/storage" in table
    assert "/qdrant/storage" in table


def test_a_size_that_could_not_be_counted_to_the_end_is_a_lower_bound():
    assert "over 137.0 MiB" in status_table([{"host": "a", "volumes": [{**QDRANT, "size_complete": False}]}])


def test_a_host_without_volumes_says_so():
    assert "no volumes" in status_table([{"host": "a", "volumes": []}])


def test_a_size_that_is_not_known_at_all_is_a_dash():
    unseen = {**QDRANT, "allocated_bytes": None, "size_bytes": None, "size_complete": False}
    assert "over" not in status_table([{"host": "a", "volumes": [unseen]}])


BACKUP = {"created": "2026-11-26T02:31:00+00:00", "snapshot_id": "5f0c2a9be1d2", "freeze_s": 0.214}


def test_backups_have_a_table_of_their_own_and_what_failed_is_said():
    failed = "The last attempt, 2 h ago, failed: No room is left."
    table = status_table(
        [
            {"host": "good", "volumes": [QDRANT], "backup": {"last": {"backup": BACKUP}, "attention": []}},
            {"host": "bad", "volumes": [QDRANT], "backup": {"last": {"backup": BACKUP}, "attention": [failed]}},
            {
                "host": "left",
                "volumes": [QDRANT],
                "backup": {
                    "last": {"backup": BACKUP},
                    "retired": {"target": "good", "at": "2026-11-26T02:31:00+00:00"},
                },
            },
            {"host": "bare", "volumes": [QDRANT], "backup": {}},
            {"host": "odd", "volumes": [QDRANT], "backup": {"failed": True, "msg": "no", "exit_code": 2}},
            {"host": "gone", "problem": "Failed to connect", "backup": {}},
        ]
    )
    _volumes, backups, notes = table.split("\n\n")
    lines = [[cell.strip() for cell in line.split("  ") if cell] for line in backups.splitlines()]
    assert lines[1] == ["good", "2026-11-26 02:31Z", "5f0c2a9b", "0.21 s", "-", "-", "good"]
    assert lines[2] == ["bad", "2026-11-26 02:31Z", "5f0c2a9b", "0.21 s", "-", "-", "ATTENTION"]
    assert lines[3][-1] == "moved away"
    assert lines[4] == ["bare", "-", "-", "-", "-", "-", "no role backup"]
    assert lines[5] == ["odd", "-", "-", "-", "-", "-", "no answer"]
    assert len(lines) == 6
    assert f"bad: {failed}" in notes.splitlines()
    assert "left: moved to good at 2026-11-26 02:31Z; what is here is old" in notes.splitlines()
