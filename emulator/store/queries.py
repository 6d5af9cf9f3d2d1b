"""What is read from the database: plain queries on a connection, with plain records as results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, or_, select

from emulator.store.database import DatabaseError
from emulator.store.prefixes import MissingPrefix, Stored, missing_prefix, restore
from emulator.store.schema import trajectories, turns
from emulator.trajectory import Status, TurnStatus, UnknownTrajectory, is_eligible

#: Values of one statement: SQLite takes 32,766.
_PARAMETERS = 10_000


@dataclass(frozen=True, slots=True)
class TrajectoryRecord:
    """A trajectory without its turns. Times are microseconds since 1970, UTC."""

    id: int
    job_arn: str
    trajectory_id: str
    status: Status
    completion: Status | None
    rewards: list[float] | None
    created_at: int
    completed_at: int | None
    rewarded_at: int | None
    turns: int  #: the completed ones
    group: str | None = None  #: what rollouts of one prompt share, if they were dispatched
    instance: str | None = None  #: the dataset's row, in JSON

    @property
    def eligible(self) -> bool:
        """Whether the trainer may use it."""
        return is_eligible(self.completion, self.status)


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn with its exact bytes. Times are microseconds since 1970, UTC."""

    number: int
    status: TurnStatus
    path: str
    http_status: int | None
    content_type: str | None
    error: str | None
    arrived_at: int
    first_byte_at: int | None
    ended_at: int
    request: bytes
    response: bytes


@dataclass(frozen=True, slots=True)
class TrajectoryFilter:
    """Which trajectories are meant; what is None does not matter. Times are microseconds, `until` exclusive."""

    job_arn: str | None = None
    status: Status | None = None
    since: int | None = None
    until: int | None = None
    trajectory_id: str | None = None
    group: str | None = None
    eligible: bool = False  #: only those that the trainer may use
    unfailed: bool = False  #: only those that their agent did not give up


