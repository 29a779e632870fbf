# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""User and password of a REST server reach it from the environment, with the oldest restic that we take and a newer."""

from __future__ import annotations

import base64
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.password import ensure_password
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.repository import Repository
from ansible_collections.openmemory.stack.plugins.module_utils._core.repository.restic import Restic

USER, PASSWORD = "memory-1", "a/b:c@d e"


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A server without a repository: its URL, and the logins that it was shown."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(404)
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"rest:http://127.0.0.1:{found.server_address[1]}/om/", seen
    found.shutdown()
    found.server_close()


def test_the_login_reaches_the_server(server: tuple[str, list[str]], tmp_path: Path, restic_command: str) -> None:
    url, seen = server
    ensure_password(str(tmp_path / "password"))
    login = {"RESTIC_REST_USERNAME": USER, "RESTIC_REST_PASSWORD": PASSWORD}
    cache = str(tmp_path / "cache")
    restic = Restic(url, str(tmp_path / "password"), login, cache, command=restic_command, patience_s=2)
    with pytest.raises(StackError) as error:
        Repository(restic).snapshots()
    assert set(seen) == {"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
    assert PASSWORD not in str(error.value)
    assert "%40d" not in str(error.value)
