"""Which hosts a lab has, by name, release and address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .errors import LabError

PREFIX = "omlab"
LABEL = "omlab"
RELEASES = ("bookworm", "trixie")
MOST_HOSTS = 49  # 127.0.1.250 is the registry's


@dataclass(frozen=True)
class Host:
    """One lab host; ``address`` is the loopback address where its SSH answers, ``temporary`` marks a test run's own.

    A ``twin`` has an inventory of its own, in which it has the name of the host that it is a twin of.
    """

    name: str
    release: str
    bare: bool
    address: str
    temporary: bool = False
    twin: bool = False

    @property
    def container(self) -> str:
        """The name of the container that plays this host."""
        return f"{PREFIX}-{self.name}"


def plan(hosts: int, bare: Sequence[str], *, temporary: bool = False, twins: bool = False) -> list[Host]:
    """The hosts that were asked for.

    Args:
        hosts: how many hosts with Docker: lab1, lab2, … with Debian 12 and 13 in turn.
        bare: the releases of the hosts without Docker: bare1, bare2, …
        temporary: whether they go when the test run that asked for them ends.
        twins: each host with Docker twice, as twin1, twin2, …, for tests that run beside each other.

    Raises:
        LabError: a number out of range, an unknown release, or no host at all.
    """
    if not 0 <= hosts <= MOST_HOSTS:
        raise LabError(f"--hosts is {hosts}; give a number from 0 to {MOST_HOSTS}.")
    if len(bare) > MOST_HOSTS:
        raise LabError(f"--bare names {len(bare)} hosts; give at most {MOST_HOSTS}.")
    unknown = sorted(set(bare) - set(RELEASES))
    if unknown:
        raise LabError(f"--bare names the release {unknown[0]!r}; the lab knows {' and '.join(RELEASES)}.")
    if not hosts and not bare:
        raise LabError("--hosts is 0 and --bare is empty, so there is no host to start; ask for at least one.")
    full = [(f"lab{n}", RELEASES[(n - 1) % 2], False, f"127.0.1.{n}") for n in range(1, hosts + 1)]
    without = [(f"bare{n}", release, True, f"127.0.1.{100 + n}") for n, release in enumerate(bare, start=1)]
    found = [Host(*host, temporary=temporary) for host in full + without]
    for number, host in enumerate(found[: hosts if twins else 0], start=1):
        found.append(replace(host, name=f"twin{number}", address=f"127.0.1.{200 + number}", twin=True))
    return found
