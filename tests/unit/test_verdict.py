# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The census of a restore: taken from stores that are healthy while others start, and again where that did not do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.operation.progress import Progress
from ansible_collections.openmemory.stack.plugins.module_utils._core.restore import verdict

EXPECTED = {"q": {"collections": {"c": 7}}, "n": {"nodes": 3, "relationships": 2}}


def make(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> tuple[verdict.Verdict, list[int]]:
    """A verdict whose stores give these answers one after the other, and the list of askings."""
    asked: list[int] = []

    def ask(*_arguments: Any) -> Any:
        asked.append(len(asked))
        answer = answers[asked[-1]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(verdict.census, "ask", ask)
    monkeypatch.setattr(verdict.Verdict, "login", lambda _self: "")
    volumes = {key: {"census": census} for key, census in EXPECTED.items()}
    targets = [SimpleNamespace(name=f"om_{key}", key=key, store="x", beside=lambda _id: "/beside") for key in EXPECTED]
    plan: Any = SimpleNamespace(
        request=SimpleNamespace(path=None, check_census=True),
        targets=targets,
        manifest=SimpleNamespace(volumes=volumes),
        crew=SimpleNamespace(ids=["a"], inspect=list),
    )
    nothing: Any = None
    return verdict.Verdict(plan, "op", nothing, nothing, nothing, Progress(), []), asked


def test_counted_once_while_others_start(monkeypatch: pytest.MonkeyPatch) -> None:
    found, asked = make(monkeypatch, EXPECTED)
    found.begin()
    found.begin()  # one more wait for health
    found.compare()
    assert found.census == EXPECTED
    assert asked == [0]


@pytest.mark.parametrize("first", [{**EXPECTED, "n": None}, {}, StackError("gone")], ids=["one", "none", "error"])
def test_counted_again_where_a_store_did_not_answer_then(monkeypatch: pytest.MonkeyPatch, first: Any) -> None:
    found, asked = make(monkeypatch, first, EXPECTED)
    found.begin()
    found.compare()
    assert found.census == EXPECTED
    assert asked == [0, 1]


@pytest.mark.parametrize("early", [True, False])
def test_what_is_missing_is_said_whenever_it_was_counted(monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    found, _asked = make(monkeypatch, {**EXPECTED, "q": {"collections": {"c": 6}}})
    if early:
        found.begin()
    with pytest.raises(StackError, match="q: collection c: 6 found, 7 expected"):
        found.compare()
