# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Docker engine behind one small class, so that tests can put a fake in its place."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import NotFoundError, StackError

DEFAULT_HOST = "unix:///var/run/docker.sock"
MINIMUM_API = (1, 40)  # Docker 19.03: the oldest whose volume and container lists hold all that is read here

ACTIVE = ("running", "paused", "restarting")  # states in which a container's processes may write


class Engine:
    """A Docker engine. Every method is one API call and raises StackError with a sentence for the user.

    The Docker SDK carries the requests (sockets, TLS, SSH). With api_version "auto" the first request is sent without
    a version, and its answer tells which one the engine speaks: no request is spent on asking.
    """

    def __init__(self, session: Any, base_url: str, docker_host: str, api_version: str = "auto", timeout: int = 60):
        self.docker_host = docker_host
        self._session = session
        self._base_url = base_url
        self._timeout = timeout
        self._asked = api_version
        self._prefix = "" if api_version == "auto" else f"/v{api_version}"
        self._checked = False
        self._prepare: Callable[[], Engine] | None = None

    @classmethod
    def connect(
        cls,
        docker_host: str = DEFAULT_HOST,
        api_version: str = "auto",
        timeout: int = 60,
        tls: bool = False,
        validate_certs: bool = False,
        tls_hostname: str | None = None,
        ca_path: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        late: bool = False,
    ) -> Engine:
        """Prepare a connection; nothing is sent yet. timeout is in seconds, per request.

        late: the Docker SDK, which takes longer to load than all else here, is loaded by the first request only, which
        then raises what this would: for who has something to begin before.
        """
        if docker_host.startswith("/"):
            docker_host = "unix://" + docker_host
        if late:
            asked = tls, validate_certs, tls_hostname, ca_path, client_cert, client_key
            engine = cls(None, "", docker_host, api_version, timeout)
            engine._prepare = lambda: cls.connect(docker_host, api_version, timeout, *asked)
            return engine
        try:
            import docker  # late: bad input should not wait for it
            from docker.tls import TLSConfig
        except ImportError as error:
            raise StackError(
                f"The Docker SDK for Python cannot be imported by {sys.executable} on this host ({error}); install "
                "python3-docker, or set ansible_python_interpreter to a Python that has it."
            ) from error
        options: dict[str, Any] = {"base_url": docker_host, "version": "1.40", "timeout": timeout}
        try:
            if tls or validate_certs:
                pair = (client_cert, client_key) if client_cert and client_key else None
                config: dict[str, Any] = {"client_cert": pair, "ca_cert": ca_path, "verify": validate_certs}
                if tls_hostname:
                    config["assert_hostname"] = tls_hostname
                options["tls"] = TLSConfig(**config)
            client = docker.APIClient(**options)
        except TypeError as error:
            raise StackError(
                f"tls_hostname is not known to version {docker.__version__} of the Docker SDK (7.0 removed it); "
                "leave it out."
            ) from error
        except Exception as error:  # the SDK, requests and urllib3 each raise their own for a URL or file they refuse
            message = f"docker_host {docker_host} cannot be used: {error}; correct it or the TLS options."
            raise StackError(message) from error
        return cls(client, client.base_url, docker_host, api_version, timeout)

    @property
    def is_local(self) -> bool:
        """Whether paths that this engine names are paths of this machine."""
        return self.docker_host.startswith("unix:")

    def volumes(self) -> list[dict[str, Any]]:
        """All volumes, as the API gives them (Name, Driver, Options, Labels, Mountpoint)."""
        return self._call("GET", "/volumes").get("Volumes") or []

    def containers(self) -> list[dict[str, Any]]:
        """All containers in all states (Id, Names, Image, State, Labels, Mounts)."""
        found: list[dict[str, Any]] = self._call("GET", "/containers/json", params={"all": 1})
        return found

    def info(self) -> dict[str, Any]:
        """What the engine says about itself (DockerRootDir, ServerVersion …)."""
        return self._object("GET", "/info")

    def events(self, since: float, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        """What happened from since (seconds since 1970) until now, oldest first, among the engine's last 256 events."""
        params = {"since": f"{since:.9f}", "until": f"{time.time():.9f}", "filters": json.dumps(filters)}
        try:
            return [json.loads(line) for line in self._send("GET", "/events", params=params).text.splitlines() if line]
        except ValueError as error:
            raise StackError(f"{self.docker_host} did not answer as Docker does; correct docker_host.") from error

    def inspect_container(self, name: str) -> dict[str, Any]:
        return self._object("GET", f"/containers/{name}/json")

    def is_active(self, container: str) -> bool:
        """Asked of the container itself; one that is gone is not.

        For a moment after a stop has returned, containers() still says running (seen in 65 of 240 stops).
        """
        try:
            return self.inspect_container(container)["State"]["Status"] in ACTIVE
        except NotFoundError:
            return False

    def inspect_image(self, name: str) -> dict[str, Any]:
        return self._object("GET", f"/images/{name}/json")

    def tag_image(self, image: str, reference: str) -> None:
        """Have a reference without a digest mean this image."""
        place, slash, last = reference.rpartition("/")
        name, _colon, tag = last.partition(":")
        self._send("POST", f"/images/{image}/tag", params={"repo": place + slash + name, "tag": tag or "latest"})

    def registry_digest(self, name: str) -> str:
        """The digest that the registry has now for an image, asked by the engine."""
        return str(self._object("GET", f"/distribution/{name}/json")["Descriptor"]["digest"])

    def inspect_volume(self, name: str) -> dict[str, Any]:
        return self._object("GET", f"/volumes/{name}")

    def create_volume(
        self, name: str, driver: str, driver_opts: dict[str, str], labels: dict[str, str]
    ) -> dict[str, Any]:
        """Create a volume and return it. The engine returns the existing one where it is the same."""
        body = {"Name": name, "Driver": driver, "DriverOpts": driver_opts, "Labels": labels}
        return self._object("POST", "/volumes/create", json=body)

    def remove_volume(self, name: str) -> None:
        self._call("DELETE", f"/volumes/{name}")

    def pause(self, container: str) -> None:
        self._call("POST", f"/containers/{container}/pause")

    def unpause(self, container: str) -> None:
        self._call("POST", f"/containers/{container}/unpause")

    def stop(self, container: str, stop_timeout: int | None = None) -> None:
        """Stop a container; stop_timeout is in seconds before it is killed, None for the container's own."""
        grace = stop_timeout
        if grace is None:
            grace = self.inspect_container(container)["Config"].get("StopTimeout") or 10
        self._call("POST", f"/containers/{container}/stop", params={"t": grace}, timeout=self._timeout + grace)

    def start(self, container: str) -> None:
        self._call("POST", f"/containers/{container}/start")

    def kill(self, container: str) -> None:
        """End a container at once, also one that is paused; it is no error that it has ended."""
        try:
            self._call("POST", f"/containers/{container}/kill")
        except StackError as error:
            if "is not running" not in str(error):
                raise

    def set_restart_policy(self, container: str, policy: Mapping[str, Any]) -> None:
        """policy as an inspection has it: {"Name": "no", "MaximumRetryCount": 0}."""
        self._call("POST", f"/containers/{container}/update", json={"RestartPolicy": dict(policy)})

    def create_container(self, name: str, body: dict[str, Any]) -> str:
        """Create a container from the API's own body (Image, Env, HostConfig …) and return its id."""
        return str(self._object("POST", "/containers/create", params={"name": name}, json=body)["Id"])

    def remove_container(self, container: str, volumes: bool = True, force: bool = True) -> None:
        """Remove a container, with its anonymous volumes unless volumes is false; one that runs only by force."""
        self._call("DELETE", f"/containers/{container}", params={"force": int(force), "v": int(volumes)})

    def changes(self, container: str) -> list[str]:
        """The paths that a container has added or changed in its own layer."""
        return [str(one["Path"]) for one in self._call("GET", f"/containers/{container}/changes") or []]

    def wait(self, container: str, timeout: float) -> int:
        """The exit code of a container that runs to its end. timeout is in seconds."""
        return int(self._object("POST", f"/containers/{container}/wait", timeout=timeout)["StatusCode"])

    def logs(self, container: str, tail: int = 20) -> str:
        """The last lines that a container without a terminal has written, both of its streams."""
        params = {"stdout": 1, "stderr": 1, "tail": tail}
        data = self._send("GET", f"/containers/{container}/logs", params=params).content
        text, at = b"", 0
        while at + 8 <= len(data):  # frames: a byte of the stream's number, three of zero, four of the length
            length = int.from_bytes(data[at + 4 : at + 8], "big")
            text += data[at + 8 : at + 8 + length]
            at += 8 + length
        return text.decode("utf-8", "replace")

    def networks(self, label: str) -> list[dict[str, Any]]:
        """Networks that have a label, given as KEY or KEY=VALUE."""
        found: list[dict[str, Any]] = self._call("GET", "/networks", params={"filters": json.dumps({"label": [label]})})
        return found

    def create_network(self, name: str, internal: bool, labels: dict[str, str]) -> str:
        body = {"Name": name, "Internal": internal, "Labels": labels, "CheckDuplicate": True}
        return str(self._object("POST", "/networks/create", json=body)["Id"])

    def connect_network(self, network: str, container: str, endpoint: Mapping[str, Any]) -> None:
        """Connect a container; endpoint is the API's EndpointConfig, such as {"Aliases": [name]}."""
        body = {"Container": container, "EndpointConfig": dict(endpoint)}
        self._call("POST", f"/networks/{network}/connect", json=body)

    def remove_network(self, network: str) -> None:
        self._call("DELETE", f"/networks/{network}")

    def _object(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._call(method, path, **options)
        return found

    def _call(self, method: str, path: str, **options: Any) -> Any:
        response = self._send(method, path, **options)
        try:
            return response.json() if response.content else {}
        except ValueError as error:
            raise StackError(f"{self.docker_host} did not answer as Docker does; correct docker_host.") from error

    def _send(self, method: str, path: str, **options: Any) -> Any:
        if self._prepare is not None:
            prepared = self._prepare()
            self._session, self._base_url, self._prepare = prepared._session, prepared._base_url, None
        url = self._base_url + self._prefix + path
        options.setdefault("timeout", self._timeout)
        try:
            response = self._session.request(method, url, **options)
        except Exception as error:  # requests, urllib3 and the SDK's adapters each have their own
            raise StackError(self._unreachable(error)) from error
        if not self._checked:
            self._check_version(response)
        if response.status_code == 404:
            raise NotFoundError(f"The Docker engine refused {method} {path}: {_message(response)}")
        if response.status_code >= 400:
            raise StackError(f"The Docker engine refused {method} {path}: {_message(response)}")
        return response

    def _check_version(self, response: Any) -> None:
        spoken = response.headers.get("Api-Version", "")
        parts = spoken.split(".")
        if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit():
            if (int(parts[0]), int(parts[1])) < MINIMUM_API:
                raise StackError(
                    f"The Docker engine at {self.docker_host} speaks API {spoken}, and 1.40 (Docker 19.03) or newer is "
                    "needed; update the engine."
                )
            if self._asked == "auto":
                self._prefix = f"/v{spoken}"
        self._checked = True

    def _unreachable(self, error: Exception) -> str:
        text = str(error)
        if "FileNotFoundError" in text or "No such file" in text:
            reason, advice = "there is no such socket", "start the engine or correct docker_host"
        elif "PermissionError" in text or "Permission denied" in text:
            reason, advice = "permission denied", "use become: true or a user in the group docker"
        elif "Connection refused" in text or "ConnectionRefusedError" in text:
            reason, advice = "connection refused", "start the engine or correct docker_host"
        elif "timed out" in text.lower() or "timeout" in text.lower():
            reason, advice = f"no answer in {self._timeout} s", "look at the engine's log or raise timeout"
        else:
            reason, advice = text, "start the engine or correct docker_host"
        return f"The Docker engine at {self.docker_host} cannot be reached ({reason}); {advice}."


def _message(response: Any) -> str:
    try:
        return str(response.json()["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
