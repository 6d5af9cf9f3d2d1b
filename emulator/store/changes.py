"""Every change of the database, as functions that the writer runs inside its transaction.

A function checks before it writes: when it raises an error of the domain, it has written nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Compiled,
    Connection,
    Text,
    Update,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from emulator.store.prefixes import LastRequests
from emulator.store.schema import client_tokens, jobs, trajectories, turns
from emulator.trajectory import (
    Event,
    Status,
    TokenReused,
    TurnStatus,
    UnknownJob,
    UnknownTrajectory,
    check_rewards,
    transition,
)

#: The job ARN and the id of a trajectory.
Key = tuple[str, str]


@dataclass(slots=True, weakref_slot=True)
class OpenTrajectory:
    """What is kept at hand of a trajectory: enough to let it take a turn without a look into the database."""

    id: int
    key: Key
    status: Status
    next_number: int

    def take_number(self) -> int:
        """The number of the turn that arrives now."""
        number = self.next_number
        self.next_number += 1
        return number


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
_APPEND = insert(turns).from_select(
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


class TrajectoryGone(Exception):
    """Everything was reset while a turn was under way."""


class AppendTurns:
    """Appends turns, their requests without what they share with earlier ones (see `prefixes`)."""

    def __init__(self, last_requests: LastRequests) -> None:
        self._last_requests = last_requests
        self._compiled: Compiled | None = None

    def __call__(self, connection: Connection, appended: Sequence[Turn]) -> int:
        """Append turns; the number of bytes that this took. Raises TrajectoryGone."""
        if self._compiled is None:
            # Handed to the driver as it is: SQLAlchemy's way from parameters to rows costs as much as SQLite's insert.
            self._compiled = _APPEND.compile(dialect=connection.dialect)
            positions = getattr(self._compiled, "positiontup", None)
            self._order = itemgetter(*map(Turn._fields.index, positions)) if positions else None
        size, rows = 0, []
        for turn in appended:
            stored = self._last_requests.shorten(turn.trajectory, turn.number, turn.request)
            size += len(stored.request) + len(turn.response)
            row = turn._replace(base=stored.base, shared=stored.shared, request=stored.request)
            rows.append(self._order(row) if self._order else row._asdict())
        done = connection.exec_driver_sql(
            self._compiled.string, rows, execution_options={"preserve_rowcount": True}
        ).rowcount
        if done != len(rows):
            raise TrajectoryGone("The trajectory is gone: everything was reset while the turn was under way")
        return size

    def forget(self) -> None:
        """What was appended may not have been committed: the next turns share nothing with it."""
        self._last_requests.clear()


_key = (
    trajectories.c.job_arn == bindparam("job_arn"),
    trajectories.c.trajectory_id == bindparam("trajectory_id"),
)

#: Statements are made once: to make one costs more than to run it.
_FIND = select(trajectories.c.id, trajectories.c.status).where(*_key).with_for_update(key_share=True)

_FIND_WITH_NUMBER = select(
    trajectories.c.id,
    trajectories.c.status,
    select(func.coalesce(func.max(turns.c.number) + 1, 0))
    .where(turns.c.trajectory == trajectories.c.id)
    .scalar_subquery(),
).where(*_key)

_CREATE = insert(trajectories).values(status=Status.OPEN.value).returning(trajectories.c.id)

_TAKE_NUMBER = (
    update(trajectories)
    .where(*_key, trajectories.c.status == Status.OPEN.value)
    .values(next_number=trajectories.c.next_number + 1)
    .returning(trajectories.c.id, trajectories.c.next_number - 1)
)

_COUNT_COMPLETED = select(func.count()).where(
    turns.c.trajectory == bindparam("id"), turns.c.status == TurnStatus.COMPLETED.value
)

# The old status stands in the condition: a change that somebody else made in between is never overwritten.
_SEAL = (
    update(trajectories)
    .where(trajectories.c.id == bindparam("key"), trajectories.c.status == bindparam("old"))
    .values(status=bindparam("new"), completion=bindparam("new"), completed_at=bindparam("now"))
)
_REWARD = (
    update(trajectories)
    .where(trajectories.c.id == bindparam("key"), trajectories.c.status == bindparam("old"))
    .values(status=bindparam("new"), rewards=bindparam("given"), rewarded_at=bindparam("now"))
)

_FIND_JOB = select(jobs.c.job_arn).where(jobs.c.job_arn == bindparam("job_arn"))

_FIND_TOKEN = select(client_tokens.c.parameters).where(
    client_tokens.c.operation == bindparam("operation"),
    client_tokens.c.job_arn == bindparam("job_arn"),
    client_tokens.c.token == bindparam("token"),
)
_KEEP_TOKEN = insert(client_tokens)


def open_trajectory(
    connection: Connection, *, job_arn: str, trajectory_id: str, may_create: bool, any_job: bool, now: int
) -> OpenTrajectory:
    """Find a trajectory, or create it if that is allowed.

    Raises UnknownJob, UnknownTrajectory.
    """
    row = connection.execute(_FIND_WITH_NUMBER, {"job_arn": job_arn, "trajectory_id": trajectory_id}).one_or_none()
    if row is not None:
        return OpenTrajectory(row[0], (job_arn, trajectory_id), Status(row[1]), row[2])
    _check_may_create(connection, job_arn, trajectory_id, may_create=may_create, any_job=any_job)
    return _create(connection, job_arn, trajectory_id, now)


def take_number(
    connection: Connection, *, job_arn: str, trajectory_id: str, may_create: bool, any_job: bool, now: int
) -> tuple[OpenTrajectory, int]:
    """Have the database give a turn its number, where other processes take turns too; create the trajectory if allowed.

    A number whose process ends before its turn is stored stays unused.

    Raises UnknownJob, UnknownTrajectory, InvalidTransition.
    """
    key = {"job_arn": job_arn, "trajectory_id": trajectory_id}
    row = connection.execute(_TAKE_NUMBER, key).one_or_none()
    if row is None:
        sealed = connection.execute(_FIND, key).one_or_none()
        if sealed is not None:
            transition(trajectory_id, Status(sealed.status), Event.SAMPLE)  # raises
        _check_may_create(connection, job_arn, trajectory_id, may_create=may_create, any_job=any_job)
        _create(connection, job_arn, trajectory_id, now)
        row = connection.execute(_TAKE_NUMBER, key).one()
    return OpenTrajectory(row[0], (job_arn, trajectory_id), Status.OPEN, row[1] + 1), row[1]


def register_job(connection: Connection, *, job_arn: str, now: int) -> None:
    """Make a job known. Registering it again changes nothing."""
    if connection.scalar(_FIND_JOB, {"job_arn": job_arn}) is None:
        connection.execute(insert(jobs).values(job_arn=job_arn, created_at=now))


def register_trajectory(connection: Connection, *, job_arn: str, trajectory_id: str, any_job: bool, now: int) -> None:
    """Create a trajectory before its first Sample, as a dispatcher does. Again: changes nothing. Raises UnknownJob."""
    open_trajectory(connection, job_arn=job_arn, trajectory_id=trajectory_id, may_create=True, any_job=any_job, now=now)


def complete_rollout(
    connection: Connection,
    *,
    job_arn: str,
    trajectory_id: str,
    completion: Status,
    client_token: str | None,
    any_job: bool,
    now: int,
) -> Status:
    """Seal a trajectory; the state that it is in afterwards.

    Raises UnknownJob, UnknownTrajectory, InvalidTransition, TokenReused.
    """
    row = _require(connection, job_arn, trajectory_id, any_job=any_job)
    used = _TokenUse("CompleteRollout", job_arn, client_token, _digest(trajectory_id, completion))
    if used.was_seen(connection):
        return Status(row.status)
    event = Event.COMPLETE_FAILED if completion is Status.FAILED else Event.COMPLETE_READY
    target = transition(trajectory_id, Status(row.status), event)
    _move(connection, _SEAL, row, {"new": target.value, "now": now})
    used.remember(connection, row.id)
    return target


def update_reward(
    connection: Connection,
    *,
    job_arn: str,
    trajectory_id: str,
    rewards: Sequence[float],
    client_token: str | None,
    any_job: bool,
    now: int,
) -> Status:
    """Give a sealed trajectory its rewards; the state that it is in afterwards.

    Raises UnknownJob, UnknownTrajectory, InvalidTransition, InvalidRewards, TokenReused.
    """
    row = _require(connection, job_arn, trajectory_id, any_job=any_job)
    used = _TokenUse("UpdateReward", job_arn, client_token, _digest(trajectory_id, list(rewards)))
    if used.was_seen(connection):
        return Status(row.status)
    target = transition(trajectory_id, Status(row.status), Event.UPDATE_REWARD)
    check_rewards(rewards, connection.scalar(_COUNT_COMPLETED, {"id": row.id}) or 0)
    _move(connection, _REWARD, row, {"new": target.value, "given": list(rewards), "now": now})
    used.remember(connection, row.id)
    return target


def reset(connection: Connection) -> None:
    """Forget everything."""
    for table in (client_tokens, turns, trajectories, jobs):
        connection.execute(delete(table))


@dataclass(frozen=True, slots=True)
class _TokenUse:
    """One request's client token, with the digest of the parameters that came with it."""

    operation: str
    job_arn: str
    token: str | None
    parameters: str

    def was_seen(self, connection: Connection) -> bool:
        # ASSUMED: with the same parameters a token repeats, with others it conflicts; it is kept with its trajectory.
        if self.token is None:
            return False
        known = connection.scalar(
            _FIND_TOKEN, {"operation": self.operation, "job_arn": self.job_arn, "token": self.token}
        )
        if known is not None and known != self.parameters:
            raise TokenReused(self.token)
        return known is not None

    def remember(self, connection: Connection, trajectory: int) -> None:
        if self.token is not None:
            connection.execute(
                _KEEP_TOKEN,
                {
                    "operation": self.operation,
                    "job_arn": self.job_arn,
                    "token": self.token,
                    "parameters": self.parameters,
                    "trajectory": trajectory,
                },
            )


