# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading Compose's progress, guarding volumes, and the stamp that spares an `up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_events import changes, sentences
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_guard import (
    check_references,
    check_volumes,
    config_volumes,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.compose_stamp import (
    can_be_trusted,
    fingerprint,
    make_stamp,
    read_stamp,
    remove_stamp,
    write_stamp,
)
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError

# As Compose 2.26 prints it, with a container that exists ("Created") and is started.
PROGRESS_2_26 = """ DRY-RUN MODE -  Network om_default  Creating
 DRY-RUN MODE -  Network om_default  Created
 DRY-RUN MODE -  Volume "om_vb"  Creating
 DRY-RUN MODE -  Volume "om_vb"  Created
 DRY-RUN MODE -  Container om-a-1  Running
 DRY-RUN MODE -  Container om-b-1  Created
 DRY-RUN MODE -  Container om-c-1  Recreate
 DRY-RUN MODE -  Container om-c-1  Recreated
 DRY-RUN MODE -  Container om-a-1  Waiting
 DRY-RUN MODE -  Container om-a-1  Healthy
 DRY-RUN MODE -  Container om-b-1  Starting
 DRY-RUN MODE -  Container om-b-1  Started
 DRY-RUN MODE -  Container 63de204dfb9f_om-c-1  Starting
 DRY-RUN MODE -  Container 63de204dfb9f_om-c-1  Started
"""
PROGRESS_2_40 = """ Container om-a-1  Running
 Container om-b-1  Creating
 Container om-b-1  Created
 Container om-b-1  Starting
 Container om-b-1  Started
"""


def test_the_changes_in_composes_progress() -> None:
    assert changes(PROGRESS_2_26) == [
        ("network", "om_default", "created"),
        ("volume", "om_vb", "created"),
        ("container", "om-c-1", "recreated"),
        ("container", "om-b-1", "started"),
    ]
    assert changes(PROGRESS_2_40) == [("container", "om-b-1", "created")]
    assert changes(" Container om-a-1  Running\n Container om-a-1  Waiting\n Container om-a-1  Healthy\n") == []
    assert sentences([("container", "c", "recreated")], dry_run=True) == ["container c would be recreated"]


CONFIG = {
    "name": "om",
    "volumes": {
        "a": {"name": "om_a", "external": True},
        "b": {"name": "om_b", "driver_opts": {"type": "none", "o": "bind", "device": "/srv/b"}},
        "c": {"name": "om_c"},
    },
}
THERE = {"Name": "om_a", "Driver": "local", "Options": None}


def test_volumes_that_fit_or_will_be_made_pass() -> None:
    wanted = config_volumes(CONFIG)
    same = {"Name": "om_b", "Driver": "local", "Options": {"device": "/srv/b", "o": "bind", "type": "none"}}
    check_volumes(wanted, [THERE, same])
    check_volumes(wanted, [], coming=["om_a"])


@pytest.mark.parametrize(
    ("existing", "sentence"),
    [
        ([], "The external volume om_a (volumes.a of the compose file) does not exist"),
        ([THERE, {"Name": "om_b", "Driver": "local"}], "The volume om_b exists as driver local without options"),
        ([THERE, {"Name": "om_c", "Driver": "nfs"}], "The volume om_c exists as driver nfs without options"),
    ],
)
def test_volumes_that_compose_would_lose_are_refused(existing: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(StackError) as refused:
        check_volumes(config_volumes(CONFIG), existing)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    "image", ["neo4j", "172.17.0.1:5000/mem0/openmemory-mcp:1.0", "[::1]:5000/a/b_c", "a:1@sha256:" + "0" * 64]
)
def test_names_of_images_pass(image: str) -> None:
    check_references({"services": {"a": {"image": image}, "b": {"build": "."}}})


@pytest.mark.parametrize("image", ["", "a b", "{{ version }}", "a:1@sha256:zz", "-a"])
def test_what_is_no_name_of_an_image_is_refused(image: str) -> None:
    with pytest.raises(StackError, match=r"^services\.a\.image is .* which is no name of an image; correct it\.$"):
        check_references({"services": {"a": {"image": image}}})


CONTAINER = {"Id": "1", "NetworkSettings": {"Networks": {"default": {"NetworkID": "n1"}}}}


def test_a_stamp_is_kept_privately_and_read_back(tmp_path: Path) -> None:
    assert read_stamp(str(tmp_path)) == {}
    stamp = make_stamp("g", [CONTAINER], {"x:1": "sha256:1"})
    write_stamp(str(tmp_path), stamp)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_stamp(str(tmp_path)) == stamp
    file.write_text("{", encoding="utf-8")
    assert read_stamp(str(tmp_path)) == {}
    remove_stamp(str(tmp_path))
    remove_stamp(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_whatever_up_decides_by_changes_the_stamp() -> None:
    given = fingerprint(CONFIG, "1-2", {"remove_orphans": False})
    assert given == fingerprint(dict(reversed(list(CONFIG.items()))), "1-2", {"remove_orphans": False})
    assert given != fingerprint({**CONFIG, "networks": {}}, "1-2", {"remove_orphans": False})
    assert given != fingerprint(CONFIG, "1-3", {"remove_orphans": False})
    assert given != fingerprint(CONFIG, "1-2", {"remove_orphans": True})
    stamp = make_stamp(given, [CONTAINER], {"x:1": "sha256:1"})
    moved = {"Id": "1", "NetworkSettings": {"Networks": {"default": {"NetworkID": "n2"}}}}
    assert stamp != make_stamp(given, [moved], {"x:1": "sha256:1"})
    assert stamp != make_stamp(given, [CONTAINER], {"x:1": "sha256:2"})
    assert stamp != make_stamp(given, [], {"x:1": "sha256:1"})


@pytest.mark.parametrize(
    ("policy", "pull", "recreate", "trusted"),
    [
        (None, "missing", "auto", True),
        ("if_not_present", "never", "never", True),
        ("always", "missing", "auto", False),
        ("every_12h", "missing", "auto", False),
        (None, "always", "auto", False),
        (None, "missing", "always", False),
    ],
)
def test_what_asks_a_registry_or_recreates_anyway_has_no_short_way(
    policy: str | None, pull: str, recreate: str, trusted: bool
) -> None:
    service = {"pull_policy": policy} if policy else {}
    assert can_be_trusted({"services": {"a": service}}, pull, recreate) is trusted
