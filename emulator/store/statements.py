"""Statements that SQLAlchemy spells, and the driver runs.

SQLAlchemy's own way from parameters to the driver and back takes 30 to 60 µs a statement, which is more than SQLite
needs to append a turn (29 µs; with SQLAlchemy's way 102: 2 cores AMD EPYC, Python 3.11, 2026-11-21).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import ClauseElement, Dialect

#: The ending of an insert. Where another server is faster, PostgreSQL waits for it, and then its row is there.
UNLESS_THERE = "ON CONFLICT DO NOTHING"

#: Advisory locks are a pair of numbers: ours ("JRL"), and which of ours in which schema.
LOCK = 0x4A524C

_ALONE = f"SELECT pg_advisory_xact_lock({LOCK}, hashtext('alone ' || current_schema()))".encode()


class Statement:
    """A statement of SQLAlchemy Core; it is compiled when a dialect first asks for it."""

    def __init__(self, clause: ClauseElement, ending: str = "") -> None:
        """`ending`: SQL that Core has no common way to say."""
        self._clause = clause
        self._ending = ending
        self._spelled: dict[str, Spelled] = {}

    def spelled(self, dialect: Dialect) -> Spelled:
        """The statement as the dialect has it."""
        found = self._spelled.get(dialect.name)
        if found is None:
            compiled: Any = self._clause.compile(dialect=dialect)
            positions = compiled.positiontup if compiled.positional else None
            sql = f"{compiled.string} {self._ending}"
            found = self._spelled[dialect.name] = Spelled(sql, compiled.params, positions)
        return found


class Spelled:
    """A statement in a dialect's SQL, and how the driver wants its parameters."""

    def __init__(self, sql: str, defaults: Mapping[str, Any], positions: list[str] | None) -> None:
        self.sql = sql
        self._defaults = dict(defaults)
        self._positions = positions

    def parameters(self, given: Mapping[str, Any]) -> Any:
        """The parameters by name or, for drivers that count them, by position."""
        every = {**self._defaults, **given}
        return every if self._positions is None else [every[name] for name in self._positions]

    def rows(self, names: Sequence[str], given: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """Many rows of parameters, as the driver wants them; all parameters are given."""
        if self._positions is None:
            return [dict(zip(names, row, strict=True)) for row in given]
        ordered = itemgetter(*(names.index(name) for name in self._positions))
        return [ordered(row) for row in given]


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction under way on a connection of the driver's."""

    dialect: Dialect
    driver: Any  #: a DB-API connection

    def run(self, statement: Statement, **parameters: Any) -> int:
        """Run a statement; how many rows it touched."""
        return int(self._run(statement, parameters).rowcount)

    def rows(self, statement: Statement, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement that returns rows; all of them."""
        rows: list[tuple[Any, ...]] = self._run(statement, parameters).fetchall()
        return rows

    def row(self, statement: Statement, **parameters: Any) -> tuple[Any, ...] | None:
        """Run a statement that returns at most one row."""
        rows = self.rows(statement, **parameters)
        return rows[0] if rows else None

    def run_many(self, statement: Statement, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> int:
        """Run a statement once for each row of parameters, whose names are given once; how many rows that touched."""
        spelled = statement.spelled(self.dialect)
        cursor = self.driver.cursor()
        cursor.executemany(spelled.sql, spelled.rows(names, rows))
        return int(cursor.rowcount)

    def alone(self) -> None:
        """Until the transaction ends, no other one goes on from here: who looks at many rows sees what they all wrote.

        A file has one writer anyway.
        """
        if self.dialect.name == "postgresql":
            self.driver.cursor().execute(_ALONE)

    def _run(self, statement: Statement, parameters: Mapping[str, Any]) -> Any:
        spelled = statement.spelled(self.dialect)
        cursor = self.driver.cursor()
        cursor.execute(spelled.sql, spelled.parameters(parameters))
        return cursor
