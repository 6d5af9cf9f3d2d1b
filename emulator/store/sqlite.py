"""The SQLite file: opening it as its only server, bringing it up to date, checking and copying it."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, NullPool, StaticPool, create_engine, event, text
from sqlalchemy.exc import DatabaseError as SQLDatabaseError

from emulator.store.database import DatabaseError, DatabaseInUse
from emulator.store.log_flush import LogFlush
from emulator.store.migrations import is_older, make_tables, require_current, revision, upgrade_tables
from emulator.store.schema import REVISION
from emulator.store.statements import Transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

log = logging.getLogger(__name__)

SYNCHRONOUS = {"full": "FULL", "normal": "NORMAL", "memory": "OFF"}


class SQLite:
    """A SQLite database that this process alone writes to."""

    def __init__(self, path: Path | None, durability: str) -> None:
        """`path` None: in memory, shared by the connections of this process."""
        self.path = path
        self._durability = durability
        # memdb: an in-memory database that several connections of one process share, with ordinary locking.
        self._address = _uri(path) if path else f"file:/{uuid4().hex}?vfs=memdb"
        self._log_flush = LogFlush(path) if path else None
        self._lock: IO[str] | None = None
        self.is_shared = False
        self.backup: Path | None = None
        self.Error: type[Exception] = sqlite3.Error
        self._engine: Engine | None = None
        self.driver: Any = None  # the only connection that writes

    def open(self) -> None:
        """Lock the file, and bring it up to date. Raises DatabaseError."""
        if self.path is not None:
            self._lock = lock(self.path)
        try:
            self._engine = self._write_engine()
            with _explained(self.path), self._engine.connect() as connection:
                revision(connection)  # raises for a file of something else, which then stays as it was
                connection.rollback()
                _execute(connection, "PRAGMA journal_mode = WAL")
                self.backup = bring_up_to_date(connection, self.path)
            self.driver = self._engine.raw_connection().driver_connection
            self._transaction = Transaction(self._engine.dialect, self.driver)
        except BaseException:
            self.close()
            raise

    def run(self, work: Callable[[Transaction], T], deadline: float) -> T:  # noqa: ARG002  # a file is always there
        """Do `work` in a transaction that is committed when this returns. Raises what `work` raises."""
        self.driver.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._transaction)
            self.driver.execute("COMMIT")
        except BaseException:
            if self.driver.in_transaction:  # some errors end it by themselves
                self.driver.execute("ROLLBACK")
            raise
        return result

    def begin(self) -> AbstractContextManager[Connection]:
        """A transaction of SQLAlchemy's own, for what is in no hurry."""
        assert self._engine is not None
        return self._engine.begin()

    def can_checkpoint(self) -> bool:
        """Whether the log is on the disk, which a checkpoint would have to wait for; sees to it meanwhile."""
        return self._log_flush is None or self._log_flush.is_done()

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database, as far as readers allow."""
        self.driver.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        if self._log_flush is not None:
            self._log_flush.forget()

    def readers(self) -> AsyncEngine:
        """An engine of read-only connections. Importing it takes a moment: do so off the event loop."""
        from sqlalchemy.ext.asyncio import create_async_engine

        # Not as a text, whose percent-encoding SQLAlchemy would take for its own.
        file, _, vfs = self._address.partition("?vfs=")
        query = {"uri": "true", "vfs": vfs} if vfs else {"uri": "true"}
        engine = create_async_engine(URL.create("sqlite+aiosqlite", database=file, query=query))

        @event.listens_for(engine.sync_engine, "connect")
        def read_only(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA query_only = ON")

        return engine

    def read_engine(self) -> Engine:
        """An engine of read-only connections for a thread that reads as long as it takes."""

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(self._address, uri=True)
            connection.execute("PRAGMA query_only = ON")
            return connection

        return create_engine("sqlite://", creator=connect, poolclass=NullPool)

    def close(self) -> None:
        """Let another server have the file."""
        if self._log_flush is not None:
            self._log_flush.close()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _write_engine(self) -> Engine:
        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(self._address, uri=True, check_same_thread=False, isolation_level=None)
            try:
                connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._durability]}")
                # Inside a commit it would cost its caller 25-57 ms; the writer does it when it is idle.
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("PRAGMA journal_size_limit = 67108864")
                connection.execute("PRAGMA foreign_keys = ON")
            except sqlite3.Error:  # no database
                connection.close()
                raise
            return connection

        engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
        begin_immediately(engine)
        return engine


def begin_immediately(engine: Engine) -> None:
    """Make transactions take the write lock when they begin.

    Without it, sqlite3's own transactions begin at the first write, after what was read may have changed.
    """

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _execute(connection: Connection, statement: str) -> None:
    """Run what must not be part of a transaction."""
    cursor = connection.connection.cursor()
    cursor.execute(statement)
    cursor.close()


def read_engine(path: Path) -> Engine:
    """An engine that reads a file, whether a server has it open or not. Raises DatabaseError."""
    engine = create_engine("sqlite://", creator=lambda: _connect_to_read(path), poolclass=NullPool)
    with _explained(path), engine.connect() as connection:
        require_current(connection)
    return engine


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Raises DatabaseError."""
    if not path.exists():
        raise DatabaseError(f"{path}: there is no such database; --database names another")
    with _explained(path):
        connection = sqlite3.connect(_uri(path) + "?mode=rw", uri=True)
        try:
            connection.execute("SELECT * FROM sqlite_master").close()
        except sqlite3.Error as error:
            connection.close()
            is_unwritable = isinstance(error, sqlite3.OperationalError)
            if not is_unwritable or path.with_name(path.name + "-wal").exists():
                raise
            # Where SQLite may not write, it cannot make the index of the log; as there is no log, it needs none.
            connection = sqlite3.connect(_uri(path) + "?immutable=1", uri=True)
        connection.execute("PRAGMA query_only = ON")
    return connection


