"""Hosts are named and placed predictably, and a bad request is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import lifecycle
from lab.__main__ import main
from lab.errors import LabError
from lab.plan import Host, plan


def test_releases_take_turns_on_addresses_of_their_own() -> None:
    assert plan(3, ["trixie"]) == [
        Host("lab1", "bookworm", False, "127.0.1.1"),
        Host("lab2", "trixie", False, "127.0.1.2"),
        Host("lab3", "bookworm", False, "127.0.1.3"),
        Host("bare1", "trixie", True, "127.0.1.101"),
    ]


def test_addresses_never_meet() -> None:
    addresses = [host.address for host in plan(49, ["trixie"] * 49, twins=True)]
    assert len(set(addresses)) == 3 * 49
    assert "127.0.1.250" not in addresses


def test_twins_are_the_hosts_with_docker_once_more() -> None:
    *hosts, one, other = plan(2, ["trixie"], temporary=True, twins=True)
    assert hosts == plan(2, ["trixie"], temporary=True)
    assert one == Host("twin1", "bookworm", False, "127.0.1.201", temporary=True, twin=True)
    assert other == Host("twin2", "trixie", False, "127.0.1.202", temporary=True, twin=True)


def test_the_temporary_mark_reaches_every_host() -> None:
    assert {host.temporary for host in plan(2, ["bookworm"], temporary=True)} == {True}
    assert {host.temporary for host in plan(2, ["bookworm"])} == {False}


@pytest.mark.parametrize(
    ("hosts", "bare", "words"),
    [
        (-1, [], "--hosts is -1; give a number from 0 to 49."),
        (50, [], "--hosts is 50"),
        (0, [], "no host to start"),
        (1, ["buster"], "the release 'buster'; the lab knows bookworm and trixie."),
        (1, ["trixie"] * 51, "--bare names 51 hosts"),
    ],
)
def test_bad_requests(hosts: int, bare: list[str], words: str) -> None:
    with pytest.raises(LabError) as refused:
        plan(hosts, bare)
    assert words in str(refused.value)


def test_the_command_line_prints_the_sentence_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--hosts", "99"]) == 1
    assert capsys.readouterr().err == "lab: --hosts is 99; give a number from 0 to 49.\n"


def test_a_folder_that_cannot_be_written_is_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "build").write_text("a file where the folder should be")
    monkeypatch.setattr(lifecycle, "FOLDER", tmp_path / "build" / "lab")
    assert main(["down"]) == 1
    assert capsys.readouterr().err == f"lab: {tmp_path}/build/lab: Not a directory.\n"
