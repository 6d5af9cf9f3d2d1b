"""Databases that are already full: many turns, put there without asking for them one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, create_engine, event, insert
from sqlalchemy.schema import CreateTable

from bench.contenders import SMALL
from bench.native import BUILD
from bench.templates import CYCLE, JOB_ARN, chat_body
from emulator.store.schema import trajectories, turns

TURNS_A_TRAJECTORY = 10

#: As long as an answer of the model server.
ANSWER_BYTES = 1600

_BATCH = 1000
#: Ids below these belong to what the emulator put into the empty database.
_FIRST_ID = 1000
_BEGIN = 1_767_225_600_000_000  # 2026-01-01, in microseconds


def filled_copy(turn_count: int, empty: Path) -> Path:
    """A database with so many turns, which is kept for the next run; `empty` is one that the emulator made."""
    tables = "".join(str(CreateTable(table)) for table in (trajectories, turns))
    digest = hashlib.sha256(tables.encode()).hexdigest()[:12]
    path = BUILD / f"filled-{turn_count}-{digest}.db"
    if not path.exists():
        for stale in BUILD.glob(f"filled-{turn_count}-*"):
            stale.unlink()
        partial = path.with_suffix(".partial")
        partial.write_bytes(empty.read_bytes())
        fill(partial, turn_count)
        partial.rename(path)
    return path


def fill(path: Path, turn_count: int) -> None:
    """Add rewarded trajectories of ten turns each to a database that no server has open."""
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def be_quick(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")

    with engine.begin() as connection:
        _insert(connection, trajectories, _trajectories(turn_count // TURNS_A_TRAJECTORY))
        _insert(connection, turns, _turns(turn_count))
    engine.dispose()


def _insert(connection: Connection, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    while batch := list(islice(rows, _BATCH)):
        connection.execute(insert(table), batch)


def row_of(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """What of these values the table has columns for.

    Raises LookupError for a column that wants a value and is not among them.
    """
    for column in table.columns:
        optional = column.nullable or column.default is not None or column.server_default is not None
        if not optional and column.name not in values:
            raise LookupError(f"bench/fill.py does not know what to put into {table.name}.{column.name}")
    return {name: value for name, value in values.items() if name in table.columns}


def _trajectories(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        at = _BEGIN + number * 1_000_000
        values = {
            "id": _FIRST_ID + number,
            "job_arn": JOB_ARN,
            "trajectory_id": f"filled-{number}",
            "status": "reward-received",
            "completion": "ready",
            "rewards": [1.0],
            "created_at": at,
            "completed_at": at + 900_000,
            "rewarded_at": at + 950_000,
            "next_number": TURNS_A_TRAJECTORY,
        }
        yield row_of(trajectories, values)


def _turns(count: int) -> Iterator[dict[str, Any]]:
    request = chat_body(SMALL)
    answer = b'{"id":"chatcmpl-bench","object":"chat.completion","choices":[]}'.ljust(ANSWER_BYTES)
    for number in range(count):
        trajectory, turn = divmod(number, TURNS_A_TRAJECTORY)
        at = _BEGIN + trajectory * 1_000_000 + turn * 80_000
        values = {
            "id": _FIRST_ID + number,
            "trajectory": _FIRST_ID + trajectory,
            "number": turn,
            "status": "completed",
            "path": "/v1/chat/completions",
            "http_status": 200,
            "content_type": "application/json",
            "arrived_at": at,
            "first_byte_at": at + 40_000,
            "ended_at": at + 41_000,
            "request": request.replace(CYCLE.encode(), b"%012d" % number),
            "response": answer,
        }
        yield row_of(turns, values)
