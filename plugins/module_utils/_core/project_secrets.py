# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeping secrets out of everything that people read."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "********"
SHORTEST = 4  # anything shorter would blacken half of an innocent text
_SECRET = re.compile(r"KEY|PASS|SECRET|TOKEN|AUTH|CREDENTIAL", re.IGNORECASE)


class Mask:
    """Call it with a text to have every secret in it replaced, also where it was escaped or encoded on its way."""

    def __init__(self, secrets: Iterable[str]):
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= SHORTEST:
                forms.update(_forms(secret))
        self._forms = sorted(forms, key=len, reverse=True)  # the longest first, so that no tail of one is left over

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text


def mask_of(containers: Iterable[Mapping[str, Any]]) -> Mask:
    """A mask of what inspected containers have in variables named like secrets, as USER/PASSWORD, too."""
    pairs = (line.partition("=") for about in containers for line in about["Config"].get("Env") or ())
    values = [value for key, _equals, value in pairs if _SECRET.search(key)]
    return Mask([*values, *(value.partition("/")[2] for value in values if "/" in value)])


def _forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    quoted = json.dumps(secret)[1:-1]
    return {secret, secret.replace("$", "$$"), quoted, quoted.replace("$", "$$"), quote(secret, safe=""), encoded}
