"""`job-runtime-local db`: look after the database."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from emulator.commands import Refused
from emulator.commands.terminal import visible
from emulator.settings import ENVIRONMENT_PREFIX, Settings

DATABASE_VARIABLE = ENVIRONMENT_PREFIX + "DATABASE"

#: The exit status of a check that found something.
DAMAGED = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `upgrade`, `backup` and `check`."""
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    upgrade = commands.add_parser("upgrade", help="bring its tables up to date, after a copy; no server may be running")
    upgrade.set_defaults(run=_upgrade)
    backup = commands.add_parser("backup", help="copy it, whether a server is running or not")
    backup.add_argument("target", type=Path, metavar="TARGET", help="the copy; must not exist yet")
    backup.set_defaults(run=_backup)
    check = commands.add_parser("check", help="look for damage; exit status 1 if there is some")
    check.set_defaults(run=_check)
    for each in (upgrade, backup, check):
        add_database_option(each)


def add_database_option(parser: argparse.ArgumentParser) -> None:
    """Add `--database`."""
    default = os.environ.get(DATABASE_VARIABLE) or Settings().database
    help_text = f"SQLite file that holds the trajectories (or {DATABASE_VARIABLE}; default: {Settings().database})"
    parser.add_argument("--database", type=Path, default=Path(default), metavar="FILE", help=help_text)


def _upgrade(given: argparse.Namespace) -> int:
    from emulator.store.database import DatabaseError, upgrade

    try:
        copy = upgrade(given.database)
    except DatabaseError as error:
        raise Refused(str(error)) from None
    print(f"{given.database}: up to date" if copy is None else f"{given.database}: upgraded; as it was before: {copy}")
    return 0


def _backup(given: argparse.Namespace) -> int:
    from emulator.store.database import DatabaseError, backup

    try:
        copy = backup(given.database, given.target)
    except DatabaseError as error:
        raise Refused(str(error)) from None
    print(f"{copy}: {copy.stat().st_size} bytes")
    return 0


def _check(given: argparse.Namespace) -> int:
    from emulator.store.database import DatabaseError, check

    try:
        problems = check(given.database)
    except DatabaseError as error:
        raise Refused(str(error)) from None
    for problem in problems:
        print(visible(problem, lines=True))
    if not problems:
        print("ok")
    return DAMAGED if problems else 0
