# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mail server and a web server on loopback that write each message they get as a line of JSON into a file.

receivers.py SMTP_PORT HTTP_PORT FILE runs both until it is ended; a port of 0 takes a free one. The tests of this
directory import it, and the Molecule scenario monitoring runs it on the hosts. Standard library only.
"""

from __future__ import annotations

import email
import email.policy
import json
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

LOOPBACK = "127.0.0.1"


class Mailbox:
    """The file of what was received."""

    def __init__(self, path: Path):
        self.path = path
        self._turn = threading.Lock()

    def add(self, **message: Any) -> None:
        with self._turn, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(message) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """The messages so far, oldest first."""
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


class SmtpHandler(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as a client needs to hand over a message, and AUTH PLAIN, which takes anything."""

    def handle(self) -> None:
        sender, recipients = "", []
        self._say("220 receivers ready")
        for raw in self.rfile:
            line = raw.decode("ascii", "replace").strip()
            verb = line[:4].upper()
            if verb == "EHLO":
                self._say("250-receivers", "250-AUTH PLAIN", "250 8BITMIME")
            elif verb == "AUTH":
                self._say("235 welcome")
            elif verb == "MAIL":
                sender = line.partition("<")[2].partition(">")[0]
                self._say("250 ok")
            elif verb == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
                self._say("250 ok")
            elif verb == "DATA":
                self._say("354 go on")
                self._take(sender, recipients)
                self._say("250 taken")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _take(self, sender: str, recipients: list[str]) -> None:
        lines = []
        for raw in self.rfile:
            if raw.rstrip(b"\r\n") == b".":
                break
            lines.append(raw[1:] if raw.startswith(b"..") else raw)
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        body = message.get_body(("plain", "html"))
        text = body.get_content() if body is not None else ""
        cast(SmtpServer, self.server).mailbox.add(
            kind="mail", sender=sender, to=recipients, title=str(message["Subject"]), body=text
        )

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class HttpHandler(BaseHTTPRequestHandler):
    """Takes what is posted anywhere; a path that holds "refuse" is answered with 503."""

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        refused = "refuse" in self.path
        if not refused:
            told = {"kind": "web", "path": self.path, "authorization": self.headers.get("Authorization", "")}
            cast(WebServer, self.server).mailbox.add(**told, body=json.loads(text))
        self.send_response(503 if refused else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""


class SmtpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    mailbox: Mailbox


class WebServer(ThreadingHTTPServer):
    mailbox: Mailbox


def start(mailbox: Mailbox, smtp_port: int = 0, http_port: int = 0) -> tuple[Any, Any]:
    """Both servers, answering in threads of their own: (mail, web); server_address[1] is the port, shutdown() ends."""
    mail = SmtpServer((LOOPBACK, smtp_port), SmtpHandler)
    web = WebServer((LOOPBACK, http_port), HttpHandler)
    mail.mailbox = web.mailbox = mailbox
    for server in (mail, web):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return mail, web


if __name__ == "__main__":
    start(Mailbox(Path(sys.argv[3])), int(sys.argv[1]), int(sys.argv[2]))
    while True:
        time.sleep(3600)
