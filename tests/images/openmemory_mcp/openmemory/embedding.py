"""A deterministic embedding without a model: words hashed onto a few dimensions. Similar texts come out near."""

from __future__ import annotations

import hashlib
import math
import re

DIMENSIONS = 64


def embed(text: str) -> list[float]:
    """A unit vector of DIMENSIONS numbers; the same text always gives the same one."""
    vector = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()) or [text]:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        vector[seed % DIMENSIONS] += 1.0 if seed & (1 << 40) else -1.0
        vector[(seed >> 8) % DIMENSIONS] += 0.5
    length = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / length for x in vector]
