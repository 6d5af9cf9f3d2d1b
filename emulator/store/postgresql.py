"""A PostgreSQL database: its connections, bringing it up to date beside other servers, checking it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from emulator.address import DatabaseURL
from emulator.store import migrations
from emulator.store.database import DatabaseError, one_line
from emulator.store.libpq import (
    PATIENT,
    PATIENT_READER,
    READER,
    driver,
    engine,
    explained,
    parameters,
    set_all,
)
from emulator.store.schema import metadata
from emulator.store.statements import LOCK, Transaction
from emulator.store.write_connection import WriteConnection

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

log = logging.getLogger(__name__)

_OPENING = f"({LOCK}, hashtext('opening ' || current_schema()))"
_SERVING = f"({LOCK}, hashtext('serving ' || current_schema()))"

#: Indexes and constraints of ours that PostgreSQL itself does not rely on.
_UNSOUND = """
SELECT pg_class.relname || ': index ' || indexrelid::regclass || ' is not valid'
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace
UNION ALL
SELECT pg_class.relname || ': constraint ' || conname || ' was never checked'
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE NOT convalidated AND relnamespace = current_schema()::regnamespace
"""

#: Connections at once for management's pages.
READERS = 4


class PostgreSQL:
    """A PostgreSQL database, which other servers may write to at the same time."""

    def __init__(self, url: DatabaseURL) -> None:
        """Nothing is connected yet."""
        self._url = url
        self.is_shared = True
        self.backup: Path | None = None  # an upgrade is one transaction; copies are pg_dump's
        self._writes: WriteConnection | None = None

    def open(self) -> None:
        """Bring it up to date, and connect. Raises DatabaseError."""
        with explained(self._url):
            with engine(self._url, PATIENT).begin() as connection:
                bring_up_to_date(connection)
                dialect = connection.dialect
            self.Error: type[Exception] = driver().Error
            self._writes = WriteConnection(self._url, dialect, _begin_serving)
            try:
                self._writes.open()
            except BaseException:
                self.close()
                raise

    def run(self, work: Callable[[Transaction], T], deadline: float) -> T:
        """Do `work` in a transaction that is committed when this returns; see `WriteConnection.run`."""
        assert self._writes is not None
        return self._writes.run(work, deadline)

    def can_checkpoint(self) -> bool:
        """There is nothing to do."""
        return True

    def checkpoint(self) -> None:
        """The server does so by itself."""

    def readers(self) -> AsyncEngine:
        """An engine of read-only connections. Importing it takes a moment: do so off the event loop."""
        from sqlalchemy.ext.asyncio import create_async_engine

        async def connect() -> psycopg.AsyncConnection[Any]:
            connection: psycopg.AsyncConnection[Any] = await driver().AsyncConnection.connect(
                **parameters(self._url), autocommit=True
            )
            try:
                await connection.execute(set_all(READER))
                await connection.set_autocommit(False)
            except BaseException:
                await connection.close()
                raise
            return connection

        return create_async_engine(
            "postgresql+psycopg://",
            async_creator=connect,
            use_native_hstore=False,
            pool_size=READERS,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
        )

    def read_engine(self) -> Engine:
        """An engine of read-only connections for a thread that reads as long as it takes."""
        return engine(self._url, PATIENT_READER)

    def close(self) -> None:
        """Let go of the connection."""
        if self._writes is not None:
            self._writes.close()


def _begin_serving(connection: psycopg.Connection[Any]) -> None:
    """Keep others from upgrading the database as long as this connection lasts. Raises DatabaseError."""
    # What an administrator switched off for speed would lose turns that were acknowledged.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.execute(f"SELECT pg_advisory_lock_shared{_SERVING}".encode())
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    migrations.require_unchanged(None if row is None else row[0])


def bring_up_to_date(connection: Connection) -> None:
    """Make an empty database's tables, or upgrade an older one's, in the caller's transaction; one server at a time.

    Raises DatabaseError for a database that is newer than this program, and for an older one that is being served.
    """
    connection.execute(text(f"SELECT pg_advisory_xact_lock{_OPENING}"))
    found = migrations.revision(connection)
    if found is None:
        _require_unicode(connection)
        migrations.make_tables(connection)
    elif migrations.is_older(found):
        if not keep_others_out(connection):
            raise DatabaseError(
                f"its tables are of revision {found}, and other servers use it: "
                "stop them all, make a copy with pg_dump, and run `job-runtime-local db upgrade`"
            )
        migrations.upgrade_tables(connection, found)
        log.info("upgraded the database from revision %s", found)


def keep_others_out(connection: Connection) -> bool:
    """Let no server begin before the transaction ends; False where one is there already."""
    return bool(connection.scalar(text(f"SELECT pg_try_advisory_xact_lock{_SERVING}")))


def _require_unicode(connection: Connection) -> None:
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise DatabaseError(f"its encoding is {encoding}, which cannot hold every text: create it with ENCODING 'UTF8'")


def read_engine(url: DatabaseURL) -> Engine:
    """An engine that reads a database, whether servers use it or not. Raises DatabaseError."""
    with explained(url):
        it = engine(url, PATIENT_READER)
        with it.connect() as connection:
            migrations.require_current(connection)
    return it


def upgrade(url: DatabaseURL) -> None:
    """Bring a database that no server uses up to date. Raises DatabaseError."""
    with explained(url), engine(url, PATIENT).begin() as connection:
        bring_up_to_date(connection)


def check(connection: Connection) -> list[str]:
    """What is wrong with a database: damage, or what an interrupted hand left. Empty if nothing is."""
    problems: list[str] = []
    for table in metadata.sorted_tables:
        try:
            # Every byte is read, and what is stored outside the row too: damage that checksums notice is found so.
            connection.execute(text(f"SELECT count(md5(each::text)) FROM {table.name} AS each"))  # noqa: S608
        except DBAPIError as error:
            problems.append(f"{table.name}: {one_line(error)}")
            connection.rollback()
    problems += connection.scalars(text(_UNSOUND))
    return problems


def size(connection: Connection) -> int:
    """The bytes of the tables and their indexes."""
    names = ", ".join(f"('{table.name}')" for table in metadata.sorted_tables)
    query = f"SELECT sum(pg_total_relation_size(name::regclass)) FROM (VALUES {names}) AS tables (name)"  # noqa: S608
    return int(connection.scalar(text(query)) or 0)
