# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real servers on loopback for repositories that are not here: an S3 (SeaweedFS) and restic's REST server (rclone)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cheap_key import SERVED

BIN = Path(sys.prefix) / "bin"
BUCKET = "backups"
HOST_KEYS = {"AWS_ACCESS_KEY_ID": "host-key-id-1", "AWS_SECRET_ACCESS_KEY": "host-secret-0123456789"}
ADMIN_KEYS = {"AWS_ACCESS_KEY_ID": "admin-key-id", "AWS_SECRET_ACCESS_KEY": "admin-secret-0123456789"}
REST_LOGIN = {"RESTIC_REST_USERNAME": "memory-1", "RESTIC_REST_PASSWORD": "rest/pass:word@1"}


def free_ports(number: int) -> list[int]:
    """Ports below 22000: SeaweedFS wants the same plus 10000 for itself, too."""
    found: list[int] = []
    for port in range(18900 + os.getpid() % 1100, 22000):
        with suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10000))
            found.append(port)
        if len(found) == number:
            return found
    raise AssertionError("no free ports")


@contextmanager
def running(command: list[str], port: int, home: Path) -> Iterator[None]:
    """A server until the end of the block, from when it answers."""
    with (home / "server.log").open("ab") as log:
        env = {**os.environ, "RCLONE_CONFIG": str(home / "none")}
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=home, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None, (home / "server.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextmanager
def s3(home: Path) -> Iterator[int]:
    """Its port. The bucket is BUCKET; HOST_KEYS may read and write there, ADMIN_KEYS all."""
    (home / "data").mkdir(parents=True)

    def identity(name: str, keys: dict[str, str], actions: list[str]) -> dict[str, object]:
        pair = {"accessKey": keys["AWS_ACCESS_KEY_ID"], "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}
        return {"name": name, "credentials": [pair], "actions": actions}

    rights = [f"{right}:{BUCKET}" for right in ("Read", "Write", "List")]
    known = [identity("host", HOST_KEYS, rights), identity("admin", ADMIN_KEYS, ["Admin", "Read", "Write", "List"])]
    (home / "identities.json").write_text(json.dumps({"identities": known}))
    ports = dict(zip(("master.port", "volume.port", "filer.port", "s3.port"), free_ports(4), strict=True))
    words = [f"-{name}={port}" for name, port in ports.items()]
    words += [f"-{name}.grpc={port + 10000}" for name, port in ports.items()]
    local = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={home / 'data'}", "-master.volumeSizeLimitMB=64"]
    own = ["-filer", "-s3", f"-s3.config={home / 'identities.json'}", "-s3.iam=false"]
    own += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with running([str(BIN / "weed"), "server", *local, *own, *words], ports["s3.port"], home):
        yield ports["s3.port"]


@contextmanager
def rest(home: Path, append_only: bool = True) -> Iterator[int]:
    """Its port; it keeps everything in home/data, and takes REST_LOGIN."""
    (home / "data").mkdir(parents=True, exist_ok=True)
    [port] = free_ports(1)
    login = ["--user", REST_LOGIN["RESTIC_REST_USERNAME"], "--pass", REST_LOGIN["RESTIC_REST_PASSWORD"]]
    extra = ["--append-only"] if append_only else []
    # Without its cache it also sees what another changes in the directory.
    words = ["serve", "restic", "--cache-objects=false", "--addr", f"127.0.0.1:{port}", *login, *extra]
    words.append(str(home / "data"))
    with running([str(BIN / "rclone"), *words], port, home):
        SERVED[port] = home / "data"
        yield port
