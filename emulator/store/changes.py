"""Every change of the database, as functions that the writer runs inside its transaction.

A function checks before it writes: when it raises an error of the domain, it has written nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Text,
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
from emulator.store.statements import Statement, Transaction
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


#: A client token of more characters is kept as its digest.
LONGEST_TOKEN = 256


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


_key = (
    trajectories.c.job_arn == bindparam("job_arn"),
    trajectories.c.trajectory_id == bindparam("trajectory_id"),
)

_FIND = Statement(select(trajectories.c.id, trajectories.c.status).where(*_key).with_for_update(key_share=True))

_FIND_WITH_NUMBER = Statement(
    select(
        trajectories.c.id,
        trajectories.c.status,
        select(func.coalesce(func.max(turns.c.number) + 1, 0))
        .where(turns.c.trajectory == trajectories.c.id)
        .scalar_subquery(),
    ).where(*_key)
)

_CREATE = Statement(
    insert(trajectories)
    .values(
        job_arn=bindparam("job_arn"),
        trajectory_id=bindparam("trajectory_id"),
        status=Status.OPEN.value,
        created_at=bindparam("now"),
    )
    .returning(trajectories.c.id)
)

_TAKE_NUMBER = Statement(
    update(trajectories)
    .where(*_key, trajectories.c.status == Status.OPEN.value)
    .values(next_number=trajectories.c.next_number + 1)
    .returning(trajectories.c.id, trajectories.c.next_number - 1)
)

_COUNT_COMPLETED = Statement(
    select(func.count()).where(
        turns.c.trajectory == bindparam("trajectory"), turns.c.status == TurnStatus.COMPLETED.value
    )
)

# The old status stands in the condition: a change that somebody else made in between is never overwritten.
_move = update(trajectories).where(trajectories.c.id == bindparam("id_"), trajectories.c.status == bindparam("old"))

_SEAL = Statement(_move.values(status=bindparam("new"), completion=bindparam("new"), completed_at=bindparam("now")))

_REWARD = Statement(
    _move.values(
        status=bindparam("new"),
        rewards=bindparam("given", type_=trajectories.c.rewards.type),
        rewarded_at=bindparam("now"),
    )
)

_FIND_JOB = Statement(select(jobs.c.job_arn).where(jobs.c.job_arn == bindparam("job_arn")))

_REGISTER_JOB = Statement(insert(jobs).values(job_arn=bindparam("job_arn"), created_at=bindparam("now")))

_FIND_TOKEN = Statement(
    select(client_tokens.c.parameters).where(
        client_tokens.c.operation == bindparam("operation"),
        client_tokens.c.job_arn == bindparam("job_arn"),
        client_tokens.c.token == bindparam("token"),
    )
)

_KEEP_TOKEN = Statement(insert(client_tokens))

_RESET = [Statement(delete(table)) for table in (client_tokens, turns, trajectories, jobs)]


def open_trajectory(
    transaction: Transaction, *, job_arn: str, trajectory_id: str, may_create: bool, any_job: bool, now: int
) -> OpenTrajectory:
    """Find a trajectory, or create it if that is allowed.

    Raises UnknownJob, UnknownTrajectory.
    """
    row = transaction.row(_FIND_WITH_NUMBER, job_arn=job_arn, trajectory_id=trajectory_id)
    if row is not None:
        return OpenTrajectory(row[0], (job_arn, trajectory_id), Status(row[1]), row[2])
    _check_may_create(transaction, job_arn, trajectory_id, may_create=may_create, any_job=any_job)
    return _create(transaction, job_arn, trajectory_id, now)


def take_number(
    transaction: Transaction, *, job_arn: str, trajectory_id: str, may_create: bool, any_job: bool, now: int
) -> tuple[OpenTrajectory, int]:
    """Have the database give a turn its number, where other processes take turns too; create the trajectory if allowed.

    A number whose process ends before its turn is stored stays unused.

    Raises UnknownJob, UnknownTrajectory, InvalidTransition.
    """
    key = {"job_arn": job_arn, "trajectory_id": trajectory_id}
    row = transaction.row(_TAKE_NUMBER, **key)
    if row is None:
        sealed = transaction.row(_FIND, **key)
        if sealed is not None:
            transition(trajectory_id, Status(sealed[1]), Event.SAMPLE)  # raises
        _check_may_create(transaction, job_arn, trajectory_id, may_create=may_create, any_job=any_job)
        _create(transaction, job_arn, trajectory_id, now)
        (row,) = transaction.rows(_TAKE_NUMBER, **key)
    return OpenTrajectory(row[0], (job_arn, trajectory_id), Status.OPEN, row[1] + 1), row[1]


def register_job(transaction: Transaction, *, job_arn: str, now: int) -> None:
    """Make a job known. Registering it again changes nothing."""
    if transaction.row(_FIND_JOB, job_arn=job_arn) is None:
        transaction.run(_REGISTER_JOB, job_arn=job_arn, now=now)


def register_trajectory(transaction: Transaction, *, job_arn: str, trajectory_id: str, any_job: bool, now: int) -> None:
    """Create a trajectory before its first Sample, as a dispatcher does. Again: changes nothing. Raises UnknownJob."""
    open_trajectory(
        transaction, job_arn=job_arn, trajectory_id=trajectory_id, may_create=True, any_job=any_job, now=now
    )


def complete_rollout(
    transaction: Transaction,
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
    id_, status = _require(transaction, job_arn, trajectory_id, any_job=any_job)
    used = _TokenUse("CompleteRollout", job_arn, _token(client_token), _digest(trajectory_id, completion))
    if used.was_seen(transaction):
        return status
    event = Event.COMPLETE_FAILED if completion is Status.FAILED else Event.COMPLETE_READY
    target = transition(trajectory_id, status, event)
    _move_to(transaction, _SEAL, id_, status, new=target.value, now=now)
    used.remember(transaction, id_)
    return target


def update_reward(
    transaction: Transaction,
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
    id_, status = _require(transaction, job_arn, trajectory_id, any_job=any_job)
    used = _TokenUse("UpdateReward", job_arn, _token(client_token), _digest(trajectory_id, list(rewards)))
    if used.was_seen(transaction):
        return status
    target = transition(trajectory_id, status, Event.UPDATE_REWARD)
    ((completed,),) = transaction.rows(_COUNT_COMPLETED, trajectory=id_)
    check_rewards(rewards, completed)
    _move_to(transaction, _REWARD, id_, status, new=target.value, given=json.dumps(list(rewards)), now=now)
    used.remember(transaction, id_)
    return target


def reset(transaction: Transaction) -> None:
    """Forget everything."""
    for statement in _RESET:
        transaction.run(statement)


@dataclass(frozen=True, slots=True)
class _TokenUse:
    """One request's client token, with the digest of the parameters that came with it."""

    operation: str
    job_arn: str
    token: str | None
    parameters: str

    def was_seen(self, transaction: Transaction) -> bool:
        # ASSUMED: with the same parameters a token repeats, with others it conflicts; it is kept with its trajectory.
        if self.token is None:
            return False
        known = transaction.row(_FIND_TOKEN, operation=self.operation, job_arn=self.job_arn, token=self.token)
        if known is not None and known[0] != self.parameters:
            raise TokenReused(self.token)
        return known is not None

    def remember(self, transaction: Transaction, trajectory: int) -> None:
        if self.token is not None:
            transaction.run(
                _KEEP_TOKEN,
                operation=self.operation,
                job_arn=self.job_arn,
                token=self.token,
                parameters=self.parameters,
                trajectory=trajectory,
            )


