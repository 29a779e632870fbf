# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan of what changes while it is made: containers of jobs come and go on a host that is in use."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from .errors import NotFoundError

_TIMES = 3
_Plan = TypeVar("_Plan", bound=Callable[..., Any])


def afresh(plan: _Plan) -> _Plan:
    """Make a plan, which changes nothing, anew where something was gone between its listing and the closer look.

    The third NotFoundError is raised: what is named and not there stays so.
    """

    @wraps(plan)
    def made(*arguments: Any, **options: Any) -> Any:
        for _again in range(_TIMES - 1):
            try:
                return plan(*arguments, **options)
            except NotFoundError:
                pass
        return plan(*arguments, **options)

    return cast("_Plan", made)
