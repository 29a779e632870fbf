"""What the lab finds, and misses, on the machine that it runs on."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import commands, engine, machine, ports
from lab.errors import LabError


def which(*present: str) -> Callable[[str], str | None]:
    return lambda name: f"/usr/bin/{name}" if name in present else None


def quiet(text: str) -> None:
    del text


def test_pip_s_environment_wins_over_its_file() -> None:
    listing = (
        ":env:.cert='/env.crt'\nglobal.cert='/file.crt'\nglobal.index-url='https://mirror/simple'\nglobal.timeout='9'\n"
    )
    assert machine.pip_settings(listing) == {"cert": "/env.crt", "index-url": "https://mirror/simple"}


def test_a_machine_without_settings_passes_none_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "LOCAL_CERTIFICATES", tmp_path / "none")
    monkeypatch.setattr(machine, "APT_SETTINGS", tmp_path / "none")
    monkeypatch.setattr(machine, "_pip_config", lambda: "")
    assert machine.settings() == {}


def test_only_apt_s_transport_settings_are_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text('Acquire::http::Proxy "http://proxy:3142";\n')
    (tmp_path / "hooks").write_text('DPkg::Post-Invoke { "true"; };\n')
    monkeypatch.setattr(machine, "LOCAL_CERTIFICATES", tmp_path / "none")
    monkeypatch.setattr(machine, "APT_SETTINGS", tmp_path)
    monkeypatch.setattr(machine, "_pip_config", lambda: "")
    assert list(machine.settings()) == [f"{tmp_path}/proxy"]


def test_no_way_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", which())
    with pytest.raises(LabError, match=r"needs docker\.io iptables mmdebstrap openssh-client, and this is no Debian"):
        engine.ensure_engine(quiet)


def test_not_root_and_something_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", which("apt-get", "dockerd", "ssh", "ssh-keygen"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs mmdebstrap, and only root can install them"):
        engine.ensure_engine(quiet)


def test_not_root_and_no_engine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", which("dockerd", "mmdebstrap", "ssh", "ssh-keygen"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="No Docker engine answers, and only root can start one"):
        engine.ensure_engine(quiet)


def test_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "docker", lambda *arguments: str(tmp_path / "not" / "here"))
    monkeypatch.setattr(engine, "ROOM_BYTES", 10**18)
    with pytest.raises(LabError, match=r"has [\d.]+ GB free and the lab needs 1000000000 GB; make room"):
        engine.require_room()


def test_a_taken_port_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as other:
            free = other.getsockname()[1]
        assert ports.choose("SSH", ["127.0.0.1"], [taken, free]) == free
        with pytest.raises(LabError, match=rf"No port for SSH is free on 127\.0\.0\.1 \(tried {taken}\)"):
            ports.choose("SSH", ["127.0.0.1"], [taken])


def test_a_port_must_be_free_on_every_address() -> None:
    with (
        socket.create_server(("127.0.0.2", 0)) as server,
        pytest.raises(LabError, match=r"free on 127\.0\.0\.1 and 127\.0\.0\.2"),
    ):
        ports.choose("SSH", ["127.0.0.1", "127.0.0.2"], [server.getsockname()[1]])


def test_the_engine_s_reason_is_the_one_shown() -> None:
    output = b"Error response from daemon: port is taken\nError: failed to start containers: x\n"
    assert commands.reason(output) == "port is taken"
    assert commands.reason(b"first\nE: no such package.\n\n") == "E: no such package"
    assert commands.reason(b"") == "it gave no reason"


def test_a_failing_program_is_one_sentence() -> None:
    with pytest.raises(LabError, match=r"^'sh -c echo broken >&2; exit 3' failed with 3: broken\.$"):
        commands.run(["sh", "-c", "echo broken >&2; exit 3"])


def test_a_missing_program_is_one_sentence() -> None:
    with pytest.raises(LabError, match="The program no-such-program is not installed"):
        commands.run(["no-such-program"])
