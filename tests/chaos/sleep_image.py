# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image with /bin/sleep of the machine that makes it and nothing else, for tests that need no store."""

from __future__ import annotations


def make_image(name: str) -> str:
    """A shell command that makes the image, unless it is there."""
    return (
        f"docker image inspect {name} >/dev/null 2>&1 || "
        f"tar -chf - /bin/sleep $(ldd /bin/sleep | grep -o '/[^ )]*') 2>/dev/null | docker import - {name}"
    )
