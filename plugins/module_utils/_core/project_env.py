# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings file `.env`, written so that Compose reads back exactly what was meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from .errors import StackError
from .project_secrets import HIDDEN

ENV_NAME = ".env"
ENV_MODE = 0o600
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_PLAIN = re.compile(r"^[A-Za-z0-9_./:@%+,=-]+$")
HEADER = "# Written by openmemory.stack; change the settings in the inventory. Compose reads this file by itself.\n"


def quote_value(value: str) -> str:
    """A value in the quoting of Compose's own parser; what is plain stays plain."""
    if _PLAIN.match(value):
        return value
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("$", "\\$"), ("\n", "\\n"), ("\r", "\\r")):
        value = value.replace(raw, escaped)
    return f'"{value}"'


def render_env(settings: Mapping[str, str]) -> str:
    """The text of `.env`. Raises StackError for a name that is no variable name or a value with a NUL byte."""
    lines = [HEADER]
    for name in settings:
        if not _NAME.match(name):
            raise StackError(f"The setting {name!r} is no name of an environment variable; use letters, digits and _.")
        if "\0" in settings[name]:
            raise StackError(f"The value of the setting {name} has a NUL byte in it; remove it.")
        lines.append(f"{name}={quote_value(settings[name])}\n")
    return "".join(lines)


def redact_env(text: str, public: Collection[str]) -> list[str]:
    """The lines of a settings file for a diff: only the values of the names in public are shown."""
    shown = []
    for line in text.splitlines():
        name, equals, _value = line.partition("=")
        if equals and not line.startswith("#") and name not in public:
            line = f"{name}={HIDDEN}"
        shown.append(line)
    return shown
