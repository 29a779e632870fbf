"""What goes into each host image; a recipe is data, so its hash names the image."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .plan import PREFIX

COMPOSE_VERSION = "2.40.3"
COMPOSE_PATH = "/usr/local/lib/docker/cli-plugins/docker-compose"

BARE_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "ca-certificates", "iproute2", "sudo",
)  # fmt: skip
DOCKER_PACKAGES = ("docker.io", "iptables", "python3-apt", "python3-docker", "restic", "rsync", "zstd", "procps")
RELEASE_PACKAGES = {
    # The registry runs from the bookworm image, which saves an image of its own.
    "bookworm": ("docker-registry",),
    "trixie": ("docker-cli", "docker-compose"),
}
# Units that wait for hardware, or that would hold apt's lock or a port in the middle of a test.
MASKED_UNITS = (
    "systemd-modules-load.service", "systemd-firstboot.service", "apt-daily.timer", "apt-daily-upgrade.timer",
    "systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-wait-online.service",
    "systemd-logind.service", "dev-hugepages.mount", "docker-registry.service", "console-getty.service",
    "getty@.service", "e2scrub_all.timer", "fstrim.timer",
)  # fmt: skip
FILES = {
    # Every host makes host keys of its own when its SSH server first starts.
    "/etc/systemd/system/ssh.service.d/lab.conf": (
        "[Service]\nExecStartPre=\nExecStartPre=/bin/sh -c 'test -e /etc/ssh/ssh_host_ed25519_key || ssh-keygen -A'\n"
    ),
    # /proc/sys is read-only in a lab host, so the engine cannot switch IPv6 off on its bridges.
    "/etc/systemd/system/docker.service.d/lab.conf": ("[Service]\nEnvironment=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1\n"),
    "/etc/ssh/sshd_config.d/lab.conf": "PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
    "/usr/lib/python3/dist-packages/lab_module_cache.pth": "import lab_module_cache\n",
    "/usr/lib/python3/dist-packages/lab_module_cache.py": Path(__file__).with_name("module_cache.py").read_text(),
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what an image holds."""

    release: str
    bare: bool
    packages: tuple[str, ...]
    masked: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    compose: str
    removed: tuple[str, ...]
    emptied: tuple[str, ...]
    excluded: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Twelve hex digits that change whenever the recipe does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def repository(self) -> str:
        """The image name without its tag."""
        return f"{PREFIX}/{self.release}-bare" if self.bare else f"{PREFIX}/{self.release}"

    @property
    def image(self) -> str:
        """The full image reference."""
        return f"{self.repository}:{self.digest}"


def recipe(release: str, *, bare: bool) -> Recipe:
    """The recipe of the host image of a release, with Docker or without (``bare``)."""
    extra = () if bare else DOCKER_PACKAGES + RELEASE_PACKAGES[release]
    # bookworm packages no Compose v2, so its image carries the released binary as a CLI plugin.
    compose = COMPOSE_VERSION if release == "bookworm" and not bare else ""
    return Recipe(
        release=release,
        bare=bare,
        packages=BARE_PACKAGES + extra,
        masked=MASKED_UNITS,
        files=tuple(sorted(FILES.items())),
        compose=compose,
        removed=("/etc/ssh/ssh_host_*", "/var/lib/dbus/machine-id", "/etc/hostname"),
        # Empty: every host makes its own. Missing: systemd would take it for a first boot and enable all its presets.
        emptied=("/etc/machine-id",),
        excluded=("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"),
    )
