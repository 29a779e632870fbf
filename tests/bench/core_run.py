"""Runs one backup or restore of the collection's core in a process of its own: what it needs of memory is then its own.

A JSON object comes on standard input: {"verb": "backup" | "restore", "options": {…}}, the options named as in the
request. Prints {"result": …, "peak_rss_bytes": …}; exits with 1 and the sentence on standard error if it is refused.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.module_utils._core.engine import Engine
from plugins.module_utils._core.errors import StackError
from plugins.module_utils._core.operation.progress import Progress


def peak_rss_bytes() -> int:
    """This process's own peak; getrusage's also counts what the parent was before exec, and restic."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def run(verb: str, options: dict[str, Any]) -> dict[str, Any]:
    if verb == "backup":
        from plugins.module_utils._core.backup import backup
        from plugins.module_utils._core.backup.request import BackupRequest

        return backup.run(BackupRequest(**options), Engine.connect(late=True), Progress())
    from plugins.module_utils._core.restore import restore
    from plugins.module_utils._core.restore.request import RestoreRequest

    return restore.run(RestoreRequest(**options), Engine.connect(), Progress())


def main() -> None:
    asked = json.load(sys.stdin)
    try:
        result = run(asked["verb"], asked["options"])
    except StackError as error:
        sys.exit(f"{asked['verb']}: {error}")
    print(json.dumps({"result": result, "peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
