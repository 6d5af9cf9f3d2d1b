"""`job-runtime-local db`: look after the database."""

from __future__ import annotations

import argparse
from pathlib import Path

from emulator.address import Address, DatabaseURL
from emulator.commands import Refused, add_config_option, read_settings
from emulator.commands.terminal import visible

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
    """Add `--database` and `--config`; `database_of` reads them."""
    help_text = "SQLite file, or postgresql:// URL, with the trajectories (default: the one that `serve` would take)"
    parser.add_argument("--database", metavar="FILE|URL", help=help_text)
    add_config_option(parser)


def database_of(given: argparse.Namespace) -> Address:
    """The database that a command is about: the one that `serve`, called so, would take. Raises Refused."""
    return read_settings({"database": given.database}, given.config).address


def _upgrade(given: argparse.Namespace) -> int:
    from emulator.store.database import DatabaseError, upgrade

    database = database_of(given)
    try:
        copy = upgrade(database)
    except DatabaseError as error:
        raise Refused(str(error)) from None
    print(f"{database}: up to date" if copy is None else f"{database}: upgraded; as it was before: {copy}")
    return 0


def _backup(given: argparse.Namespace) -> int:
    from emulator.store.database import DatabaseError
    from emulator.store.sqlite import backup

    database = database_of(given)
    if isinstance(database, DatabaseURL):
        raise Refused(
            f"{database}: backup copies SQLite files; "
            "copy it with pg_dump, or into a file with `job-runtime-local db copy`"
        )
    try:
        copy = backup(database, given.target)
    except DatabaseError as error:
        raise Refused(str(error)) from None
    print(f"{copy}: {copy.stat().st_size} bytes")
    return 0


def _check(given: argparse.Namespace) -> int:
    from emulator.store.database import DatabaseError, check

    try:
        problems = check(database_of(given))
    except DatabaseError as error:
        raise Refused(str(error)) from None
    for problem in problems:
        print(visible(problem, lines=True))
    if not problems:
        print("ok")
    return DAMAGED if problems else 0
