"""What this machine needs to reach package registries, to be passed on to the lab's hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
APT_SETTINGS = Path("/etc/apt/apt.conf.d")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert")


def settings() -> dict[str, str]:
    """Files for a host, path to content: local certificates, apt's transport settings, pip's index settings.

    On a machine that reaches the registries without any of these the result is empty.
    """
    files = {}
    for certificate in sorted(LOCAL_CERTIFICATES.glob("**/*.crt")):
        files[f"{LOCAL_CERTIFICATES}/{certificate.name}"] = certificate.read_text()
    for part in sorted(APT_SETTINGS.glob("*")):
        content = part.read_text(errors="replace") if part.is_file() else ""
        if re.search(r"^\s*Acquire::", content, re.MULTILINE):
            files[f"{APT_SETTINGS}/{part.name}"] = content
    pip = pip_settings(_pip_config())
    if pip:
        files["/etc/pip.conf"] = "[global]\n" + "".join(f"{key} = {value}\n" for key, value in pip.items())
        bundle = Path(pip.get("cert", BUNDLE))
        if str(bundle) != BUNDLE and bundle.is_file():
            files[str(bundle)] = bundle.read_text()
    return files


def pip_settings(listing: str) -> dict[str, str]:
    """The settings that decide where pip downloads from, out of what ``pip config list`` prints.

    Later lines win, as they do in pip: the environment is written after this by pip's own order of precedence.
    """
    found: dict[str, str] = {}
    for scope in ("global", ":env:"):
        for line in listing.splitlines():
            match = re.fullmatch(rf"{re.escape(scope)}\.([\w-]+)='(.*)'", line.strip())
            if match and match.group(1) in PIP_KEYS:
                found[match.group(1)] = match.group(2)
    return found


def _pip_config() -> str:
    listing = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(listing, capture_output=True, text=True, check=False).stdout
