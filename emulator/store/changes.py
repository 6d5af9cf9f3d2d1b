"""Every change but the appending of turns, as functions that the writer runs inside its transaction.

A function checks before it writes: when it raises an error of the domain, it has written nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from emulator.store.client_tokens import token_use
from emulator.store.schema import (
    client_tokens,
    job_rollouts,
    jobs,
    known_jobs,
    pipeline_executions,
    trajectories,
    turns,
)
from emulator.store.statements import UNLESS_THERE, Statement, Transaction
from emulator.trajectory import (
    Event,
    Status,
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
    instance: str | None = None  #: the dataset's row, in JSON

    def take_number(self) -> int:
        """The number of the turn that arrives now."""
        number = self.next_number
        self.next_number += 1
        return number


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
        trajectories.c.instance,
    ).where(*_key)
)

_CREATE = Statement(
    insert(trajectories)
    .inline()  # RETURNING has to come after our ending
    .values(
        job_arn=bindparam("job_arn"),
        trajectory_id=bindparam("trajectory_id"),
        status=Status.OPEN.value,
        created_at=bindparam("now"),
    ),
    f"{UNLESS_THERE} RETURNING id",
)

_REGISTER = Statement(
    insert(trajectories)
    .inline()
    .values(
        job_arn=bindparam("job_arn"),
        trajectory_id=bindparam("trajectory_id"),
        group_id=bindparam("group"),
        instance=bindparam("instance"),
        status=Status.OPEN.value,
        created_at=bindparam("now"),
    ),
    UNLESS_THERE,
)

_TAKE_NUMBER = Statement(
    update(trajectories)
    .where(*_key, trajectories.c.status == Status.OPEN.value)
    .values(next_number=trajectories.c.next_number + 1)
    .returning(trajectories.c.id, trajectories.c.next_number - 1, trajectories.c.instance)
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

_FIND_JOB = Statement(select(known_jobs.c.job_arn).where(known_jobs.c.job_arn == bindparam("job_arn")))

_REGISTER_JOB = Statement(
    insert(known_jobs).values(job_arn=bindparam("job_arn"), created_at=bindparam("now")), UNLESS_THERE
)

_RESET = [
    Statement(delete(table))
    for table in (client_tokens, turns, trajectories, job_rollouts, jobs, known_jobs, pipeline_executions)
]


def open_trajectory(
    transaction: Transaction, *, job_arn: str, trajectory_id: str, may_create: bool, any_job: bool, now: int
) -> OpenTrajectory:
    """Find a trajectory, or create it if that is allowed.

    Raises UnknownJob, UnknownTrajectory.
    """
    key = {"job_arn": job_arn, "trajectory_id": trajectory_id}
    while (row := transaction.row(_FIND_WITH_NUMBER, **key)) is None:
        _check_may_create(transaction, job_arn, trajectory_id, may_create=may_create, any_job=any_job)
        if (created := transaction.row(_CREATE, **key, now=now)) is not None:
            return OpenTrajectory(created[0], (job_arn, trajectory_id), Status.OPEN, 0)
    return OpenTrajectory(row[0], (job_arn, trajectory_id), Status(row[1]), row[2], row[3])


def take_number(
    transaction: Transaction, *, job_arn: str, trajectory_id: str, may_create: bool, any_job: bool, now: int
) -> tuple[OpenTrajectory, int]:
    """Have the database give a turn its number, where other processes take turns too; create the trajectory if allowed.

    A number whose process ends before its turn is stored stays unused.

    Raises UnknownJob, UnknownTrajectory, InvalidTransition.
    """
    key = {"job_arn": job_arn, "trajectory_id": trajectory_id}
    while (row := transaction.row(_TAKE_NUMBER, **key)) is None:
        found = transaction.row(_FIND, **key)
        if found is not None:
            transition(trajectory_id, Status(found[1]), Event.SAMPLE)  # raises, unless it was created this moment
        else:
            _check_may_create(transaction, job_arn, trajectory_id, may_create=may_create, any_job=any_job)
            transaction.run(_CREATE, **key, now=now)
    return OpenTrajectory(row[0], (job_arn, trajectory_id), Status.OPEN, row[1] + 1, row[2]), row[1]


def register_job(transaction: Transaction, *, job_arn: str, now: int) -> None:
    """Make a job known. Registering it again changes nothing."""
    transaction.run(_REGISTER_JOB, job_arn=job_arn, now=now)


def register_trajectory(
    transaction: Transaction,
    *,
    job_arn: str,
    trajectory_id: str,
    group: str | None,
    instance: str | None,
    any_job: bool,
    now: int,
) -> None:
    """Create a trajectory before its first Sample. One that is there stays as it is.

    Raises UnknownJob.
    """
    if not any_job:
        _require_job(transaction, job_arn)
    key = {"job_arn": job_arn, "trajectory_id": trajectory_id}
    transaction.run(_REGISTER, **key, group=group, instance=instance, now=now)


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
    used = token_use("CompleteRollout", job_arn, client_token, trajectory_id, completion)
    if used.was_seen(transaction):
        return status
    event = Event.COMPLETE_FAILED if completion is Status.FAILED else Event.COMPLETE_READY
    target = transition(trajectory_id, status, event)
    used.remember(transaction, id_)
    _move_to(transaction, _SEAL, id_, status, new=target.value, now=now)
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
    used = token_use("UpdateReward", job_arn, client_token, trajectory_id, list(rewards))
    if used.was_seen(transaction):
        return status
    target = transition(trajectory_id, status, Event.UPDATE_REWARD)
    ((completed,),) = transaction.rows(_COUNT_COMPLETED, trajectory=id_)
    check_rewards(rewards, completed)
    used.remember(transaction, id_)
    _move_to(transaction, _REWARD, id_, status, new=target.value, given=json.dumps(list(rewards)), now=now)
    return target


def reset(transaction: Transaction) -> None:
    """Forget everything."""
    for statement in _RESET:
        transaction.run(statement)


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


def _move_to(transaction: Transaction, statement: Statement, id_: int, old: Status, **values: Any) -> None:
    changed = transaction.run(statement, id_=id_, old=old.value, **values)
    assert changed == 1, "the row is locked, or the writer is the only one that changes it"