def lock(path: Path) -> IO[str]:
    """Make sure that no other process writes to the file. Raises DatabaseError."""
    real = path.resolve()  # a link to it is the same file
    if real.is_dir():
        raise DatabaseError(f"{path}: is a folder; --database names a file")
    lock_path = real.with_name(real.name + ".lock")
    try:
        file = lock_path.open("a+")
    except OSError as error:
        raise DatabaseError(f"{path}: {error.strerror} ({lock_path}); --database names another file") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise DatabaseInUse(
            f"{path}: another server (process {owner or 'unknown'}) has this file open; "
            "stop it, or name another --database; several servers at once need PostgreSQL, --database postgresql://…"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def bring_up_to_date(connection: Connection, path: Path | None) -> Path | None:
    """Make an empty database's tables, or upgrade an older one's after a backup; the backup, if one was made.

    Raises DatabaseError for a database that is newer than this program.
    """
    found = revision(connection)
    connection.rollback()
    if found is None:
        with connection.begin():
            make_tables(connection)
        return None
    if not is_older(found):
        return None
    copy = None if path is None else backup(path, path.with_name(f"{path.name}.backup-{found}-{_timestamp()}"))
    upgrade_tables(connection, found)
    log.info("upgraded %s from revision %s to %s; the copy of before is %s", path, found, REVISION, copy)
    return copy


def upgrade(path: Path) -> Path | None:
    """Bring a file that no server has open up to date; the copy of before, if one was made. Raises DatabaseError."""
    if not path.exists():
        raise DatabaseError(f"{path}: there is no such database; --database names another")
    database = SQLite(path, "full")
    database.open()
    database.close()
    return database.backup


def backup(path: Path, target: Path) -> Path:
    """Copy a database, whether a server has it open or not; the copy is whole. Raises DatabaseError."""
    partial = target.with_name(target.name + ".partial")
    with closing(_connect_to_read(path)) as source:
        if target.exists():
            raise DatabaseError(f"{target}: exists already; name another file")
        try:
            partial.write_bytes(b"")
        except OSError as error:
            raise DatabaseError(f"{target}: {error.strerror}; name another file") from None
        try:
            with _explained(path), closing(sqlite3.connect(partial)) as copy:
                source.backup(copy)
            partial.rename(target)
        except OSError as error:
            raise DatabaseError(f"{target}: {error.strerror}; name another file") from None
        finally:
            partial.unlink(missing_ok=True)
    return target


def check(connection: Connection) -> list[str]:
    """What is wrong with a database: damage, or states that must not be. Empty if nothing is."""
    problems = [row[0] for row in connection.execute(text("PRAGMA integrity_check")) if row[0] != "ok"]
    return problems + [
        f"{row[0]}: row {row[1]} refers to nothing" for row in connection.execute(text("PRAGMA foreign_key_check"))
    ]


@contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    """Turn what SQLite says of an unusable file into one line."""
    try:
        yield
    except (SQLDatabaseError, sqlite3.Error, OSError) as error:
        cause = getattr(error, "orig", None) or error
        raise DatabaseError(f"{path}: {cause}; --database names another file") from error
    except DatabaseError as error:
        if path is None or str(error).startswith(str(path)):
            raise
        raise DatabaseError(f"{path}: {error}") from None


def _uri(path: Path) -> str:
    return "file:" + quote(str(path.absolute()))


def _timestamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
