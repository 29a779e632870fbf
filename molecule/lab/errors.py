"""What the lab tells its user when it cannot go on."""

from __future__ import annotations


class LabError(Exception):
    """One sentence for the user: what was found and what to do."""