def list_trajectories(
    connection: Connection, which: TrajectoryFilter, *, limit: int, before: int | None = None
) -> list[TrajectoryRecord]:
    """One page, newest first; `before` is the id of the last one of the page before."""
    query = _filtered(which).order_by(trajectories.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(trajectories.c.id < before)
    rows = connection.execute(query).all()
    counts = _completed_turns(connection, [row.id for row in rows])
    return [_trajectory(row, counts.get(row.id, 0)) for row in rows]


def iterate_trajectories(connection: Connection, which: TrajectoryFilter) -> Iterator[TrajectoryRecord]:
    """All of them, oldest first, a page at a time."""
    for page in iterate_pages(connection, which):
        yield from page


def iterate_pages(connection: Connection, which: TrajectoryFilter, size: int = 500) -> Iterator[list[TrajectoryRecord]]:
    """All of them, oldest first, so many at a time."""
    last = 0
    while True:
        query = _filtered(which).where(trajectories.c.id > last).order_by(trajectories.c.id).limit(size)
        rows = connection.execute(query).all()
        if not rows:
            return
        counts = _completed_turns(connection, [row.id for row in rows])
        yield [_trajectory(row, counts.get(row.id, 0)) for row in rows]
        last = rows[-1].id


def groups_of(
    connection: Connection, page: Sequence[TrajectoryRecord], which: TrajectoryFilter
) -> dict[tuple[str, str], list[TrajectoryRecord]]:
    """The trajectories of each job and group of which a page has one, oldest first."""
    keys = {(record.job_arn, record.group) for record in page if record.group is not None}
    if not keys:
        return {}
    query = _filtered(which).where(
        trajectories.c.job_arn.in_({job for job, _ in keys}), trajectories.c.group_id.in_({group for _, group in keys})
    )
    rows = connection.execute(query.order_by(trajectories.c.id)).all()
    counts = _completed_turns(connection, [row.id for row in rows])
    found: dict[tuple[str, str], list[TrajectoryRecord]] = {}
    for row in rows:
        found.setdefault((row.job_arn, row.group_id), []).append(_trajectory(row, counts.get(row.id, 0)))
    return found


def find_trajectories(connection: Connection, trajectory_id: str, job_arn: str | None = None) -> list[TrajectoryRecord]:
    """The trajectories of that id: at most one, if the job is given."""
    query = _filtered(TrajectoryFilter(job_arn=job_arn)).where(trajectories.c.trajectory_id == trajectory_id)
    rows = connection.execute(query.order_by(trajectories.c.id)).all()
    counts = _completed_turns(connection, [row.id for row in rows])
    return [_trajectory(row, counts.get(row.id, 0)) for row in rows]


def status_of(connection: Connection, job_arn: str, trajectory_id: str) -> Status:
    """Where a trajectory stands. Raises UnknownTrajectory."""
    query = select(trajectories.c.status).where(
        trajectories.c.job_arn == job_arn, trajectories.c.trajectory_id == trajectory_id
    )
    status = connection.execute(query).scalar_one_or_none()
    if status is None:
        raise UnknownTrajectory(job_arn, trajectory_id)
    return Status(status)


def count_trajectories(connection: Connection) -> dict[Status, int]:
    """How many there are of each status; it takes 43 ms for a million."""
    query = select(trajectories.c.status, func.count()).group_by(trajectories.c.status)
    return {Status(row[0]): row[1] for row in connection.execute(query)}


def count_turns(connection: Connection, ids: Sequence[int]) -> dict[int, dict[TurnStatus, int]]:
    """How many turns of each status trajectories have, by the trajectories' own ids (`TrajectoryRecord.id`)."""
    query = (
        select(turns.c.trajectory, turns.c.status, func.count())
        .where(turns.c.trajectory.in_(ids))
        .group_by(turns.c.trajectory, turns.c.status)
    )
    counts: dict[int, dict[TurnStatus, int]] = {}
    for trajectory, status, count in connection.execute(query):
        counts.setdefault(trajectory, {})[TurnStatus(status)] = count
    return counts


def turns_of(connection: Connection, trajectory: TrajectoryRecord) -> list[TurnRecord]:
    """All turns of a trajectory, in the order in which their requests arrived. Raises DatabaseError for damage."""
    # In the order in which they were stored, in which each comes after its base.
    rows = connection.execute(select(turns).where(turns.c.trajectory == trajectory.id).order_by(turns.c.id)).all()
    requests = _restored(trajectory, rows)
    return sorted((_turn(row, requests[row.number]) for row in rows), key=lambda turn: turn.number)


def find_turn(connection: Connection, trajectory: TrajectoryRecord, number: int) -> TurnRecord | None:
    """One turn of a trajectory. Raises DatabaseError for damage."""
    query = select(turns).where(turns.c.trajectory == trajectory.id, turns.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    columns = (turns.c.id, turns.c.number, turns.c.base, turns.c.shared, turns.c.request)
    chain = select(*columns).where(turns.c.id == row.id).cte("chain", recursive=True)
    base = (turns.c.trajectory == trajectory.id, turns.c.number == chain.c.base, turns.c.id < chain.c.id)
    chain = chain.union_all(select(*columns).join(chain, and_(*base)))
    requests = _restored(trajectory, connection.execute(select(chain).order_by(chain.c.id)))
    return _turn(row, requests[number]) if requests else None  # everything was reset between the two queries


def missing_prefixes(connection: Connection) -> list[str]:
    """Which turns' requests cannot be restored, because what they share with another one is not there."""
    base = turns.alias("base")
    is_there = and_(base.c.trajectory == turns.c.trajectory, base.c.number == turns.c.base, base.c.id < turns.c.id)
    query = (
        select(trajectories.c.job_arn, trajectories.c.trajectory_id, turns.c.number, turns.c.base)
        .join(trajectories, trajectories.c.id == turns.c.trajectory)
        .outerjoin(base, is_there)
        .where(
            turns.c.base.is_not(None),
            or_(base.c.id.is_(None), base.c.shared + func.length(base.c.request) < turns.c.shared),
        )
        .order_by(turns.c.id)
    )
    return [
        f"turns: {row.trajectory_id} ({row.job_arn}): {missing_prefix(row.number, row.base)}"
        for row in connection.execute(query)
    ]


def _restored(trajectory: TrajectoryRecord, rows: Iterable[Row[Any]]) -> dict[int, bytes]:
    """The requests of turns, of which each comes after its base. Raises DatabaseError."""
    try:
        return restore(Stored(row.number, row.base, row.shared, row.request) for row in rows)
    except MissingPrefix as error:
        raise DatabaseError(f"{trajectory.trajectory_id} ({trajectory.job_arn}): {error}") from None


def _filtered(which: TrajectoryFilter) -> Select[Any]:
    query = select(trajectories)
    if which.job_arn is not None:
        query = query.where(trajectories.c.job_arn == which.job_arn)
    if which.status is not None:
        query = query.where(trajectories.c.status == which.status.value)
    if which.since is not None:
        query = query.where(trajectories.c.created_at >= which.since)
    if which.until is not None:
        query = query.where(trajectories.c.created_at < which.until)
    if which.trajectory_id is not None:
        query = query.where(trajectories.c.trajectory_id == which.trajectory_id)
    if which.group is not None:
        query = query.where(trajectories.c.group_id == which.group)
    if which.eligible:
        ready, rewarded = Status.READY.value, Status.REWARD_RECEIVED.value
        query = query.where(trajectories.c.completion == ready, trajectories.c.status == rewarded)
    if which.unfailed:
        failed = Status.FAILED.value
        query = query.where(or_(trajectories.c.completion.is_(None), trajectories.c.completion != failed))
    return query


def _completed_turns(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for some in (ids[at : at + _PARAMETERS] for at in range(0, len(ids), _PARAMETERS)):
        query = (
            select(turns.c.trajectory, func.count())
            .where(turns.c.trajectory.in_(some), turns.c.status == TurnStatus.COMPLETED.value)
            .group_by(turns.c.trajectory)
        )
        found.update((row[0], row[1]) for row in connection.execute(query))
    return found


def _trajectory(row: Row[Any], completed_turns: int) -> TrajectoryRecord:
    return TrajectoryRecord(
        id=row.id,
        job_arn=row.job_arn,
        trajectory_id=row.trajectory_id,
        status=Status(row.status),
        completion=None if row.completion is None else Status(row.completion),
        rewards=row.rewards,
        created_at=row.created_at,
        completed_at=row.completed_at,
        rewarded_at=row.rewarded_at,
        turns=completed_turns,
        group=row.group_id,
        instance=row.instance,
    )


def _turn(row: Row[Any], request: bytes) -> TurnRecord:
    return TurnRecord(
        number=row.number,
        status=TurnStatus(row.status),
        path=row.path,
        http_status=row.http_status,
        content_type=row.content_type,
        error=row.error,
        arrived_at=row.arrived_at,
        first_byte_at=row.first_byte_at,
        ended_at=row.ended_at,
        request=request,
        response=row.response,
    )
