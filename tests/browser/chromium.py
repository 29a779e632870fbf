# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at a page of the report in headless Chromium, as people and phones do: chromium.py PAGE [DIRECTORY].

All that the browser asks for goes to a proxy of ours, which gives it the page, notes every other request and answers
none. So nothing leaves this machine, and what the page would have fetched is known. Pictures are put into DIRECTORY.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WIDTHS = (390, 1280)
TALLEST = 9000
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-features=NetworkTimeServiceQuerying,OptimizationHints",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
]
# What the browser asks for by itself nevertheless. It gets no answer either.
OWN = {"accounts.google.com", "clients2.google.com", "update.googleapis.com", "optimizationguide-pa.googleapis.com"}
_LIMIT_S = 90
_SITE = "http://report.test"
# Opens all that can be opened, then tells how wide and how high the page is and what sticks out of it.
_FRAME = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><pre id="told"></pre>
<iframe id="frame" src="/page" width="WIDTH" height="900" style="border:0"></iframe><script>
document.getElementById("frame").onload = (event) => {
  const page = event.target.contentDocument, root = page.documentElement, view = page.defaultView;
  page.querySelectorAll("details").forEach((each) => { each.open = true; each.style.contentVisibility = "visible"; });
  const isAway = (each) => view.getComputedStyle(each).position === "absolute";
  const isHidden = (each) => each && (isAway(each) || isHidden(each.parentElement));
  const out = [...page.body.querySelectorAll("*")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width > 1 && (box.right > WIDTH + 0.5 || box.left < -0.5) && !isHidden(each);
  });
  const told = {width: root.scrollWidth, height: root.scrollHeight,
    out: out.slice(0, 9).map((each) => each.outerHTML.slice(0, 160)),
    paper: view.getComputedStyle(page.body).backgroundColor};
  document.getElementById("told").textContent = "told:" + JSON.stringify(told) + ":told";
};
</script>"""


@dataclass
class Seen:
    """What was asked for beside the page itself, and by width how wide and high it is and what sticks out."""

    requests: list[str] = field(default_factory=list)
    measured: dict[int, dict[str, Any]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)

    def problems(self) -> list[str]:
        found = [f"The page asked for {each}." for each in self.requests]
        for width, told in self.measured.items():
            if told["width"] > width or told["out"]:
                found.append(f"At {width} px it is {told['width']} px wide; what sticks out: {told['out']}")
        return found


@contextmanager
def proxy(page: str) -> Iterator[tuple[int, list[str]]]:
    """A proxy that gives out the page and its frame and notes all else; (port, the requests so far)."""
    noted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            frame = re.fullmatch(rf"{_SITE}/frame/(\d+)", self.path)
            content = (
                _FRAME.replace("WIDTH", frame.group(1)) if frame else page if self.path == f"{_SITE}/page" else None
            )
            if content is None:
                self._note()
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content.encode())

        def do_CONNECT(self) -> None:
            self._note()
            self.send_error(403)

        def _note(self) -> None:
            host = re.sub(r"^\w+://", "", self.path).split("/")[0].split(":")[0]
            if host not in OWN:
                noted.append(self.path)

        do_POST = do_HEAD = do_PUT = do_CONNECT

        def log_message(self, *_arguments: Any) -> None:
            """Nothing on the terminal."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_arguments: Any) -> None:
            """The browser hangs up as it likes."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, noted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chromium(port: int, *arguments: str) -> str:
    """One run with a new profile; what it printed. AssertionError where it cannot be started or takes too long."""
    program = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    assert program, "There is no Chromium: run tests/setup.sh."
    with tempfile.TemporaryDirectory(prefix="omreport", ignore_cleanup_errors=True) as profile:
        own = (
            f"--user-data-dir={profile}",
            f"--proxy-server=http://127.0.0.1:{port}",
            "--proxy-bypass-list=<-loopback>",
        )
        done = subprocess.run(
            [program, *FLAGS, *own, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def look(page: str, directory: Path | None = None, widths: tuple[int, ...] = WIDTHS) -> Seen:
    """Measure the page at each width and, with a directory, take pictures of it, light and dark."""
    seen = Seen()
    with proxy(page) as (port, noted):
        for width in widths:
            printed = chromium(
                port,
                "--virtual-time-budget=5000",
                "--dump-dom",
                f"--window-size={width + 40},1000",
                f"{_SITE}/frame/{width}",
            )
            told = re.search(r"told:(\{.*\}):told", printed, re.DOTALL)
            assert told, printed[-2000:]
            seen.measured[width] = json.loads(html.unescape(told.group(1)))
            for shade in ("light", "dark") if directory else ():
                assert directory
                directory.mkdir(parents=True, exist_ok=True)
                picture = directory / f"report-{width}-{shade}.png"
                height = min(TALLEST, seen.measured[width]["height"])
                extra = ["--force-dark-mode"] if shade == "dark" else []
                chromium(port, *extra, f"--window-size={width},{height}", f"--screenshot={picture}", f"{_SITE}/page")
                assert picture.stat().st_size > 1000
                seen.pictures.append(picture)
        seen.requests = list(noted)
    return seen


def main(arguments: list[str]) -> int:
    seen = look(Path(arguments[0]).read_text(), Path(arguments[1]) if len(arguments) > 1 else None)
    for problem in seen.problems():
        print(problem)
    for picture in seen.pictures:
        print(picture)
    return bool(seen.problems())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
