"""`job-runtime-local db`: look after the database."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.address import Address, DatabaseURL, parse_address
from emulator.commands import Refused, add_config_option, read_settings
from emulator.terminal import visible

if TYPE_CHECKING:
    from emulator.store.copy import Copied

#: The exit status of a check that found something.
DAMAGED = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `upgrade`, `backup`, `check` and `copy`."""
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    upgrade = commands.add_parser("upgrade", help="bring its tables up to date, after a copy; no server may be running")
    upgrade.set_defaults(run=_upgrade)
    backup = commands.add_parser("backup", help="copy a file, whether a server is running or not")
    backup.add_argument("target", type=Path, metavar="TARGET", help="the copy; must not exist yet")
    backup.set_defaults(run=_backup)
    check = commands.add_parser("check", help="look for damage; exit status 1 if there is some")
    check.set_defaults(run=_check)
    for each in (upgrade, backup, check):
        add_database_option(each)
    copy = commands.add_parser(
        "copy", help="copy everything into a new or empty database, from SQLite into PostgreSQL say; all or nothing"
    )
    copy.add_argument("source", metavar="FROM", help="file or postgresql:// URL; servers may be using it")
    copy.add_argument("target", metavar="TO", help="file or postgresql:// URL; no server may be using it")
    copy.set_defaults(run=_copy)


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


def _copy(given: argparse.Namespace) -> int:
    from emulator.store.copy import copy_database
    from emulator.store.database import DatabaseError

    try:
        source, target = parse_address(given.source), parse_address(given.target)
    except ValueError as error:
        raise Refused(str(error)) from None
    try:
        with _progress_bar() as progress:
            counts = copy_database(source, target, progress)
    except DatabaseError as error:
        raise Refused(str(error)) from None
    print(f"{target}: {counts['trajectories']} trajectories with {counts['turns']} turns")
    return 0


@contextmanager
def _progress_bar() -> Iterator[Callable[[Copied, int], None]]:
    """On standard error, if that is a terminal; what it yields moves it."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (MofNCompleteColumn(), "turns", BarColumn(), TextColumn("{task.fields[size]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, size="")

        def move(copied: Copied, total: int) -> None:
            progress.update(task, completed=copied.turns, total=total, size=decimal(copied.bytes))

        yield move
