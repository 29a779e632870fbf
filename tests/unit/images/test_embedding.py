"""The embedding stands in for a model: deterministic, unit length, near for similar texts."""

from __future__ import annotations

import math

import pytest
from openmemory.embedding import DIMENSIONS, embed


def closeness(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))


@pytest.mark.parametrize("text", ["I like tea", "", "…", "x" * 10_000])
def test_unit_vector(text: str) -> None:
    vector = embed(text)
    assert len(vector) == DIMENSIONS
    assert math.isclose(math.hypot(*vector), 1.0)
    assert vector == embed(text)


def test_similar_is_nearer_than_different() -> None:
    assert closeness("I like green tea", "I like black tea") > closeness("I like green tea", "rust borrow checker")
