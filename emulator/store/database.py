"""A database, whichever it is: what the store asks of it, and how it is opened, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError as SQLDatabaseError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


class DatabaseError(Exception):
    """The database cannot be used; the message is one line that says why and what to do."""


class Database(Protocol):
    """A database as the store uses it: opened once, closed once."""

    is_shared: bool  #: whether other processes write to it too
    backup: Path | None  #: the copy of before, where opening had to upgrade and could make one
    checkpoint: Callable[[Connection], None] | None  #: what moves SQLite's log into its file; others have none

    def open(self) -> Engine:
        """Bring it up to date; an engine that has one connection at a time, for writing. Raises DatabaseError."""

    def readers(self) -> AsyncEngine:
        """An engine of read-only connections. Importing it takes a moment: do so off the event loop."""

    def close(self) -> None:
        """Let it go."""


def open_database(address: Path | None, durability: str) -> Database:
    """The database at an address, not opened yet; None: one in memory, of this process alone."""
    from emulator.store.sqlite import SQLite

    return SQLite(address, durability)


def read_engine(address: Path) -> Engine:
    """An engine that reads a database, whether a server has it open or not. Raises DatabaseError."""
    from emulator.store import sqlite

    return sqlite.read_engine(address)


@contextmanager
def reading(address: Path) -> Iterator[Connection]:
    """A connection that reads a database, as `read_engine` has it.

    Raises DatabaseError, also where a query of the block finds the database damaged.
    """
    with read_engine(address).connect() as connection:
        try:
            yield connection
        except SQLDatabaseError as error:
            raise DatabaseError(f"{address}: {error.orig}; --database names another file") from error
