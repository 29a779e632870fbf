# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of each volume, from the settings of the role stack."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.filter.volume_plan import volume_plan

OURS = {
    "openmemory_data": {"store": "sqlite"},
    "qdrant_storage": {"store": "qdrant"},
    "neo4j_data": {"store": "neo4j"},
    "neo4j_logs": {"store": "files"},
}
THEIRS = {
    "data": {"name": "om_data", "driver": "local", "driver_opts": {}, "external": False},
    "nfs": {"name": "om_nfs", "driver": "local", "driver_opts": {"type": "nfs", "device": ":/x"}, "external": False},
    "bound": {
        "name": "om_bound",
        "driver": "local",
        "driver_opts": {"type": "none", "o": "bind", "device": "/srv/bound"},
        "external": False,
    },
    "elsewhere": {"name": "shared", "driver": "local", "driver_opts": {}, "external": True},
}


def entry(plan: dict[str, Any], name: str) -> dict[str, Any]:
    assert plan["problem"] == ""
    found: dict[str, Any] = next(volume for volume in plan["volumes"] if volume["name"] == name)
    return found


def test_by_default_volumes_are_managed_and_external() -> None:
    plan = volume_plan(OURS, "om")
    assert entry(plan, "om_neo4j_data") == {
        "name": "om_neo4j_data", "backing": "managed", "store": "neo4j", "driver": "local", "driver_opts": {}
    }  # fmt: skip
    assert plan["compose"]["neo4j_data"] == {"external": True, "name": "om_neo4j_data"}


def test_unprotected_is_the_guides_block() -> None:
    plan = volume_plan(OURS, "om", protected=False)
    assert plan["compose"] == {key: {"driver": "local"} for key in OURS}


def test_all_under_one_directory_but_for_one() -> None:
    settings = {"neo4j_logs": {"backing": "managed"}, "qdrant_storage": {"path": "/fast/qdrant/", "mode": "0700"}}
    plan = volume_plan(OURS, "om", settings, data_dir="/srv/om", protected=False)
    assert entry(plan, "om_openmemory_data")["path"] == "/srv/om/openmemory_data"
    assert entry(plan, "om_qdrant_storage")["path"] == "/fast/qdrant"
    assert entry(plan, "om_qdrant_storage")["mode"] == "0700"
    assert plan["compose"]["qdrant_storage"] == {
        "driver": "local", "driver_opts": {"type": "none", "o": "bind", "device": "/fast/qdrant"}
    }  # fmt: skip
    assert plan["compose"]["neo4j_logs"] == {"driver": "local"}


def test_the_logs_of_neo4j_get_its_owner_only_where_there_is_a_directory() -> None:
    assert entry(volume_plan(OURS, "om", data_dir="/srv"), "om_neo4j_logs")["owner"] == "7474"
    assert "owner" not in entry(volume_plan(OURS, "om"), "om_neo4j_logs")


def test_protected_and_name_for_one_volume() -> None:
    plan = volume_plan(OURS, "om", {"neo4j_logs": {"protected": False, "name": "logs"}})
    assert plan["compose"]["neo4j_logs"] == {"driver": "local", "name": "logs"}
    assert plan["compose"]["neo4j_data"]["external"] is True


def test_a_users_file_is_overridden_only_where_it_says_something_else() -> None:
    assert volume_plan(THEIRS, "om", protected=False)["override"] == {}
    plan = volume_plan(THEIRS, "om")
    assert plan["override"] == {key: {"external": True, "name": f"om_{key}"} for key in ("data", "nfs", "bound")}
    assert entry(plan, "om_nfs")["driver_opts"] == {"type": "nfs", "device": ":/x"}
    assert entry(plan, "om_bound") == {"name": "om_bound", "path": "/srv/bound", "backing": "path"}
    assert "shared" not in [volume["name"] for volume in plan["volumes"]]


def test_one_directory_for_all_leaves_special_volumes_of_a_users_file_alone() -> None:
    plan = volume_plan(THEIRS, "om", data_dir="/srv/om")
    assert entry(plan, "om_data")["path"] == "/srv/om/data"
    assert entry(plan, "om_nfs")["backing"] == "managed"
    assert entry(plan, "om_bound")["path"] == "/srv/om/bound"


def test_the_settings_may_move_a_users_external_volume() -> None:
    plan = volume_plan(THEIRS, "om", {"elsewhere": {"path": "/srv/shared"}})
    assert entry(plan, "shared")["path"] == "/srv/shared"
    assert plan["compose"]["elsewhere"] == {"external": True, "name": "shared"}


def test_stores_of_a_users_file_are_recognised_by_image_and_mount() -> None:
    mounts = [{"type": "volume", "source": "data", "target": "/qdrant/storage"}]
    services = {"vectors": {"image": "registry:5000/qdrant/qdrant:v1@sha256:00", "mounts": mounts}}
    assert entry(volume_plan(THEIRS, "om", services=services), "om_data")["store"] == "qdrant"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("x", "stack_volumes is 'x'; it must be a dictionary with a volume's key and its settings."),
        (
            {"neo4j_dat": {}},
            "stack_volumes names 'neo4j_dat', no volume of the compose file (is it neo4j_data?); it has neo4j_data, "
            "neo4j_logs, openmemory_data, qdrant_storage.",
        ),
        ({"neo4j_data": "/srv"}, "stack_volumes.neo4j_data is '/srv'; it must be a dictionary of settings."),
        (
            {"neo4j_data": {"pth": "/srv"}},
            "stack_volumes.neo4j_data has the unknown key 'pth' (is it path?); the keys are backing, driver, "
            "driver_opts, group, labels, min_free, mode, name, owner, path, protected, store.",
        ),
        ({"neo4j_data": {"backing": "disk"}}, "stack_volumes.neo4j_data.backing is 'disk'; it is managed or path."),
        (
            {"neo4j_data": {"backing": "managed", "path": "/x"}},
            "stack_volumes.neo4j_data has a path and the backing managed; remove one of the two.",
        ),
        (
            {"neo4j_data": {"backing": "path"}},
            "stack_volumes.neo4j_data has the backing path and no path; give it one, or set stack_data_dir.",
        ),
    ],
)
def test_bad_settings_are_one_sentence(settings: Any, sentence: str) -> None:
    plan = volume_plan(OURS, "om", settings)
    assert plan["problem"] == sentence
