"""A turn on its way into the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, ColumnElement, Text, bindparam, case, insert, literal_column, select

from emulator.store.prefixes import LastRequests
from emulator.store.schema import trajectories, turns
from emulator.store.statements import Statement, Transaction
from emulator.trajectory import Status, TurnStatus


class Turn(NamedTuple):
    """A turn to append, with the names of its columns. Times are microseconds since 1970, UTC."""

    trajectory: int
    number: int
    status: str
    path: str
    http_status: int | None
    content_type: str | None
    error: str | None
    arrived_at: int
    first_byte_at: int | None
    ended_at: int
    request: bytes
    response: bytes
    base: int | None = None  #: set with `shared` when `request` is shortened, on its way to the database
    shared: int = 0


def _parameter(column: str) -> BindParameter[Any]:
    return bindparam(column, type_=turns.c[column].type)


def _text(status: Status | TurnStatus) -> ColumnElement[str]:
    return literal_column(f"'{status.value}'", Text)


# ASSUMED: a turn whose answer ends after the seal goes to its client, but does not count.
#: The write itself looks at the trajectory's status.
_APPEND = Statement(
    insert(turns).from_select(
        Turn._fields,
        select(
            *(
                case(
                    (trajectories.c.status == _text(Status.OPEN), _parameter("status")),
                    (_parameter("status") == _text(TurnStatus.COMPLETED), _text(TurnStatus.DISCARDED)),
                    else_=_parameter("status"),
                )
                if name == "status"
                else _parameter(name)
                for name in Turn._fields
            )
        )
        .where(trajectories.c.id == _parameter("trajectory"))
        .with_for_update(key_share=True),  # SQLite has one writer, and ignores it
    )
)


class TrajectoryGone(Exception):
    """Everything was reset while a turn was under way."""


def append_turns(transaction: Transaction, last_requests: LastRequests, appended: Sequence[Turn]) -> int:
    """Append turns, their requests without what they share with the last ones; how many bytes that took.

    Raises TrajectoryGone.
    """
    size, rows = 0, []
    for turn in appended:
        stored = last_requests.shorten(turn.trajectory, turn.number, turn.request)
        size += len(stored.request) + len(turn.response)
        rows.append(turn._replace(base=stored.base, shared=stored.shared, request=stored.request))
    if transaction.run_many(_APPEND, Turn._fields, rows) != len(rows):
        raise TrajectoryGone("The trajectory is gone: everything was reset while the turn was under way")
    return size
