# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A target without Docker, on its standard streams: the real caller, whose containers are a file: this JSON.

JSON: killed, a file that is made when the containers are killed; lease and tick (seconds); protocol; kill (seconds that
killing takes). A request start takes as many seconds as it says. Needs the collection on PYTHONPATH and no Ansible.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ansible_collections.openmemory.stack.plugins.module_utils._core.errors import StackError
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate import caller as under_test
from ansible_collections.openmemory.stack.plugins.module_utils._core.migrate.line import PROTOCOL

ASKED = json.loads(sys.argv[1])


def kill(answer: bool) -> None:
    time.sleep(ASKED.get("kill", 0))
    Path(ASKED["killed"]).touch()


def main() -> None:
    under_test.LEASE_S, under_test.TICK_S, under_test._IDLE_TICK_S = ASKED["lease"], ASKED["tick"], ASKED["tick"]
    under_test.live()
    caller = under_test.Caller(sys.stdin.buffer, sys.stdout.buffer, kill)
    caller.begin()
    caller.say(hello=ASKED.get("protocol", PROTOCOL))
    accepted: list[bool] = []
    while (request := caller.next()) is not None:
        verb = request.pop("do")
        if verb == "start":
            try:
                caller.lease()
            except StackError as error:
                caller.say(failed=str(error))
                continue
            caller.say(phase="one")
            time.sleep(request.pop("seconds"))
            caller.say(phase="two")
        if verb == "accept":
            caller.unlease(lambda: accepted.append(True))
            request["accepted"] = accepted
        if verb == "refuse":
            caller.say(failed="It is full.")
            continue
        caller.say(done=verb, **request)
        if verb == "stop":
            return


if __name__ == "__main__":
    main()
