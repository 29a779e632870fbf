# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report's page in a browser: at two widths nothing sticks out, it is light and dark, and it asks for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_model import fleet_model
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_page import fleet_page
from chromium import WIDTHS, chromium, look, proxy
from fleet_samples import NOW, answer, failed, fleet, stack, stale, unreachable, volume

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "build/report-pictures"
OUTSIDE = (
    '<img src="http://outside.test/a.png"><link rel="stylesheet" href="http://outside.test/b.css">'
    '<script src="http://outside.test/c.js"></script><iframe src="http://outside.test/d"></iframe>'
    "<script>document.images[0].src = 'http://outside.test/e.png'</script>"
)


def page(*hosts: dict[str, object]) -> str:
    role = ROOT / "roles/report"
    model = fleet_model(hosts, NOW, "OpenMemory")
    return fleet_page(model, (role / "templates/report.html.j2").read_text(), (role / "files/report.css").read_text())


@pytest.fixture(scope="module")
def usual() -> str:
    """Healthy, stale, failing, unreachable, and names and places without a blank that are longer than any screen."""
    long = stack("p" * 90, volumes=[volume("v" * 200, device="/srv/" + "d" * 300, problem="x" * 400)])
    long["repository"]["location"] = "s3:https://s3.example.com/" + "b" * 200
    long["containers"][0]["name"] = "c" * 150
    hosts = [
        answer("memory-1.example.com", stack()),
        answer("h" * 120, stale(), long),
        unreachable("memory-3.example.com"),
    ]
    return page(*hosts, failed("memory-4.example.com", "m" * 500))


def test_nothing_sticks_out_and_nothing_is_asked_for(usual: str) -> None:
    seen = look(usual, PICTURES)
    assert seen.problems() == []
    assert set(seen.measured) == set(WIDTHS)
    assert len(seen.pictures) == 4


def test_an_empty_and_a_large_fleet_fit_too() -> None:
    assert look(page()).problems() == []
    assert look(page(*fleet(60)), widths=WIDTHS[:1]).problems() == []


def test_the_test_sees_what_sticks_out(usual: str) -> None:
    wide = usual.replace("<main>", '<main><div><table><tr><td class="num">' + "w" * 300 + "</td></tr></table></div>")
    assert look(wide.replace("overflow-wrap: anywhere", "overflow-wrap: normal"), widths=WIDTHS[:1]).problems()


def test_the_test_sees_requests_and_the_policy_of_the_page_stops_them(usual: str) -> None:
    bare = f"<!doctype html><title>x</title>{OUTSIDE}"
    assert {"http://outside.test/a.png", "http://outside.test/b.css"} <= set(look(bare, widths=WIDTHS[:1]).requests)
    assert look(usual.replace("<main>", f"<main>{OUTSIDE}"), widths=WIDTHS[:1]).requests == []


def test_dark_is_dark(usual: str, tmp_path: Path) -> None:
    with proxy(usual) as (port, _noted):
        papers = [
            chromium(port, *extra, "--virtual-time-budget=5000", "--dump-dom", "http://report.test/frame/390")
            for extra in ([], ["--force-dark-mode"])
        ]
    assert '"paper":"rgb(250, 249, 247)"' in papers[0]
    assert '"paper":"rgb(19, 20, 22)"' in papers[1]
