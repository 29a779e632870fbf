# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line: its verbs, their options, and help that can be followed at three in the morning."""

from __future__ import annotations

import argparse
from typing import Any

from ..backup.request import QUIESCE, STAGING, VERIFY, WAYS, BackupRequest
from ..operation.places import CONFIG_DIR
from ..restore.request import RestoreRequest

MACHINES = ("failed", "gate", "arrive")  # verbs that systemd and sshd call
EXIT_CODES = """\
exit codes:
  0  done
  1  failed; the last line says why and what to do
  2  wrong usage, or settings that are missing or wrong
  3  done, but something wants your attention
  4  another operation is under way, on this stack or in the repository; nothing was done
  130, 143  interrupted; whatever was stopped or frozen goes on again
"""
EXAMPLES = """\
examples:
  openmemory-stack status              is everything well?
  openmemory-stack backup              take a snapshot now
  openmemory-stack list                which snapshots are there?
  openmemory-stack restore latest --dry-run
  openmemory-stack restore latest --force
  openmemory-stack undo                take that restore back
  openmemory-stack VERB --help         more about one verb

It is for root: put sudo before it where you are not.
The settings are in /etc/openmemory-stack/PROJECT.json, so nothing else needs to be given.
"""
BACKUP_EXAMPLES = """\
examples:
  openmemory-stack backup
  openmemory-stack backup --tag before-update --verify full
  openmemory-stack backup --volume openmemory_data
  openmemory-stack backup --dry-run    what would be done?
"""
RESTORE_EXAMPLES = """\
examples:
  openmemory-stack restore latest --dry-run            what would be done?
  openmemory-stack restore latest --force              replace what is live; it is kept for 7 days
  openmemory-stack restore "2026-11-25 02:00" --force  the newest snapshot that is not later
  openmemory-stack restore tag:before-update --probe --force
  openmemory-stack restore 5f0c2a9b --volume openmemory_data --path openmemory.db --force
  openmemory-stack restore latest --new --prefix look_ into new volumes, beside the live ones

The data is fetched and checked beside the live data, and swapped in only then. If the stack does
not become healthy on it, it is swapped back.
"""


PURGE_EXAMPLES = """\
examples:
  openmemory-stack purge --dry-run                 what would go? Nothing is done
  openmemory-stack purge --confirm openmemory      make a last snapshot, then remove all of it
  openmemory-stack purge --confirm openmemory --no-snapshot

The name of the stack has to be typed. The repository and its password stay, so the stack can be
brought back: openmemory-stack restore latest. If the snapshot fails, everything runs on as before.
"""
FORGET_EXAMPLES = """\
examples:
  openmemory-stack forget --dry-run    which would go? Nothing is done
  openmemory-stack forget

Every backup does the same at its end. The policy is keep in the settings: that of the near
repository, and that of each far one which this host may remove from.
"""


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the examples as they are, and is as wide as people's terminals are."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=100)


