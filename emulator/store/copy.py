"""From one database into another, whichever they are: all of it in one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Table,
    Text,
    func,
    insert,
    literal,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.exc import DBAPIError

from emulator.address import Address, DatabaseURL
from emulator.store.database import DatabaseError, one_line, read_engine
from emulator.store.schema import metadata, trajectories, turns

#: What is in memory at once, a few times over; a row that has more is alone.
BATCH_BYTES = 4 * 1024 * 1024
BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Copied:
    """How much was copied so far."""

    turns: int = 0
    bytes: int = 0  #: of requests and responses, as they are stored


def copy_database(source: Address, target: Address, progress: Callable[[Copied, int], None]) -> dict[str, int]:
    """Copy all that is in one database into an empty one, where it appears at the end; the rows of each table.

    A server may go on writing to the source: what is copied is what was there at the beginning. The target is brought
    up to date first, and no server may use it. `progress` is called with what was copied, and the turns that there are.
    Raises DatabaseError; the target is as it was then.
    """
    with read_engine(source).connect() as reader, _filling(target) as writer:
        with _blaming(source):
            _begin_snapshot(reader)
            counts = _counts(reader)
        copied = Copied()
        for table in metadata.sorted_tables:
            for rows in _batches(source, reader, table):
                writer.execute(insert(table), rows)
                if table is turns:
                    size = sum(len(row["request"]) + len(row["response"]) for row in rows)
                    copied = Copied(copied.turns + len(rows), copied.bytes + size)
                    progress(copied, counts["turns"])
        _finish(writer)
        if _counts(writer) != counts:
            raise DatabaseError(f"{target}: not everything arrived; nothing was copied")
    return counts


def _begin_snapshot(reader: Connection) -> None:
    """Let all queries see what the first one sees."""
    if reader.dialect.name == "postgresql":
        reader.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    else:
        reader.exec_driver_sql("BEGIN")


@contextmanager
def _filling(target: Address) -> Iterator[Connection]:
    """A transaction in an empty and up-to-date target, which no server uses meanwhile. Raises DatabaseError."""
    with _blaming(target), _to_url(target) if isinstance(target, DatabaseURL) else _to_file(target) as connection:
        for table, count in _counts(connection).items():
            if count:
                raise DatabaseError(f"{target}: is not empty (rows in {table}: {count}); copy into a new one")
        yield connection


@contextmanager
def _to_url(url: DatabaseURL) -> Iterator[Connection]:
    from emulator.store import libpq, postgresql

    with libpq.engine(url, libpq.PATIENT).begin() as connection:
        with libpq.explained(url):
            postgresql.bring_up_to_date(connection)
            if not postgresql.keep_others_out(connection):
                raise DatabaseError("a server uses it; stop it first")
        yield connection


@contextmanager
def _to_file(path: Path) -> Iterator[Connection]:
    from emulator.store.sqlite import SQLite

    is_new = not path.exists()
    database = SQLite(path, "full")
    database.open()
    try:
        with database.begin() as connection:
            yield connection
        is_new = False
    finally:
        if is_new:  # and nothing is in it
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        database.close()


def _batches(source: Address, reader: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    """All rows in the order of their keys, in batches that fit into memory."""
    key = tuple_(*table.primary_key)
    types = [column.type for column in table.primary_key]
    columns = [column for column in table.c if isinstance(column.type, LargeBinary | Text)]
    size: ColumnElement[int] = sum((func.coalesce(func.length(each), 0) for each in columns), literal(0))
    sizes = select(*table.primary_key, size.label("size")).order_by(*table.primary_key).limit(BATCH_ROWS)
    rest: list[ColumnElement[bool]] = []
    while True:
        with _blaming(source):
            found = reader.execute(sizes.where(*rest)).all()
            if not found:
                return
            totals = accumulate(row.size for row in found)
            fitting = sum(total <= BATCH_BYTES for total in totals) or 1
            last = tuple_(*map(literal, found[fitting - 1][:-1], types))
            rows = reader.execute(select(table).where(*rest, key <= last).order_by(*table.primary_key)).mappings().all()
        yield [dict(row) for row in rows]
        rest = [key > last]


def _counts(connection: Connection) -> dict[str, int]:
    return {
        table.name: connection.scalar(select(func.count()).select_from(table)) or 0 for table in metadata.sorted_tables
    }


def _finish(connection: Connection) -> None:
    """Make the target one that goes on from here."""
    if connection.dialect.name == "postgresql":
        # A file's only server counts by itself.
        last = select(turns.c.trajectory, func.max(turns.c.number).label("number")).group_by(turns.c.trajectory).cte()
        follows = update(trajectories).values(next_number=last.c.number + 1)
        connection.execute(follows.where(trajectories.c.id == last.c.trajectory))
        for table in metadata.sorted_tables:
            if table.autoincrement_column is not None:
                name = table.autoincrement_column.name
                sequence = func.pg_get_serial_sequence(table.name, name)
                connection.execute(select(func.setval(sequence, func.max(table.c[name]))).having(func.count() > 0))


@contextmanager
def _blaming(address: Address) -> Iterator[None]:
    """Say which of the two databases failed."""
    try:
        yield
    except DBAPIError as error:
        raise DatabaseError(f"{address}: {one_line(error)}; nothing was copied") from error
