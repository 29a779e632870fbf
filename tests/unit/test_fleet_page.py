# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of the report: it escapes all it shows, asks for nothing, and says the same without colour."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_model import fleet_model
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_page import digest, fleet_page, per_day, verdict
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_text import DASH, age, ago, clean, day, size, span

from .fleet_samples import MIB, NOW, answer, container, copy_to, failed, fleet, iso, stack, stale, unreachable, volume

ROLE = Path(__file__).resolve().parents[2] / "roles/report"
TEMPLATE, STYLE = (ROLE / "templates/report.html.j2").read_text(), (ROLE / "files/report.css").read_text()
VOID = {"wbr", "meta", "link", "br", "path", "circle", "rect", "use"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}&amp;</style></svg></title>"


class Page(HTMLParser):
    """Elements, text and ids of a page; unbalanced tags are told."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(*hosts: dict[str, Any], title: str = "Fleet") -> str:
    return fleet_page(fleet_model(hosts, NOW, title), TEMPLATE, STYLE)


def everything() -> list[dict[str, Any]]:
    kept = [{"volume": "v", "path": "/srv/.old", "until": iso(days=-1), "operation": "1"}]
    busy = stack("busy", kept=kept, containers=[container("qdrant", "exited"), container("neo4j", health="starting")])
    busy["last"] |= {
        "update": {"created": iso(days=1), "updated": ["qdrant"]},
        "recovered": {"created": iso(days=1), "message": "m"},
    }
    busy["last"]["drill_failed"] = {"created": iso(hours=1), "message": "No."}
    busy["volumes"].append(
        volume("none", allocated_bytes=None, filesystem=None, store=None, empty=True, size_complete=False)
    )
    new = stack("new", days=0, settings=False, repository=None, snapshots=None, schedule=None, last={}, problems=[])
    copies = [
        copy_to("far"),
        copy_to("off", ok=False, error="No."),
        copy_to("new", ok=None, success=None, location=None),
    ]
    unread = stack("unread", days=1, copies=copies)
    unread["snapshots"]["unread"] = 3
    return [
        answer("memory-1", stack(), busy, new, unread),
        answer("empty"),
        answer("s", stale()),
        unreachable("u"),
        failed("f", "sudo: a password is required"),
    ]


def test_it_is_one_well_formed_page_with_all_hosts() -> None:
    found = Page(page(*everything()))
    told = " ".join("".join(found.text).split())
    for words in (
        "Connection refused",
        "a password is required",
        "memory-1",
        "busy",
        "There is no stack on this host.",
    ):
        assert words in told
    ids = [attributes["id"] for _tag, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"] for attributes in found.named("a")}
    assert targets <= {f"#{one}" for one in ids}


def test_what_is_wrong_stands_before_all_else() -> None:
    text = page(answer("healthy", stack()), unreachable("lost"), answer("s", stale()))
    assert text.index(">lost<") < text.index(">s<") < text.index(">healthy<")
    assert 'class="unreachable"' in text
    assert "Connection refused" in text


def hostile(value: Any) -> Any:
    """The same answer with every text that has no meaning to us replaced."""
    if isinstance(value, dict):
        fixed = (
            "created",
            "time",
            "now",
            "tried",
            "success",
            "started",
            "until",
            "next",
            "oldest",
            "at",
            "state",
            "health",
        )
        return {key: inner if key in fixed else hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return EVIL if isinstance(value, str) else value


def test_hostile_names_stay_names() -> None:
    hosts = [{"host": EVIL + each["host"], "result": hostile(each["result"])} for each in everything()]
    plain, text = Page(page(*everything())), page(*hosts, title=EVIL)
    found = Page(text)
    assert {tag for tag, _attributes in found.tags} <= {tag for tag, _attributes in plain.tags}
    assert found.named("script") == found.named("img") == []
    assert not [
        name for _tag, attributes in found.tags for name in attributes if name.startswith("on") or name == "style"
    ]
    assert "<script" not in text
    assert "49" not in re.findall(r"onerror=alert\(1\)&gt;(.{2})", text)
    assert "{{ 7*7 }}" in text


def test_texts_cannot_turn_the_line_around_nor_forge_a_second_one() -> None:
    assert clean("a\u202eb\u200bc\nd\x1b[0m\x00") == "a\ufffdb\ufffdc d\ufffd[0m\ufffd"
    assert clean({"a": [1, float("nan"), b"x", object()]}) == {"a": [1, None, None, None]}


def test_it_asks_for_nothing() -> None:
    text = page(*everything())
    found = Page(text)
    policy = next(each["content"] or "" for each in found.named("meta") if each.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    assert f"style-src 'sha256-{digest(STYLE)}'" in policy
    assert "unsafe" not in policy
    assert f"<style>{STYLE}</style>" in text
    assert [each["href"] for each in found.named("link")] == ["data:,"]
    assert all((each["href"] or "").startswith("#") for each in found.named("use"))
    assert not [attributes for _tag, attributes in found.tags if {"src", "srcset", "action", "style"} & set(attributes)]
    assert "url(" not in STYLE.replace("url(#hatch)", "")
    assert "@import" not in STYLE


def test_pictures_are_named_and_described() -> None:
    found = Page(page(*everything()))
    ids = {attributes.get("id") for _tag, attributes in found.tags}
    drawn = [each for each in found.named("svg") if each.get("role") == "img"]
    assert len(drawn) > 10
    for each in drawn:
        assert set((each["aria-labelledby"] or "").split()) <= ids
    assert all(each.get("role") == "img" or each.get("aria-hidden") == "true" for each in found.named("svg"))
    told = "".join(found.text)
    assert re.search(r"From [\d.]+ MiB on 2 Nov 2026 to [\d.]+ MiB on 25 Nov 2026, 24 snapshots", told)
    assert re.search(r"24 snapshots from 2 Nov 2026, 02:36 to 25 Nov 2026, 02:36: last [\d.]+ s, median", told)


def test_a_status_is_a_word_and_a_shape_and_not_only_a_colour() -> None:
    text = page(*everything())
    for status, word in (
        ("unreachable", "Unreachable"),
        ("failed", "Failed"),
        ("critical", "Critical"),
        ("ok", "Well"),
    ):
        assert re.search(rf'<use href="#i-{status}"/></svg>{word}</span>', text)
        assert f'<symbol id="i-{status}"' in text


def light(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("shade", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_what_it_stands_on(shade: int) -> None:
    blocks = re.findall(r":root \{(.*?)\n *\}", STYLE, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[shade]))
    pairs = [(text, on) for text in ("ink", "soft", "bad") for on in ("paper", "card")]
    pairs += [(each, f"{each}-wash") for each in ("bad", "warn", "good")] + [("soft", "wash"), ("plot", "card")]
    for text, on in pairs:
        low, high = sorted((light(colours[text]), light(colours[on])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, on)


def test_each_cell_names_its_column_for_who_sees_a_card() -> None:
    cells = Page(page(*everything())).named("td")
    assert cells
    assert all("data-label" in cell or cell.get("colspan") for cell in cells)


def test_no_fleet_at_all() -> None:
    told = "".join(Page(page()).text)
    assert "There are no hosts" in told
    assert "What is wrong" not in told


def test_a_thousand_hosts_are_bounded_and_closed_at_first() -> None:
    text = page(*fleet(1000))
    found = Page(text)
    assert len(found.named("details")) == 1000
    assert len([each for each in found.named("details") if "open" in each]) == 10
    assert "40 more findings, at their hosts below" in "".join(found.text)
    assert len(text) < 12_000_000


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"ok": 1}, "The host is well"),
        ({"ok": 7}, "All 7 hosts are well"),
        ({"critical": 1}, "The host needs attention"),
        ({"ok": 2, "failed": 1}, "1 of 3 hosts needs attention"),
        ({"unreachable": 1, "warning": 1}, "2 of 2 hosts need attention"),
        ({}, "There are no hosts"),
    ],
)
def test_the_verdict(counts: dict[str, int], told: str) -> None:
    statuses = {status: counts.get(status, 0) for status in ("unreachable", "failed", "critical", "warning", "ok")}
    assert verdict({"hosts": sum(counts.values()), "by_status": statuses}) == told


def test_figures_are_for_people() -> None:
    assert [age(seconds) for seconds in (None, 5, 600, 7300, 90000, 200000, 1e6, 3e6, 1e7, 1e8)] == [
        DASH, "now", "10 min", "2 h", "25 h", "2 days", "11 days", "4 weeks", "3 months", "3 years",
    ]  # fmt: skip
    assert [span(seconds) for seconds in (None, 0.013, 0.214, 41, 200)] == [
        DASH,
        "13 ms",
        "0.21 s",
        "41 s",
        "3 min 20 s",
    ]
    assert [size(amount) for amount in (None, "x", 0, 640 * 1024)] == [DASH, DASH, "0 bytes", "640 KiB"]
    assert [ago(seconds) for seconds in (None, 5, 7300)] == [DASH, "just now", "2 h ago"]
    assert day("2026-11-25T02:15:04Z") == "25 Nov 2026, 02:15"
    assert day("soon") == DASH
    assert [per_day(amount) for amount in (None, 12, 3 * MIB, -MIB)] == [
        "",
        "steady",
        "+3 MiB a day",
        "\u22121 MiB a day",
    ]