def build_parser(version: str) -> argparse.ArgumentParser:
    """The parser. An option that is not given is not in the result, so that the settings file holds."""
    parser = argparse.ArgumentParser(
        prog="openmemory-stack",
        description="Back up and restore the data of an OpenMemory stack on this host.",
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
        formatter_class=Help,
    )
    parser.add_argument("--version", action="version", version=f"openmemory-stack {version}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    shared = _shared()
    for name, text, epilog, add in (
        ("backup", "Take a snapshot: one instant of all stores.", BACKUP_EXAMPLES, _backup),
        ("restore", "Bring a snapshot back, with a way back.", RESTORE_EXAMPLES, _restore),
        ("undo", "Take the last restore back: swap the data in that it replaced.", "", _undo),
        ("purge", "Remove the stack with all of its data, after a last snapshot.", PURGE_EXAMPLES, _purge),
        ("copy", "Bring the far repositories all that they lack, without a new backup.", "", _dry_run),
        ("forget", "Remove the snapshots that are not kept any more.", FORGET_EXAMPLES, _dry_run),
        ("list", "List the snapshots, newest first.", "", _list),
        ("check", "Check the repository: are all snapshots readable?", "", _check),
        ("status", "Tell when the last backup was, what is under way, and what wants attention.", "", _status),
        ("recover", "Finish or undo what an operation that died has left.", "", _recover),
        ("drill", "Prove that the newest snapshot can be restored, beside the live stack.", "", _drill),
        ("init", "Make the password file and the repository, where they are missing.", "", _nothing),
        ("metrics", "Write the metrics for Prometheus again, or print them.", "", _metrics),
        ("notify", "Send a test message to everybody who is told of failures.", "", _nothing),
        ("failed", "Record and tell that a unit of the stack has failed; systemd calls it.", "", _nothing),
        ("gate", "What the key of a migration opens; sshd calls it.", "", _gate),
        ("arrive", "The target's part of a migration; the gate calls it.", "", _arrive),
    ):
        listed: dict[str, Any] = {} if name in MACHINES else {"help": text}  # a verb without help is not in the list
        verb = verbs.add_parser(
            name,
            **listed,
            description=text,
            epilog=f"{epilog}\n{EXIT_CODES}".lstrip(),
            parents=[shared],
            formatter_class=Help,
            argument_default=argparse.SUPPRESS,
        )
        add(verb)
    return parser


def _shared() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("which stack, and how to tell")
    group.add_argument("-p", "--project", help="Compose project; needed only where this host has several")
    group.add_argument("--config-dir", default=CONFIG_DIR, metavar="DIR", help=f"settings (default: {CONFIG_DIR})")
    group.add_argument("--repository", help="where the snapshots are, as restic names it (default: from the settings)")
    group.add_argument("--password-file", metavar="FILE", help="its password (default: from the settings)")
    group.add_argument("--copy", metavar="NAME", help="ask this far repository of the settings, not the near one")
    group.add_argument("--state-dir", metavar="DIR", help="what is kept between runs (default: from the settings)")
    group.add_argument("--docker-host", metavar="URL", help="the Docker engine's socket (default: from the settings)")
    group.add_argument("--json", action="store_true", default=False, help="print the result as JSON")
    shown = group.add_mutually_exclusive_group()
    shown.add_argument("--progress", action="store_true", default=None, help="tell how far it is, also into a file")
    shown.add_argument("--quiet", dest="progress", action="store_false", help="do not tell how far it is")
    return parser


def _default(of: type, name: str) -> str:
    return f"(default: {getattr(of, name)})"


def _wait(parser: argparse.ArgumentParser) -> None:
    told = "wait so many minutes for another operation to end (default: 0)"
    parser.add_argument("--wait", type=float, metavar="MIN", help=told)


def _dry_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--dry-run", action="store_true", default=False, help="only tell what would be done")


def _backup(parser: argparse.ArgumentParser) -> None:
    _dry_run(parser)
    add = parser.add_argument
    of: Any = BackupRequest
    add("--volume", dest="volumes", action="append", metavar="NAME", help="only this volume; can be given again")
    add("--tag", dest="tags", action="append", metavar="TAG", help="a tag to find the snapshot by; can be given again")
    add("--verify", choices=VERIFY, help=f"how the copy is checked; full starts the stores {_default(of, 'verify')}")
    add("--export", action="store_true", help="also store Neo4j dumps and other files that any tool can read")
    quiesce = (
        "pause freezes the containers for the instant, stop ends them for it, none leaves them writing (torn copy)"
    )
    add("--quiesce", choices=QUIESCE, help=f"{quiesce} {_default(of, 'quiesce')}")
    capture = (
        "share blocks (reflink), copy while frozen (single), or ahead and then what changed (two_pass); auto chooses"
    )
    add("--capture", choices=WAYS, help=f"{capture} {_default(of, 'capture')}")
    add("--compare", action="store_true", help="compare all contents while frozen; that takes longer")
    add("--staging", choices=STAGING, help=f"whether the copy stays for the next time {_default(of, 'staging')}")
    add("--staging-dir", metavar="DIR", help="where the copy is made (default: in the state directory)")
    frozen = "give up, and let the containers go on, when they were frozen for so many seconds"
    add("--freeze-timeout", type=float, metavar="S", help=f"{frozen} {_default(of, 'freeze_timeout')}")
    add("--keep-all", action="store_true", default=False, help="remove no old snapshot this time")
    add("--no-init", dest="init", action="store_false", help="fail if there is no repository, instead of making one")
    add("--no-copies", action="store_true", default=False, help="leave the far repositories to the next backup")
    _wait(parser)
    add("--if-none", action="store_true", default=False, help="only if the stack has no snapshot yet")


def _restore(parser: argparse.ArgumentParser) -> None:
    _dry_run(parser)
    add = parser.add_argument
    of: Any = RestoreRequest
    snapshots = "latest, an id or its beginning, tag:NAME, or a time"
    add("snapshot", nargs="?", help=f"{snapshots} {_default(of, 'snapshot')}")
    add("--volume", dest="volumes", action="append", metavar="NAME", help="only this volume; can be given again")
    add("--path", help="one file or directory in the one volume that is named, relative to its root")
    add("--force", action="store_true", help="replace volumes that are not empty; without it they are refused")
    add("--probe", action="store_true", help="start the stores on the copy before anything is replaced")
    add("--new", dest="target", action="store_const", const="new", help="into new volumes, beside the live ones")
    add("--prefix", dest="new_prefix", help="what the new volumes' names begin with (default: PROJECT-restored_)")
    add("--map", dest="name_map", action="append", metavar="NAME=VOLUME", help="another Docker volume for NAME")
    add("--from-project", metavar="PROJECT", help="the stack that the snapshot is of, if it is another one")
    add("--no-safety", dest="safety", action="store_false", help="do not back up first what is replaced")
    add("--keep-days", type=float, metavar="D", help=f"how long what is replaced is kept {_default(of, 'keep_days')}")
    add("--ignore-versions", action="store_true", help="restore also where the images may not read the data")
    add("--no-census", dest="check_census", action="store_false", help="do not compare contents with the snapshot")
    add("--no-start", dest="start", action="store_false", help="leave the containers stopped")
    add("--staging-dir", metavar="DIR", help="where the copy for the safety snapshot is made (default: as backups do)")
    add("--set-password", action="store_true", help="give the restored Neo4j the password of its container")
    add("--wait-timeout", type=float, metavar="S", help=f"seconds to become healthy {_default(of, 'wait_timeout')}")


def _undo(parser: argparse.ArgumentParser) -> None:
    _dry_run(parser)


def _purge(parser: argparse.ArgumentParser) -> None:
    _dry_run(parser)
    add = parser.add_argument
    add("--confirm", metavar="NAME", help="the name of the stack, so that nothing is removed by mistake")
    add("--no-snapshot", dest="snapshot", action="store_const", const="none", help="make no snapshot first")
    add("--project-dir", dest="project_src", metavar="DIR", help="of the compose file (default: as the containers say)")
    add("--staging-dir", metavar="DIR", help="where the copies of backups are made (default: as backups do)")


def _list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=int, metavar="N", help="only the newest N")
    parser.add_argument("--tag", dest="tags", action="append", metavar="TAG", help="only those with this tag")


def _check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--read-data",
        nargs="?",
        const="all",
        metavar="PERCENT",
        help="also read the data, all or a part such as 5%%; without it only the structure is checked",
    )
    _wait(parser)


def _status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-age", type=float, metavar="HOURS", help="an older last backup wants attention")


def _recover(parser: argparse.ArgumentParser) -> None:
    _dry_run(parser)


def _drill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("snapshot", nargs="?", help="latest, an id, tag:NAME, or a time (default: latest)")
    _wait(parser)


def _metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--print", action="store_true", default=False, help="only print them")


def _gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("operation", help="of the migration")
    parser.add_argument("--asked", default="", help="what the other side wants to run")


def _arrive(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("operation", help="of the migration")


def _nothing(parser: argparse.ArgumentParser) -> None:
    """A verb without options of its own."""
