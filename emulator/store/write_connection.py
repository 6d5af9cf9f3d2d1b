"""The connection that writes to PostgreSQL: it may be lost at any moment, and what is written is written once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from sqlalchemy import Dialect

from emulator.address import DatabaseURL
from emulator.store.database import DatabaseError, DatabaseUnavailable, OutcomeUnknown, one_line
from emulator.store.libpq import WRITER, connect, driver, parameters, passes, set_all
from emulator.store.schema import now
from emulator.store.silence import SilenceLimit
from emulator.store.statements import Transaction

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds between two attempts: the first pause, and the longest.
_PAUSES = (0.02, 0.5)

#: Seconds that an attempt gets, however late it begins.
GRACE = 5.0

# A transaction leaves a mark of its own, for when the answer to its commit is lost. Its number, as the server counts
# transactions, would not do: after a crash, or on a standby, the numbers of those that came to nothing are used again.
# To insert another one waits for a transaction that is still under way.
_MARK = "INSERT INTO writers VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET last_commit = excluded.last_commit"
_LAST_COMMIT = (
    "INSERT INTO writers VALUES (%s, 0)"
    " ON CONFLICT (id) DO UPDATE SET last_commit = writers.last_commit RETURNING last_commit"
)
_FORGET_WRITERS = "DELETE FROM writers WHERE last_commit < %s"

#: Microseconds after which a writer will not ask any more.
_FORGOTTEN_AFTER = 7 * 24 * 3600 * 1_000_000


class WriteConnection:
    """A connection that is there again when it was lost."""

    def __init__(
        self, url: DatabaseURL, dialect: Dialect, prepare: Callable[[psycopg.Connection[Any]], object]
    ) -> None:
        """Nothing is connected yet. `prepare` is done to each connection first, and may raise DatabaseError."""
        self._url = url
        self._dialect = dialect
        self._prepare = prepare
        self._error: type[Exception] = driver().Error
        self._connection: psycopg.Connection[Any] | None = None
        self._silence = SilenceLimit()
        self._id = uuid4().hex  # among the writers
        self._last_commit = 0

    def open(self) -> None:
        """Connect. Raises DatabaseError."""
        try:
            self._connection = self._connect()
            self._connection.execute(_FORGET_WRITERS, [now() - _FORGOTTEN_AFTER])
            self._connection.commit()
        except self._error as error:
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
            except (DatabaseError, self._error) as error:
                passes = self._passes(error)
                if unsure is None and isinstance(error, DatabaseError):  # another version's tables by now
                    raise DatabaseUnavailable(f"{self._url}: {error}") from error
                if unsure is None and not passes:
                    raise
                reason = "it did not answer in time" if self._silence.was_cut else one_line(error)
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
            return connection.execute(_LAST_COMMIT, [self._id]).fetchone() == (number,)
        finally:
            self._roll_back(connection)

    def _roll_back(self, connection: psycopg.Connection[Any]) -> None:
        try:
            connection.rollback()
        except self._error:
            self._disconnect()

    def _passes(self, error: Exception) -> bool:
        """Whether the next attempt may succeed; a connection that is no longer of use is closed."""
        state: str | None = getattr(error, "sqlstate", None)
        if self._connection is not None and (self._connection.broken or state in {"25006", "57P01", "57P02", "57P05"}):
            self._disconnect()
        return passes(error)

    def _connect(self) -> psycopg.Connection[Any]:
        def prepare(connection: psycopg.Connection[Any]) -> None:
            self._silence.watch(connection.fileno())
            connection.execute(set_all(WRITER))
            self._prepare(connection)

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

    def close(self) -> None:
        """Let it go."""
        self._disconnect()
        self._silence.close()


@dataclass(frozen=True, slots=True)
class _Unsure(Generic[T]):
    """What was done in a transaction, and its mark, as long as nobody has said that it was committed."""

    result: T
    number: int
