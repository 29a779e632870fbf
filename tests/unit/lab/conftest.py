"""The lab is a package below molecule/: make it importable without the Makefile's PYTHONPATH."""

from __future__ import annotations

import sys
from pathlib import Path

MOLECULE = str(Path(__file__).resolve().parents[3] / "molecule")
if MOLECULE not in sys.path:
    sys.path.insert(0, MOLECULE)
