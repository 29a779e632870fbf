"""The reference images' programs are scripts beside their Dockerfiles: make them importable."""

from __future__ import annotations

import sys
from pathlib import Path

IMAGES = Path(__file__).resolve().parents[2] / "images"
for folder in (IMAGES, IMAGES / "openmemory_mcp"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
