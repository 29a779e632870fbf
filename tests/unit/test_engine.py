# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.engine import Engine
from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError


class Response:
    def __init__(self, body: Any, status: int = 200, api: str = "1.43"):
        self.status_code = status
        self.headers = {"Api-Version": api}
        self.content = b"x"
        self._body = body

    def json(self) -> Any:
        return self._body


class Session:
    """Answers with what it was given and keeps what it was asked."""

    def __init__(self, *answers: Any):
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def request(self, method: str, url: str, **_options: Any) -> Response:
        self.asked.append((method, url))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Response)
        return answer


def engine(*answers: Any, api_version: str = "auto") -> tuple[Engine, Session]:
    session = Session(*answers)
    return Engine(session, "http://d", "unix:///run/d.sock", api_version, 5), session


def test_the_first_answer_tells_the_version_and_no_request_asks_for_it() -> None:
    subject, session = engine(Response({"Volumes": [{"Name": "a"}]}), Response([]))
    assert subject.volumes() == [{"Name": "a"}]
    assert subject.containers() == []
    assert session.asked == [("GET", "http://d/volumes"), ("GET", "http://d/v1.43/containers/json")]


def test_a_given_version_is_used() -> None:
    subject, session = engine(Response({"Volumes": None}), api_version="1.41")
    assert subject.volumes() == []
    assert session.asked == [("GET", "http://d/v1.41/volumes")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Response({}, api="1.39"), "speaks API 1.39, and 1.40"),
        (Response({"message": "no such driver"}, 404), "refused GET /volumes: no such driver"),
        (Response("?", 500), "HTTP 500"),
        (OSError("FileNotFoundError(2, 'No such file or directory')"), "no such socket"),
        (OSError("PermissionError(13, 'Permission denied')"), "become: true"),
        (OSError("ConnectionRefusedError(111)"), "connection refused"),
        (OSError("Read timed out."), "no answer in 5 s"),
    ],
)
def test_trouble_is_one_sentence(answer: Any, words: str) -> None:
    subject, _session = engine(answer)
    with pytest.raises(StackError) as raised:
        subject.volumes()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
