# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP over a local socket with the standard library alone.

Importing the Docker SDK takes longer (0.1 s and more) than all that a module asks of a local engine, so the SDK is left
for engines that are reached by TCP, TLS or SSH.
"""

from __future__ import annotations

import http.client
import json as json_format
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode


class UnixResponse:
    """The part of a response of requests that the engine reads."""

    def __init__(self, response: http.client.HTTPResponse):
        self.status_code = response.status
        self.headers = response.headers
        self.content = response.read()

    def json(self) -> Any:
        """Raises ValueError if it is not JSON."""
        return json_format.loads(self.content)


class UnixSession:
    """Sends each request on a connection of its own, so that none can be found closed."""

    def __init__(self, path: str):
        self._path = path

    def request(
        self,
        method: str,
        url: str,
        timeout: float,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
    ) -> UnixResponse:
        """Raises OSError or http.client.HTTPException. timeout is in seconds, per wait."""
        connection = _UnixConnection(self._path, timeout)
        body = None if json is None else json_format.dumps(json).encode()
        try:
            connection.request(
                method,
                f"{url}?{urlencode(params)}" if params else url,
                body=body,
                headers={} if body is None else {"Content-Type": "application/json"},
            )
            return UnixResponse(connection.getresponse())
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