def _digest(*parameters: object) -> str:
    return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()


def _require(connection: Connection, job_arn: str, trajectory_id: str, *, any_job: bool) -> Any:
    row = connection.execute(_FIND, {"job_arn": job_arn, "trajectory_id": trajectory_id}).one_or_none()
    if row is None:
        if not any_job:
            _require_job(connection, job_arn)
        raise UnknownTrajectory(job_arn, trajectory_id)
    return row


def _require_job(connection: Connection, job_arn: str) -> None:
    if connection.scalar(_FIND_JOB, {"job_arn": job_arn}) is None:
        raise UnknownJob("Could not find job")


def _check_may_create(
    connection: Connection, job_arn: str, trajectory_id: str, *, may_create: bool, any_job: bool
) -> None:
    if not any_job:
        _require_job(connection, job_arn)
    # ASSUMED: a trajectory's first Sample creates it, and any job will do, unless settings say otherwise.
    if not may_create:
        raise UnknownTrajectory(job_arn, trajectory_id)


def _create(connection: Connection, job_arn: str, trajectory_id: str, now: int) -> OpenTrajectory:
    values = {"job_arn": job_arn, "trajectory_id": trajectory_id, "created_at": now}
    id_ = connection.execute(_CREATE, values).scalar_one()
    return OpenTrajectory(id_, (job_arn, trajectory_id), Status.OPEN, 0)


def _move(connection: Connection, statement: Update, row: Any, values: dict[str, Any]) -> None:
    changed = connection.execute(statement, {"key": row.id, "old": row.status, **values})
    assert changed.rowcount == 1, "the row is locked, or the writer is the only one that changes it"
