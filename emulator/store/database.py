"""A database, whichever it is: what the store asks of it, and how it is opened, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from emulator.address import Address, DatabaseURL
from emulator.store.statements import Transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


class DatabaseError(Exception):
    """The database cannot be used; the message is one line that says why and what to do."""


class DatabaseInUse(DatabaseError):
    """Another server has the file open."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached; nothing was written."""


class OutcomeUnknown(DatabaseUnavailable):
    """The database cannot be reached; what was to be written may be there all the same."""


class Database(Protocol):
    """A database as the store uses it: opened once, closed once."""

    Error: type[Exception]  #: what its driver raises
    is_shared: bool  #: whether other processes write to it too
    backup: Path | None  #: the copy of before, where opening had to upgrade and could make one

    def open(self) -> None:
        """Bring it up to date. Raises DatabaseError."""

    def run(self, work: Callable[[Transaction], T], deadline: float) -> T:
        """Do `work` in a transaction that is committed when this returns; never two at once.

        Where the connection can be lost, `work` is done again until `deadline`, in seconds of `time.monotonic`.
        Raises OutcomeUnknown; DatabaseUnavailable, and whatever `work` raises, having changed nothing.
        """

    def can_checkpoint(self) -> bool:
        """Whether what can be done of a checkpoint beside writing is done; begins it, if need be."""

    def checkpoint(self) -> None:
        """Do what is best done when there is nothing to write."""

    def readers(self) -> AsyncEngine:
        """An engine of read-only connections. Importing it takes a moment: do so off the event loop."""

    def read_engine(self) -> Engine:
        """An engine of read-only connections for a thread that reads as long as it takes."""

    def close(self) -> None:
        """Let it go."""


def open_database(address: Address | None, durability: str) -> Database:
    """The database at an address, not opened yet; None: one in memory, of this process alone."""
    if isinstance(address, DatabaseURL):
        from emulator.store.postgresql import PostgreSQL

        return PostgreSQL(address)
    from emulator.store.sqlite import SQLite

    return SQLite(address, durability)


def read_engine(address: Address) -> Engine:
    """An engine that reads a database, whether a server has it open or not. Raises DatabaseError."""
    from emulator.store import postgresql, sqlite

    return postgresql.read_engine(address) if isinstance(address, DatabaseURL) else sqlite.read_engine(address)


@contextmanager
def reading(address: Address) -> Iterator[Connection]:
    """A connection that reads a database, as `read_engine` has it.

    Raises DatabaseError, also where a query of the block finds the database damaged, or gone.
    """
    with read_engine(address).connect() as connection:
        try:
            yield connection
        except DBAPIError as error:
            raise DatabaseError(f"{address}: {one_line(error)}; --database names another") from error


def check(address: Address) -> list[str]:
    """What is wrong with a database: damage, or states that must not be. Empty if nothing is.

    Raises DatabaseError if it cannot be read at all.
    """
    from emulator.store import postgresql, queries, sqlite

    with reading(address) as connection:
        problems = postgresql.check(connection) if isinstance(address, DatabaseURL) else sqlite.check(connection)
        return problems or queries.missing_prefixes(connection)


def upgrade(address: Address) -> Path | None:
    """Bring a database that no server has open up to date; the copy of before, if one was made.

    Raises DatabaseError.
    """
    from emulator.store import postgresql, sqlite

    if isinstance(address, DatabaseURL):
        postgresql.upgrade(address)
        return None
    return sqlite.upgrade(address)


def one_line(error: Exception) -> str:
    """What a database, or the way to it, says is wrong."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
