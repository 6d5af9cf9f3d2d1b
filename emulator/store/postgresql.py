"""A PostgreSQL database: its connections, bringing it up to date beside other servers, checking it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from emulator.address import DatabaseURL
from emulator.store import migrations
from emulator.store.database import DatabaseError, one_line
from emulator.store.schema import metadata

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

log = logging.getLogger(__name__)

#: libpq's parameters, where neither the URL nor the environment has them. A peer that is gone without a word (a failed
#: machine, a cut network) is noticed in half a minute, and of several hosts the one that takes writes is chosen.
_DEFAULTS = {
    "connect_timeout": "5",
    "target_session_attrs": "read-write",
    "fallback_application_name": "job-runtime-local",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}

_VARIABLES = {"connect_timeout": "PGCONNECT_TIMEOUT", "target_session_attrs": "PGTARGETSESSIONATTRS"}

#: The server's half of the same: it gives up, and frees the locks of, a client that it hears nothing from.
_SESSION = {
    "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

_WRITER = _SESSION | {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
}

_READER = _SESSION | {
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}

#: What takes as long as it takes: an upgrade, an export, a check, a copy.
PATIENT = _SESSION | {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}

PATIENT_READER = PATIENT | {"default_transaction_read_only": "on"}

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


class PostgreSQL:
    """A PostgreSQL database, which other servers may write to at the same time."""

    def __init__(self, url: DatabaseURL) -> None:
        """Nothing is connected yet."""
        self._url = url
        self.is_shared = True
        self.backup: Path | None = None  # an upgrade is one transaction; copies are pg_dump's
        self.checkpoint: Callable[[Connection], None] | None = None

    def open(self) -> Engine:
        """Bring it up to date; an engine that makes a new connection each time, to write.

        `connect` of the engine raises DatabaseError where another server has upgraded the database meanwhile.
        Raises DatabaseError.
        """
        with explained(self._url):
            with engine(self._url, PATIENT).begin() as connection:
                bring_up_to_date(connection)
            writers = engine(self._url, _WRITER, _begin_serving)
            writers.connect().close()
        return writers

    def readers(self) -> AsyncEngine:
        """An engine of read-only connections. Importing it takes a moment: do so off the event loop."""
        from sqlalchemy.ext.asyncio import create_async_engine

        async def connect() -> psycopg.AsyncConnection[Any]:
            connection: psycopg.AsyncConnection[Any] = await _driver().AsyncConnection.connect(
                **_parameters(self._url), autocommit=True
            )
            try:
                await connection.execute(_set(_READER))
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
        """Nothing is held beyond the engines' connections."""


def engine(
    url: DatabaseURL, session: Mapping[str, str], prepare: Callable[[psycopg.Connection[Any]], None] | None = None
) -> Engine:
    """An engine that connects anew each time, with settings of the session. Raises DatabaseError for a bad URL."""
    parameters = _parameters(url)

    def connect() -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = _driver().connect(**parameters, autocommit=True)
        try:
            connection.execute(_set(session))
            if prepare is not None:
                prepare(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    return create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool, use_native_hstore=False)


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


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise DatabaseError(
            f"PostgreSQL needs psycopg ({one_line(error)}): pip install 'job-runtime-local[postgresql]'"
        ) from None
    return psycopg


def _parameters(url: DatabaseURL) -> dict[str, Any]:
    """What libpq is told. Raises DatabaseError for a URL that it does not understand."""
    psycopg = _driver()
    try:
        given = psycopg.conninfo.conninfo_to_dict(url.conninfo)
    except psycopg.ProgrammingError as error:
        # What libpq quotes may be a piece of a password; of a parameter it quotes the name.
        why = f": {one_line(error)}" if "invalid URI query parameter" in str(error) else ""
        raise DatabaseError(
            f"{url}: is not postgresql://USER:PASSWORD@HOST:PORT/NAME{why}; percent-encode what is special in its parts"
        ) from None
    defaults = {name: value for name, value in _DEFAULTS.items() if _VARIABLES.get(name, name) not in os.environ}
    return {**defaults, **given}


def _set(session: Mapping[str, str]) -> bytes:
    return "; ".join(f"SET {name} = '{value}'" for name, value in session.items()).encode()


@contextmanager
def explained(url: DatabaseURL) -> Iterator[None]:
    """Turn what PostgreSQL says, or the lack of it, into one line."""
    try:
        yield
    except DBAPIError as error:
        reason = one_line(error)
        raise DatabaseError(f"{url}: {reason}; {_advice(reason)}") from error
    except DatabaseError as error:
        if str(error).startswith(str(url)):
            raise
        raise DatabaseError(f"{url}: {error}") from None


def _advice(reason: str) -> str:
    if "password" in reason or "authentication" in reason:
        return "the URL, PGPASSWORD or ~/.pgpass hold user and password"
    if "database" in reason and "does not exist" in reason:
        return "create it (`createdb`), or name another --database"
    return "is the server up, and --database right?"