def _token(token: str | None) -> str | None:
    """A client token as it is kept: a long one, which would not fit into PostgreSQL's index, by its digest."""
    return token if token is None or len(token) <= LONGEST_TOKEN else f"sha256:{_digest(token)}"


def _digest(*parameters: object) -> str:
    return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()


def _require(transaction: Transaction, job_arn: str, trajectory_id: str, *, any_job: bool) -> tuple[int, Status]:
    row = transaction.row(_FIND, job_arn=job_arn, trajectory_id=trajectory_id)
    if row is None:
        if not any_job:
            _require_job(transaction, job_arn)
        raise UnknownTrajectory(job_arn, trajectory_id)
    return row[0], Status(row[1])


def _require_job(transaction: Transaction, job_arn: str) -> None:
    if transaction.row(_FIND_JOB, job_arn=job_arn) is None:
        raise UnknownJob("Could not find job")


def _check_may_create(
    transaction: Transaction, job_arn: str, trajectory_id: str, *, may_create: bool, any_job: bool
) -> None:
    if not any_job:
        _require_job(transaction, job_arn)
    # ASSUMED: a trajectory's first Sample creates it, and any job will do, unless settings say otherwise.
    if not may_create:
        raise UnknownTrajectory(job_arn, trajectory_id)


def _create(transaction: Transaction, job_arn: str, trajectory_id: str, now: int) -> OpenTrajectory:
    ((id_,),) = transaction.rows(_CREATE, job_arn=job_arn, trajectory_id=trajectory_id, now=now)
    return OpenTrajectory(id_, (job_arn, trajectory_id), Status.OPEN, 0)


def _move_to(transaction: Transaction, statement: Statement, id_: int, old: Status, **values: Any) -> None:
    changed = transaction.run(statement, id_=id_, old=old.value, **values)
    assert changed == 1, "the row is locked, or the writer is the only one that changes it"
