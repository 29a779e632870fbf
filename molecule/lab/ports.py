"""Find ports that nothing on this machine listens on."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from .errors import LabError

SSH = (22, 2222, 22022)
REGISTRY = (5000, 5001, 15000)


def choose(purpose: str, addresses: Sequence[str], candidates: Sequence[int]) -> int:
    """The first candidate that is free on all these addresses of this machine.

    Raises:
        LabError: every candidate is taken on one of them.
    """
    for port in candidates:
        if all(_is_free(address, port) for address in addresses):
            return port
    tried = ", ".join(map(str, candidates))
    raise LabError(
        f"No port for {purpose} is free on {' and '.join(addresses)} (tried {tried}); stop what listens there."
    )


def _is_free(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return False  # a server that listens on all addresses answers here too
    except OSError:
        return True
