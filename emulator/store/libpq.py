"""Connections to PostgreSQL: what libpq and the session are told, and one line for what goes wrong with either."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.exc import DBAPIError

from emulator.address import DatabaseURL
from emulator.store.database import DatabaseError, one_line

if TYPE_CHECKING:
    import psycopg

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

WRITER = _SESSION | {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
}

READER = _SESSION | {
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}

#: What takes as long as it takes: an upgrade, an export, a check, a copy.
PATIENT = _SESSION | {"statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"}

PATIENT_READER = PATIENT | {"default_transaction_read_only": "on"}

#: What goes away by itself: by SQLSTATE, or its class. Connections, a server that stops or starts, a standby's role,
#: locks that were not to be had, a statement that took too long or was cancelled.
_PASSING = ("08", "40001", "40P01", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "25006", "25P03")


def connect(given: Mapping[str, Any], prepare: Callable[[psycopg.Connection[Any]], object]) -> psycopg.Connection[Any]:
    """A connection, once `prepare` has done to it what has to be done outside transactions."""
    connection: psycopg.Connection[Any] = driver().connect(**given, autocommit=True)
    try:
        prepare(connection)
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def engine(url: DatabaseURL, session: Mapping[str, str]) -> Engine:
    """An engine that connects anew each time, with settings of the session. Raises DatabaseError for a bad URL."""
    creator = partial(connect, parameters(url), lambda connection: connection.execute(set_all(session)))
    return create_engine("postgresql+psycopg://", creator=creator, poolclass=NullPool, use_native_hstore=False)


def driver() -> Any:
    """psycopg. Raises DatabaseError where it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise DatabaseError(
            f"PostgreSQL needs psycopg ({one_line(error)}): pip install 'job-runtime-local[postgresql]'"
        ) from None
    return psycopg


def passes(error: Exception) -> bool:
    """Whether what went wrong goes away by itself."""
    state: str | None = getattr(error, "sqlstate", None)
    # Without a state it is the client's side that noticed: no connection, or none any more.
    return state.startswith(_PASSING) if state else isinstance(error, driver().OperationalError)


def parameters(url: DatabaseURL) -> dict[str, Any]:
    """What libpq is told. Raises DatabaseError for a URL that it does not understand."""
    psycopg = driver()
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


def set_all(session: Mapping[str, str]) -> bytes:
    """SQL that gives a session its settings."""
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
