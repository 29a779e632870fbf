# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of a fleet's model: one HTML file that asks for nothing else, by a template that escapes all it is given."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.openmemory.stack.plugins.plugin_utils import _fleet_text as words
from ansible_collections.openmemory.stack.plugins.plugin_utils._fleet_charts import Charts, freeze_facts, freeze_words
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

OPEN_AT_MOST = 10  # hosts whose details are open at first: the worst
MINUS = "\u2212"
LISTED_AT_MOST = 100  # of what is wrong, on top; the hosts' own sections have all


def fleet_page(model: Mapping[str, Any], template: str, style: str) -> str:
    """The page. template is Jinja's, style the text of the one style sheet; the policy allows that and nothing else."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(
        {name: getattr(words, name) for name in ("size", "span", "ago", "day", "count")}
        | {"per_day": per_day, "breaks": breaks}
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; base-uri 'none'; form-action 'none'"
    )
    rendered: str = environment.from_string(
        template
    ).render(
        model=model,
        style=Markup(style),  # the role's own file
        policy=policy,
        chart=Charts(),
        freeze_facts=freeze_facts,
        freeze_words=freeze_words,
        verdict=verdict(model["summary"]),
        listed=model["findings"][:LISTED_AT_MOST],
        open_at_most=OPEN_AT_MOST,
    )
    return rendered.lstrip()


def digest(content: str) -> str:
    """As a Content-Security-Policy names what stands in the page."""
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def breaks(name: Any) -> Markup:
    """A name or path, escaped, that a line may break in after a separator."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/.:@-])(?=\w)", str(name)))


def verdict(summary: Mapping[str, Any]) -> str:
    """The one line that everybody reads."""
    hosts, well = summary["hosts"], summary["by_status"]["ok"]
    if not hosts:
        return "There are no hosts"
    if hosts == well:
        return "The host is well" if hosts == 1 else f"All {hosts} hosts are well"
    wrong = hosts - well
    if hosts == 1:
        return "The host needs attention"
    return f"{wrong} of {hosts} hosts {'needs' if wrong == 1 else 'need'} attention"


def per_day(value: Any) -> str:
    """+1.2 MiB a day, steady, or an empty text where it is not known."""
    if value is None:
        return ""
    if abs(value) < 1024:
        return "steady"
    return f"{'+' if value > 0 else MINUS}{words.size(abs(value))} a day"
