# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How restic reaches a repository over SFTP: with one key and one pinned host key, and no question asked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

KEY_FILE = "SFTP_KEY_FILE"
KNOWN_HOSTS = "SFTP_KNOWN_HOSTS_FILE"
_URL = re.compile(r"sftp://(?:(?P<user>[^/@]+)@)?(?P<host>\[[^]]+\]|[^/:]+)(?::(?P<port>\d+))?/")
_SCP = re.compile(r"sftp:(?:(?P<user>[^/@:]+)@)?(?P<host>\[[^]]+\]|[^/:]+):")


def ssh_command(repository: str, environment: Mapping[str, str]) -> str | None:
    """What restic shall run in place of its own ssh; None where it is no SFTP, or neither file is named.

    Without them root's own ssh settings hold. Works with every restic: 0.14 has no other way to name a key.
    """
    key, known = environment.get(KEY_FILE), environment.get(KNOWN_HOSTS)
    match = _URL.match(repository) or _SCP.match(repository)
    if match is None or not (key or known):
        return None
    found = match.groupdict()
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=15"]
    options += ["ServerAliveInterval=15", "ServerAliveCountMax=4"]
    if known:
        options += [f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no"]
    words = ["ssh"]
    for option in options:
        words += ["-o", option]
    if key:
        words += ["-o", "IdentitiesOnly=yes", "-i", key]
    if found.get("port"):
        words += ["-p", str(found["port"])]
    if found["user"]:
        words += ["-l", found["user"]]
    return " ".join(shlex.quote(word) for word in [*words, found["host"].strip("[]"), "-s", "sftp"])
