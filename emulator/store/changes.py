"""Every change of the database, as functions that the writer runs inside its transaction.

A function checks before it writes: when it raises an error of the domain, it has written nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, insert, literal, select, update
from sqlalchemy.sql.elements import BindParameter

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


@dataclass(slots=True, weakref_slot=True)
class OpenTrajectory:
    """What is kept at hand of a trajectory: enough to let it take a turn without a look into the database."""

    id: int
    status: Status
    next_number: int

    def take_number(self) -> int:
        """The number of the turn that arrives now."""
        number = self.next_number
        self.next_number += 1
        return number


def _parameter(column: str) -> BindParameter[Any]:
    return bindparam(f"turn_{column}", type_=turns.c[column].type)


_TURN_COLUMNS = [column.name for column in turns.c if column.name != "id"]

# ASSUMED: a turn whose answer ends after the seal goes to its client, but does not count.
#: The write itself looks at the trajectory's status.
APPEND_TURN = insert(turns).from_select(
    _TURN_COLUMNS,
    select(
        *(
            case(
                (trajectories.c.status == Status.OPEN.value, _parameter("status")),
                (
                    _parameter("status") == TurnStatus.COMPLETED.value,
                    literal(TurnStatus.DISCARDED.value),
                ),
                else_=_parameter("status"),
            )
            if name == "status"
            else _parameter(name)
            for name in _TURN_COLUMNS
        )
    ).where(trajectories.c.id == _parameter("trajectory")),
)


def open_trajectory(
    connection: Connection, *, job_arn: str, trajectory_id: str, may_create: bool, any_job: bool, now: int
) -> OpenTrajectory:
    """Find a trajectory, or create it if that is allowed.

    Raises UnknownJob, UnknownTrajectory.
    """
    row = _find(connection, job_arn, trajectory_id)
    if row is not None:
        last = connection.scalar(select(func.max(turns.c.number)).where(turns.c.trajectory == row.id))
        return OpenTrajectory(row.id, Status(row.status), 0 if last is None else last + 1)
    if not any_job:
        _require_job(connection, job_arn)
    # ASSUMED: a trajectory's first Sample creates it, and any job will do, unless settings say otherwise.
    if not may_create:
        raise UnknownTrajectory(job_arn, trajectory_id)
    return _create(connection, job_arn, trajectory_id, now)


def register_job(connection: Connection, *, job_arn: str, now: int) -> None:
    """Make a job known. Registering it again changes nothing."""
    if connection.scalar(select(jobs.c.job_arn).where(jobs.c.job_arn == job_arn)) is None:
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
    _move(connection, row.id, Status(row.status), status=target, completion=target, completed_at=now)
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
    completed = select(func.count()).where(turns.c.trajectory == row.id, turns.c.status == TurnStatus.COMPLETED.value)
    check_rewards(rewards, connection.scalar(completed) or 0)
    _move(connection, row.id, Status(row.status), status=target, rewards=list(rewards), rewarded_at=now)
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
            select(client_tokens.c.parameters).where(
                client_tokens.c.operation == self.operation,
                client_tokens.c.job_arn == self.job_arn,
                client_tokens.c.token == self.token,
            )
        )
        if known is not None and known != self.parameters:
            raise TokenReused(self.token)
        return known is not None

    def remember(self, connection: Connection, trajectory: int) -> None:
        if self.token is not None:
            connection.execute(
                insert(client_tokens).values(
                    operation=self.operation,
                    job_arn=self.job_arn,
                    token=self.token,
                    parameters=self.parameters,
                    trajectory=trajectory,
                )
            )


def _digest(*parameters: object) -> str:
    return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()


def _find(connection: Connection, job_arn: str, trajectory_id: str) -> Any:
    return connection.execute(
        select(trajectories.c.id, trajectories.c.status).where(
            trajectories.c.job_arn == job_arn, trajectories.c.trajectory_id == trajectory_id
        )
    ).one_or_none()


def _require(connection: Connection, job_arn: str, trajectory_id: str, *, any_job: bool) -> Any:
    row = _find(connection, job_arn, trajectory_id)
    if row is None:
        if not any_job:
            _require_job(connection, job_arn)
        raise UnknownTrajectory(job_arn, trajectory_id)
    return row


def _require_job(connection: Connection, job_arn: str) -> None:
    if connection.scalar(select(jobs.c.job_arn).where(jobs.c.job_arn == job_arn)) is None:
        raise UnknownJob("Could not find job")


def _create(connection: Connection, job_arn: str, trajectory_id: str, now: int) -> OpenTrajectory:
    result = connection.execute(
        insert(trajectories).values(
            job_arn=job_arn, trajectory_id=trajectory_id, status=Status.OPEN.value, created_at=now
        )
    )
    key = result.inserted_primary_key
    assert key is not None
    return OpenTrajectory(key[0], Status.OPEN, 0)


def _move(connection: Connection, trajectory: int, old: Status, **values: Any) -> None:
    # The old status stands in the condition: a change that somebody else made in between is never overwritten.
    changed = connection.execute(
        update(trajectories).where(trajectories.c.id == trajectory, trajectories.c.status == old.value).values(values)
    )
    assert changed.rowcount == 1, "the writer is the only one that changes a status"
