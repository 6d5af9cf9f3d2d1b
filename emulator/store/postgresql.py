"""A PostgreSQL database: its connections, bringing it up to date beside other servers, checking it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from emulator.address import DatabaseURL
from emulator.store import migrations
from emulator.store.database import DatabaseError, DatabaseUnavailable, OutcomeUnknown, one_line
from emulator.store.libpq import (
    PATIENT,
    PATIENT_READER,
    READER,
    WRITER,
    connect,
    driver,
    engine,
    explained,
    parameters,
    set_all,
)
from emulator.store.schema import metadata, now
from emulator.store.silence import SilenceLimit
from emulator.store.statements import Transaction

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Advisory locks are a pair of numbers: ours, and which of ours in which schema.
_LOCK = 0x4A524C  # "JRL"
_OPENING = f"({_LOCK}, hashtext('opening ' || current_schema()))"
_SERVING = f"({_LOCK}, hashtext('serving ' || current_schema()))"

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

#: What goes away by itself: by SQLSTATE, or its class. Connections, a server that stops or starts, a standby's role,
#: locks that were not to be had, a statement that took too long or was cancelled.
_PASSING = ("08", "40001", "40P01", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "25006", "25P03")

#: Seconds between two attempts: the first pause, and the longest.
_PAUSES = (0.02, 0.5)

#: Seconds that an attempt gets, however late it begins.
GRACE = 5.0

# A transaction leaves a mark of its own, for when the answer to its commit is lost. Its number, as the server counts
# transactions, would not do: after a crash, or on a standby, the numbers of those that came to nothing are used again.
# The mark is locked as long as its transaction is under way.
_MARK = "INSERT INTO writers VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET last_commit = excluded.last_commit"
_LAST_COMMIT = "SELECT last_commit FROM writers WHERE id = %s FOR UPDATE"
_FORGET_WRITERS = "DELETE FROM writers WHERE last_commit < %s"

#: Microseconds after which a writer will not ask any more.
_FORGOTTEN_AFTER = 7 * 24 * 3600 * 1_000_000


class PostgreSQL:
    """A PostgreSQL database, which other servers may write to at the same time."""

    def __init__(self, url: DatabaseURL) -> None:
        """Nothing is connected yet."""
        self._url = url
        self.is_shared = True
        self.backup: Path | None = None  # an upgrade is one transaction; copies are pg_dump's
        self._connection: psycopg.Connection[Any] | None = None
        self._silence = SilenceLimit()
        self._id = uuid4().hex  # among the writers
        self._last_commit = now()

    def open(self) -> None:
        """Bring it up to date, and connect. Raises DatabaseError."""
        with explained(self._url):
            with engine(self._url, PATIENT).begin() as connection:
                bring_up_to_date(connection)
                self._dialect = connection.dialect
            self.Error: type[Exception] = driver().Error
            try:
                self._connection = self._connect()
                self._connection.execute(_FORGET_WRITERS, [now() - _FORGOTTEN_AFTER])
                self._connection.execute(_MARK, [self._id, self._last_commit])
                self._connection.commit()
            except self.Error as error:
                raise DatabaseError(one_line(error)) from error

    def run(self, work: Callable[[Transaction], T], deadline: float) -> T:
        """Do `work` in a transaction that is committed when this returns.

        Where the connection is lost, or the database refuses for a reason that passes, `work` is done again until
        `deadline`, in seconds of `time.monotonic`; never after a commit that took place although its answer was lost.
        Raises OutcomeUnknown; DatabaseUnavailable, and whatever `work` raises, having changed nothing.
        """
        pause, longest = _PAUSES
        waiting = False
        unsure: _Unsure[T] | None = None
        while True:
            self._silence.deadline = max(deadline, time.monotonic() + GRACE)
            try:
                connection = self._connection = self._connection or self._connect()
                if waiting:
                    log.warning("%s: is back", self._url)
                    waiting = False
                if unsure is None:
                    unsure = self._attempt(connection, work)
                    connection.commit()
                    return unsure.result
                if self._took_place(connection, unsure.number):
                    return unsure.result
                unsure = None
            except (DatabaseError, self.Error) as error:
                passes = self._passes(error)
                if unsure is None and isinstance(error, DatabaseError):  # another version's tables by now
                    raise DatabaseUnavailable(f"{self._url}: {error}") from error
                if unsure is None and not passes:
                    raise
                reason = one_line(error)
                if time.monotonic() >= deadline:
                    lost = DatabaseUnavailable if unsure is None else OutcomeUnknown
                    raise lost(f"The database could not be reached: {reason}") from error
                if self._connection is None and not waiting:
                    waiting = True
                    log.warning("%s: %s; trying again", self._url, reason)
                time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                pause = min(2 * pause, longest)
            finally:
                self._silence.deadline = math.inf

    def _attempt(self, connection: psycopg.Connection[Any], work: Callable[[Transaction], T]) -> _Unsure[T]:
        """Do `work`, all but the commit, and leave a mark of it."""
        try:
            result = work(Transaction(self._dialect, connection))
            self._last_commit = max(now(), self._last_commit + 1)
            connection.execute(_MARK, [self._id, self._last_commit])
        except BaseException:
            self._roll_back(connection)
            raise
        return _Unsure(result, self._last_commit)

    def _took_place(self, connection: psycopg.Connection[Any], number: int) -> bool:
        """Whether a transaction was committed; waits for one that is still under way."""
        try:
            row = connection.execute(_LAST_COMMIT, [self._id]).fetchone()
        finally:
            self._roll_back(connection)
        return row is not None and row[0] == number

    def _roll_back(self, connection: psycopg.Connection[Any]) -> None:
        try:
            connection.rollback()
        except self.Error:
            self._disconnect()

    def _passes(self, error: Exception) -> bool:
        """Whether the next attempt may succeed; a connection that is no longer of use is closed."""
        state: str | None = getattr(error, "sqlstate", None)
        if self._connection is not None and (self._connection.broken or state in {"25006", "57P01", "57P02", "57P05"}):
            self._disconnect()
        # Without a state it is the client's side that noticed: no connection, or none any more.
        return state.startswith(_PASSING) if state else isinstance(error, driver().OperationalError)

    def _connect(self) -> psycopg.Connection[Any]:
        def prepare(connection: psycopg.Connection[Any]) -> None:
            self._silence.watch(connection.fileno())
            connection.execute(set_all(WRITER))
            _begin_serving(connection)

        try:
            return connect(parameters(self._url), prepare)
        except BaseException:
            self._silence.forget()
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._silence.forget()
        if connection is not None:
            connection.close()

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

    def close(self) -> None:
        """Let go of the connection."""
        self._disconnect()
        self._silence.close()


@dataclass(frozen=True, slots=True)
class _Unsure(Generic[T]):
    """What was done in a transaction, and its mark, as long as nobody has said that it was committed."""

    result: T
    number: int


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
