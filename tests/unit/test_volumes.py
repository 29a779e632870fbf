# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the list of volumes may say, and the sentence for everything else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.volumes import VolumeSpec, parse_volumes

BIND = {"type": "none", "o": "bind", "device": "/srv/a"}

BAD = {
    "unknown key": ({"name": "ab", "device": "/x"}, "volume ab: device is not a known key; the keys are name, backing"),
    "no name": ({"path": "/x"}, "has no name"),
    "name of one letter": ({"name": "a"}, "volume a: Docker refuses this name"),
    "name with a slash": ({"name": "a/b"}, "Docker refuses this name"),
    "name with a dash first": ({"name": "-ab"}, "Docker refuses this name"),
    "name with a newline": ({"name": "ab\n"}, "Docker refuses this name"),
    "name too long": ({"name": "a" * 256}, "Docker refuses this name"),
    "relative path": ({"name": "ab", "path": "srv/x"}, "volume ab: path srv/x is not absolute"),
    "path missing": ({"name": "ab", "backing": "path"}, "backing: path needs a path"),
    "path with ..": ({"name": "ab", "path": "/srv/../etc"}, "has .. in it"),
    "path of the root": ({"name": "ab", "path": "//"}, "path / is the whole file system"),
    "path with a newline": ({"name": "ab", "path": "/srv/a\nb"}, "control character"),
    "unknown backing": ({"name": "ab", "backing": "disk"}, "backing 'disk' is not known"),
    "managed with a path": ({"name": "ab", "backing": "managed", "path": "/x"}, "path is for backing: path"),
    "managed with an owner": ({"name": "ab", "owner": "0"}, "owner is for backing: path"),
    "managed with a bind": ({"name": "ab", "backing": "managed", "driver_opts": BIND}, "use backing: path"),
    "path with another driver": ({"name": "ab", "path": "/x", "driver": "sshfs"}, "needs Docker's driver local"),
    "path with another device": (
        {"name": "ab", "path": "/srv/b", "driver_opts": BIND},
        "driver_opts device=/srv/a conflicts with backing: path",
    ),
    "path with more options": ({"name": "ab", "path": "/srv/b", "driver_opts": {"size": "1G"}}, "size=1G conflicts"),
    "mode not octal": ({"name": "ab", "path": "/x", "mode": "0789"}, "mode '0789' is not octal"),
    "mode in letters": ({"name": "ab", "path": "/x", "mode": "u=rwx"}, "is not octal"),
    "mode too large": ({"name": "ab", "path": "/x", "mode": "77777"}, "is not octal"),
    "mode as a YAML number": ({"name": "ab", "path": "/x", "mode": 755}, "mode is the number 755, because YAML"),
    "mode as a YAML octal": ({"name": "ab", "path": "/x", "mode": 0o750}, "quote it, such as '0750'"),
    "unknown user": ({"name": "ab", "path": "/x", "owner": "nobody-here"}, "owner nobody-here is not a user"),
    "unknown group": ({"name": "ab", "path": "/x", "group": "nobody-here"}, "group nobody-here is not a group"),
    "unknown store": ({"name": "ab", "store": "redis"}, "store 'redis' is not known; use one of sqlite, qdrant"),
    "Qdrant on NFS": (
        {"name": "ab", "store": "qdrant", "driver_opts": {"type": "nfs4", "o": "addr=10.0.0.1", "device": ":/x"}},
        "Qdrant does not support NFS",
    ),
    "Qdrant on CIFS": (
        {"name": "ab", "store": "qdrant", "driver_opts": {"type": "cifs", "device": "//x/y"}},
        "does not support CIFS",
    ),
    "Qdrant on FUSE": ({"name": "ab", "store": "qdrant", "driver": "vieux/sshfs"}, "does not support FUSE"),
    "option that Docker does not know": ({"name": "ab", "driver_opts": {"foo": "x"}}, "driver_opts.foo is not known"),
    "option without its device": ({"name": "ab", "driver_opts": {"type": "tmpfs"}}, "type needs driver_opts.device"),
    "flags without a type": (
        {"name": "ab", "driver_opts": {"o": "addr=x", "device": ":/x"}},
        "driver_opts.o needs driver_opts.type",
    ),
    "label not a string": ({"name": "ab", "labels": {"on": True}}, "labels.on is not a string; put it in quotes"),
    "options not a dictionary": ({"name": "ab", "driver_opts": ["o=bind"]}, "driver_opts is not a dictionary"),
    "amount without sense": ({"name": "ab", "min_free": "lots"}, "min_free is 'lots'; give bytes or an amount"),
}


@pytest.mark.parametrize(("entry", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(StackError) as raised:
        parse_volumes([{"name": "before"}, entry])
    assert words in str(raised.value)
    assert str(raised.value).endswith(".")
    assert "Traceback" not in str(raised.value)


def test_a_name_may_be_there_once() -> None:
    with pytest.raises(StackError, match="volume ab: is in the list twice"):
        parse_volumes([{"name": "ab"}, {"name": "cd"}, {"name": "ab"}])


@pytest.mark.parametrize("project", ["Upper", "-x", "a b"])
def test_a_project_that_compose_refuses(project: str) -> None:
    with pytest.raises(StackError, match="compose_project"):
        parse_volumes([{"name": "ab"}], project)


def one(entry: dict[str, Any], **options: Any) -> VolumeSpec:
    return parse_volumes([{"name": "ab", **entry}], **options)[0]


def test_defaults() -> None:
    assert one({}) == VolumeSpec(name="ab")


def test_none_is_as_not_given() -> None:
    assert one({"path": None, "owner": None, "labels": None, "backing": None}) == VolumeSpec(name="ab")


def test_a_path_makes_the_options_that_bind_it() -> None:
    spec = one({"path": "//srv/./a/", "owner": 7474, "group": "7474", "mode": "0700"})
    assert (spec.backing, spec.path, spec.driver_opts) == ("path", "/srv/a", BIND)
    assert (spec.owner, spec.group, spec.mode) == (7474, 7474, 0o700)


@pytest.mark.parametrize("options", [BIND, {**BIND, "device": "/srv/a/"}])
def test_options_that_bind_are_path_backing(options: dict[str, str]) -> None:
    assert one({"driver_opts": options}) == one({"path": "/srv/a"})
    assert one({"path": "/srv/a", "driver_opts": options}) == one({"path": "/srv/a"})


def test_names_of_this_host_are_owners() -> None:
    assert one({"path": "/srv/a", "owner": "root", "group": "root"}).owner == 0


def test_compose_labels_name_the_key_and_no_hash() -> None:
    names = ["shop_data", "data"]
    specs = parse_volumes([{"name": name} for name in names], "shop")
    assert [dict(spec.labels) for spec in specs] == [
        {"com.docker.compose.project": "shop", "com.docker.compose.volume": "data"}
    ] * 2


def test_min_free_of_its_own_comes_first() -> None:
    assert one({}, min_free="1G").min_free == 1024**3
    assert one({"min_free": "1.5 MiB"}, min_free="1G").min_free == 1024 * 1536
    assert one({"min_free": 17}).min_free == 17
