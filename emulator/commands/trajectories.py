"""`job-runtime-local trajectories`: look at what was captured, whether a server is running or not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emulator.address import Address
from emulator.commands import Refused
from emulator.commands.db import add_database_option, database_of
from emulator.terminal import make_console, prepare_output, visible
from emulator.trajectory import Status

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from emulator.store.queries import TrajectoryFilter, TrajectoryRecord

#: Rewards that a table shows of a trajectory.
SHOWN_REWARDS = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `list` and `show`."""
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    listing = commands.add_parser("list", help="a table of trajectories, newest first")
    add_filter(listing)
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (default: 50)")
    listing.add_argument("--json", action="store_true", help="JSON Lines in place of a table")
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", help="one trajectory as a conversation")
    show.add_argument("trajectory_id", metavar="TRAJECTORY_ID")
    show.add_argument("--job", metavar="ARN", help="its job, where several have a trajectory of that id")
    show.set_defaults(run=_show)

    for each in (listing, show):
        add_database_option(each)


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add the options that `read_filter` reads."""
    time = "RFC 3339, or seconds since 1970"
    parser.add_argument("--job", metavar="ARN", help="only those of this job")
    parser.add_argument("--status", choices=[each.value for each in Status], help="only those that stand there")
    parser.add_argument("--since", metavar="TIME", help=f"only those created then or later ({time})")
    parser.add_argument("--until", metavar="TIME", help=f"only those created before ({time})")


def _list(given: argparse.Namespace) -> int:
    from emulator.documents import to_json, trajectory_summary
    from emulator.store import queries

    if not 0 < given.limit < 1 << 31:
        raise Refused(f"--limit: {given.limit} is not a number from 1 to {(1 << 31) - 1}")
    with reading(database_of(given)) as connection:
        # One more than asked for tells whether there are more.
        found = queries.list_trajectories(connection, read_filter(given), limit=given.limit + 1)
    records = found[: given.limit]
    if given.json:
        prepare_output()
        for record in records:
            print(to_json(trajectory_summary(record)))
    elif records:
        _print_table(records)
    sys.stdout.flush()
    if not records:
        print("no trajectories", file=sys.stderr)
    elif len(found) > given.limit:
        print(f"only the newest {given.limit}; --limit shows more", file=sys.stderr)
    return 0


def _print_table(records: Sequence[TrajectoryRecord]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from emulator.documents import format_time

    console = make_console()
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, collapse_padding=True)
    # What does not fit goes on in the next line: half an id is of no use.
    table.add_column("job", overflow="fold")
    table.add_column("trajectory", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("turns", no_wrap=True, justify="right")
    table.add_column("rewards", overflow="fold")
    table.add_column("created", overflow="fold")
    for record in records:
        created = (format_time(record.created_at) or "")[:19].replace("T", " ") + "Z"
        cells = (
            record.job_arn.rpartition("/")[2],
            record.trajectory_id,
            record.status.value,
            str(record.turns),
            rewards_text(record.rewards),
            created,
        )
        table.add_row(*(Text(visible(cell)) for cell in cells))
    console.print(table)


def rewards_text(rewards: Sequence[float] | None) -> str:
    """Rewards in a few characters."""
    shown = " ".join(f"{reward:g}" for reward in (rewards or [])[:SHOWN_REWARDS])
    more = len(rewards or []) - SHOWN_REWARDS
    return f"{shown} … {more} more" if more > 0 else shown


def _show(given: argparse.Namespace) -> int:
    from emulator.conversation import write_trajectory
    from emulator.store import queries

    with reading(database_of(given)) as connection:
        found = queries.find_trajectories(connection, given.trajectory_id, given.job)
        if not found:
            of_job = f" of job {given.job}" if given.job else ""
            raise Refused(visible(f"{database_of(given)} has no trajectory {given.trajectory_id}{of_job}; see list"))
        if len(found) > 1:
            jobs = ", ".join(record.job_arn for record in found)
            raise Refused(visible(f"several jobs have a trajectory {given.trajectory_id}; --job names one of {jobs}"))
        turns = queries.turns_of(connection, found[0])
    console = make_console()
    write_trajectory(lambda text, style: console.print(text, style=style, soft_wrap=True), found[0], turns)
    sys.stdout.flush()
    return 0


@contextmanager
def reading(database: Address) -> Iterator[Connection]:
    """A connection that reads a database. Raises Refused."""
    from emulator.store.database import DatabaseError, reading

    try:
        with reading(database) as connection:
            yield connection
    except DatabaseError as error:
        raise Refused(str(error)) from None


def read_filter(given: argparse.Namespace) -> TrajectoryFilter:
    """Which trajectories the options mean. Raises Refused."""
    from emulator.documents import parse_time
    from emulator.store.queries import TrajectoryFilter

    times = {}
    for name in ("since", "until"):
        try:
            times[name] = None if (text := getattr(given, name)) is None else parse_time(text)
        except ValueError as error:
            raise Refused(f"--{name}: {error}") from None
    status = Status(given.status) if given.status else None
    return TrajectoryFilter(given.job, status, times["since"], times["until"])
