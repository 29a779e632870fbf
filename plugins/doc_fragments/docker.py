# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that the modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of plugins/module_utils/_docker_options.py."""

    DOCUMENTATION = r"""
options:
  docker_host:
    description:
      - URL of the Docker engine, or the path of its socket.
      - Host directories can be seen and made only where this is a socket of the host itself.
      - E(DOCKER_HOST) is used where the option is not set.
    type: str
    default: unix:///var/run/docker.sock
    aliases: [docker_url]
  api_version:
    description:
      - Version of the Docker API to speak, V(auto) for the engine's own. At least 1.40 (Docker 19.03).
      - E(DOCKER_API_VERSION) is used where the option is not set.
    type: str
    default: auto
    aliases: [docker_api_version]
  timeout:
    description:
      - How many seconds to wait for the answer to one request.
      - E(DOCKER_TIMEOUT) is used where the option is not set.
    type: int
    default: 60
  tls:
    description:
      - Use TLS without checking the certificate of the engine.
      - E(DOCKER_TLS) is used where the option is not set.
    type: bool
    default: false
  validate_certs:
    description:
      - Use TLS and check the certificate of the engine.
      - E(DOCKER_TLS_VERIFY) is used where the option is not set.
    type: bool
    default: false
    aliases: [tls_verify]
  tls_hostname:
    description:
      - Name to expect in the certificate of the engine. Version 7 of the Docker SDK does not know it any more.
      - E(DOCKER_TLS_HOSTNAME) is used where the option is not set.
    type: str
  ca_path:
    description:
      - File with the certificate of the authority that signed the engine's.
      - C(ca.pem) in the directory E(DOCKER_CERT_PATH) is used where the option is not set and the variable is.
    type: path
    aliases: [ca_cert, tls_ca_cert, cacert_path]
  client_cert:
    description:
      - File with the client's certificate.
      - C(cert.pem) in the directory E(DOCKER_CERT_PATH) is used where the option is not set and the variable is.
    type: path
    aliases: [tls_client_cert, cert_path]
  client_key:
    description:
      - File with the client's key.
      - C(key.pem) in the directory E(DOCKER_CERT_PATH) is used where the option is not set and the variable is.
    type: path
    aliases: [tls_client_key, key_path]
requirements:
  - Docker 19.03 or newer (API 1.40).
  - Docker SDK for Python (C(python3-docker)).
  - Python 3.9 or newer.
"""
