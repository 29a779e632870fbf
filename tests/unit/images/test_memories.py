"""The check that no acknowledged memory was lost must itself be able to fail."""

from __future__ import annotations

import json
from pathlib import Path

import memories
import pytest

KEPT = {"a": "one", "b": "two"}


def stores(**changed: dict[str, str]) -> dict[str, dict[str, str]]:
    return {name: changed.get(name, dict(KEPT)) for name in memories.STORES}


def test_all_there() -> None:
    result = memories.compare(KEPT, stores())
    assert result["agree"]
    assert (result["acknowledged"], result["sqlite"], result["qdrant"], result["neo4j"]) == (2, 2, 2, 2)
    assert result["missing"] == []


@pytest.mark.parametrize("store", memories.STORES)
def test_one_missing_in_one_store(store: str) -> None:
    result = memories.compare(KEPT, stores(**{store: {"a": "one"}}))
    assert not result["agree"]
    assert result["missing"] == [f"{store}:b"]


@pytest.mark.parametrize("store", memories.STORES)
def test_another_text_under_the_id(store: str) -> None:
    assert memories.compare(KEPT, stores(**{store: {"a": "one", "b": "TWO"}}))["missing"] == [f"{store}:b"]


def test_row_without_point_is_a_loss_even_if_never_acknowledged() -> None:
    result = memories.compare(KEPT, stores(sqlite={**KEPT, "c": "three"}, neo4j={**KEPT, "c": "three"}))
    assert result["missing"] == []
    assert not result["agree"]


def test_point_without_row_is_what_a_cut_leaves() -> None:
    result = memories.compare(KEPT, stores(qdrant={**KEPT, "c": "three"}))
    assert result["agree"]
    assert result["without_row"] == 1


def test_long_lists_are_counted_and_cut() -> None:
    result = memories.compare({str(i): "x" for i in range(100)}, stores(sqlite={}, qdrant={}, neo4j={}))
    assert result["missing_count"] == 300
    assert len(result["missing"]) == memories.SHOWN


def test_log_survives_a_cut_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = memories.Log(str(path))
    log.add("a", "one")
    with path.open("a") as handle:
        handle.write(json.dumps({"id": "b", "text": "two"})[:10])
    assert memories.acknowledged(str(path)) == {"a": "one"}
