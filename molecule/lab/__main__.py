"""``python -m lab up|down|status``: the lab's command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import lifecycle
from .errors import LabError


def parser() -> argparse.ArgumentParser:
    """The command line's definition."""
    top = argparse.ArgumentParser(prog="python -m lab", description="Hosts to try the project on, as containers.")
    verbs = top.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="bring up hosts, a registry and an inventory")
    up.add_argument("--hosts", type=int, default=2, metavar="N", help="hosts with Docker, Debian 12 and 13 in turn")
    up.add_argument("--bare", default="", metavar="RELEASES", help="hosts without Docker, such as bookworm,trixie")
    up.add_argument("--twins", action="store_true", help="each host with Docker twice, the second set in twins.yml")
    up.add_argument("--temporary", action="store_true", help="mark new hosts as made for a test run")
    down = verbs.add_parser("down", help="remove everything that the lab made")
    down.add_argument("--cache", action="store_true", help="remove the cached images too")
    down.add_argument("--temporary", action="store_true", help="remove only what 'up --temporary' made")
    verbs.add_parser("status", help="show what is up")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        if options.verb == "up":
            bare = [name for name in options.bare.split(",") if name]
            lifecycle.up(options.hosts, bare, temporary=options.temporary, twins=options.twins)
        elif options.verb == "down":
            lifecycle.down(cache=options.cache, temporary=options.temporary)
        else:
            lifecycle.status()
    except LabError as problem:
        print(f"lab: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"lab: {problem.filename or 'The lab'}: {problem.strerror or problem}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; 'lab up' goes on from here, 'lab down' removes what there is.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
