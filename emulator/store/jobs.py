"""Jobs in the database: the changes that the writer runs, and the queries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, tuple_, update

from emulator.job import ACTIVE, Category, Job, JobError, JobStatus, SecondaryStatus, Transition
from emulator.store.schema import job_rollouts, jobs, known_jobs, runners
from emulator.store.statements import UNLESS_THERE, Statement, Transaction


class JobExists(JobError):
    """There is a job of that name already."""


class JobNotFound(JobError):
    """There is no such job."""


class JobTaken(JobError):
    """Another server that shares the database goes on with what this one did."""


class TooManyJobs(JobError):
    """As many jobs of the category are active as may be."""


_COLUMNS = [column for column in jobs.c if column not in (jobs.c.id, jobs.c.runner)]

_CREATE = Statement(
    insert(jobs)
    .inline()
    .values({column: bindparam(column.name, type_=column.type) for column in (*_COLUMNS, jobs.c.runner)}),
    UNLESS_THERE,
)

_KNOW = Statement(insert(known_jobs).values(job_arn=bindparam("job_arn"), created_at=bindparam("now")), UNLESS_THERE)

_FIND = Statement(select(*_COLUMNS).where(jobs.c.job_arn == bindparam("arn")).with_for_update())

_RUNNER = Statement(select(jobs.c.runner).where(jobs.c.job_arn == bindparam("arn")).with_for_update())

_CHANGED = ("status", "transitions", "output", "tags", "failure_reason", "modified_at", "ended_at")

_SAVE = Statement(
    update(jobs)
    .where(jobs.c.job_arn == bindparam("arn"))
    .values({jobs.c[name]: bindparam(f"new_{name}", type_=jobs.c[name].type) for name in _CHANGED})
)

_DELETE = Statement(delete(jobs).where(jobs.c.job_arn == bindparam("arn")))

_FORGET = Statement(delete(known_jobs).where(known_jobs.c.job_arn == bindparam("arn")))

_is_active = or_(*(jobs.c.status == status.value for status in sorted(ACTIVE)))

_ACTIVE = Statement(select(*_COLUMNS).where(_is_active).order_by(jobs.c.id))

_ACTIVE_OF = Statement(
    select(*_COLUMNS).where(_is_active, jobs.c.runner == bindparam("its_runner")).order_by(jobs.c.id)
)

_TAKE_ORPHANS = Statement(
    update(jobs)
    .where(_is_active, or_(jobs.c.runner.is_(None), jobs.c.runner.not_in(select(runners.c.id))))
    .values(runner=bindparam("its_runner"))
)

_COUNT_ACTIVE = Statement(select(func.count()).where(jobs.c.category == bindparam("category"), _is_active))


def create_job(transaction: Transaction, job: Job, *, most_active: int | None, runner: str | None = None) -> None:
    """Store a new job; from now on it is known. `most_active`: how many of its category may be under way, with it.

    `runner`: who does it, where several servers share the database. Raises JobExists, TooManyJobs.
    """
    if most_active is not None:
        transaction.alone()
        ((active,),) = transaction.rows(_COUNT_ACTIVE, category=job.category.value)
        if active >= most_active:
            raise TooManyJobs(f"{active} jobs of category {job.category} are under way; the limit is {most_active}")
    if not transaction.run(_CREATE, **_row(job), runner=runner):
        raise JobExists(f"Job name must be unique within a category: {job.arn} exists")
    transaction.run(_KNOW, job_arn=job.arn, now=job.created_at)


def require_runner(transaction: Transaction, arn: str, runner: str | None) -> None:
    """Let nobody take a job from its runner before the transaction ends. None: no other could.

    Raises JobTaken.
    """
    if runner is not None and transaction.row(_RUNNER, arn=arn) != (runner,):
        raise JobTaken(f"Job {arn} is another server's by now, or gone")


def change_job(transaction: Transaction, arn: str, change: Callable[[Job], Job], *, runner: str | None = None) -> Job:
    """Replace a job by what `change` makes of it; that. `runner`: who does so in doing the job.

    Raises JobNotFound, JobTaken, and what `change` raises.
    """
    require_runner(transaction, arn, runner)
    row = transaction.row(_FIND, arn=arn)
    if row is None:
        raise JobNotFound(f"There is no job {arn}")
    changed = change(_job_of(row))
    values = _row(changed)
    transaction.run(_SAVE, arn=arn, **{f"new_{name}": values[name] for name in _CHANGED})
    return changed


def active_jobs(transaction: Transaction) -> list[Job]:
    """Jobs that are under way, the oldest first. By the writer's connection: to open another one takes a start long."""
    return [_job_of(row) for row in transaction.rows(_ACTIVE)]


def take_orphaned_jobs(transaction: Transaction, runner: str) -> int:
    """Make jobs under way whose runner is gone this one's; how many."""
    return transaction.run(_TAKE_ORPHANS, its_runner=runner)


def active_jobs_of(transaction: Transaction, runner: str) -> list[Job]:
    """Jobs under way that a runner has to do."""
    return [_job_of(row) for row in transaction.rows(_ACTIVE_OF, its_runner=runner)]


def delete_job(transaction: Transaction, arn: str) -> None:
    """Forget a job; its trajectories stay. One that is not there stays away."""
    transaction.run(_DELETE, arn=arn)
    transaction.run(_FORGET, arn=arn)


_job_id = select(jobs.c.id).where(jobs.c.job_arn == bindparam("arn")).scalar_subquery()

_ROLLOUT = ("part", "row", "member")

_ATTEMPT = Statement(
    insert(job_rollouts)
    .inline()
    .from_select(
        ["job", *_ROLLOUT, "trajectory_id"],
        select(
            jobs.c.id,
            *(bindparam(name, type_=job_rollouts.c[name].type) for name in (*_ROLLOUT, "trajectory_id")),
        ).where(jobs.c.job_arn == bindparam("arn")),
    ),
    "ON CONFLICT (job, part, row, member) DO UPDATE SET trajectory_id = excluded.trajectory_id",
)

_OVER = Statement(
    update(job_rollouts)
    .where(job_rollouts.c.job == _job_id, *(job_rollouts.c[name] == bindparam(f"its_{name}") for name in _ROLLOUT))
    .values(result=bindparam("outcome"))
)


def note_attempt(
    transaction: Transaction,
    arn: str,
    part: str,
    row: int,
    member: int,
    trajectory_id: str,
    *,
    runner: str | None = None,
) -> None:
    """An agent is about to be asked for a rollout of a job. Raises JobTaken."""
    require_runner(transaction, arn, runner)
    transaction.run(_ATTEMPT, arn=arn, part=part, row=row, member=member, trajectory_id=trajectory_id)


def note_result(
    transaction: Transaction, arn: str, part: str, row: int, member: int, result: str, *, runner: str | None = None
) -> None:
    """A rollout of a job is over; `result` is JSON. Raises JobTaken."""
    require_runner(transaction, arn, runner)
    transaction.run(_OVER, arn=arn, its_part=part, its_row=row, its_member=member, outcome=result)


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant; what is None does not matter. Times are microseconds, both ends exclusive."""

    category: Category
    name_contains: str | None = None
    status: JobStatus | None = None
    created_after: int | None = None
    created_before: int | None = None
    modified_after: int | None = None
    modified_before: int | None = None


def rollouts_of_part(connection: Connection, arn: str, part: str) -> dict[tuple[int, int], tuple[str, str | None]]:
    """The rollouts of a step that were begun: by row and member the trajectory, and the result if it is over."""
    query = (
        select(job_rollouts)
        .join(jobs, jobs.c.id == job_rollouts.c.job)
        .where(jobs.c.job_arn == arn, job_rollouts.c.part == part)
    )
    return {(each.row, each.member): (each.trajectory_id, each.result) for each in connection.execute(query)}


_SORTED_BY = {"Name": jobs.c.name, "CreationTime": jobs.c.created_at, "Status": jobs.c.status}


def find_job(connection: Connection, arn: str) -> Job | None:
    """The job of that ARN."""
    row = connection.execute(select(*_COLUMNS).where(jobs.c.job_arn == arn)).one_or_none()
    return None if row is None else _job(row._mapping)


def list_jobs(
    connection: Connection,
    which: JobFilter,
    *,
    sort_by: str,
    descending: bool,
    limit: int,
    after: tuple[Any, int] | None = None,
) -> list[tuple[Job, tuple[Any, int]]]:
    """One page, and where each job stands in the order; `after` is where the last one of the page before stood.

    `sort_by`: Name, CreationTime or Status.
    """
    key = _SORTED_BY[sort_by]
    place = tuple_(key, jobs.c.id)
    query = select(jobs).where(*_conditions(which)).limit(limit)
    query = query.order_by(*((key.desc(), jobs.c.id.desc()) if descending else (key, jobs.c.id)))
    if after is not None:
        query = query.where(place < after if descending else place > after)
    return [(_job(row._mapping), _place(row, key.name)) for row in connection.execute(query)]


def _place(row: Row[Any], key: str) -> tuple[Any, int]:
    return row._mapping[key], row.id


def _conditions(which: JobFilter) -> list[Any]:
    conditions: list[Any] = [jobs.c.category == which.category.value]
    if which.name_contains is not None:
        # ASSUMED: whatever the case.
        conditions.append(jobs.c.name.icontains(which.name_contains, autoescape=True))
    if which.status is not None:
        conditions.append(jobs.c.status == which.status.value)
    for column, after, before in (
        (jobs.c.created_at, which.created_after, which.created_before),
        (jobs.c.modified_at, which.modified_after, which.modified_before),
    ):
        if after is not None:
            conditions.append(column > after)
        if before is not None:
            conditions.append(column < before)
    return conditions


def _job_of(row: tuple[Any, ...]) -> Job:
    return _job(dict(zip((column.name for column in _COLUMNS), row, strict=True)))


def _row(job: Job) -> dict[str, Any]:
    return {
        "job_arn": job.arn,
        "category": job.category.value,
        "name": job.name,
        "role_arn": job.role_arn,
        "schema_version": job.schema_version,
        "status": job.status.value,
        "transitions": _dump([[each.status, each.start, each.end, each.message] for each in job.transitions]),
        "output": _dump(job.output),
        "tags": _dump(job.tags),
        "failure_reason": job.failure_reason,
        "created_at": job.created_at,
        "modified_at": job.modified_at,
        "ended_at": job.ended_at,
        "document": job.document,
    }


def _job(row: Mapping[Any, Any]) -> Job:
    return Job(
        arn=row["job_arn"],
        category=Category(row["category"]),
        name=row["name"],
        role_arn=row["role_arn"],
        schema_version=row["schema_version"],
        document=row["document"],
        created_at=row["created_at"],
        modified_at=row["modified_at"],
        transitions=tuple(
            Transition(SecondaryStatus(status), start, end, message)
            for status, start, end, message in json.loads(row["transitions"])
        ),
        ended_at=row["ended_at"],
        failure_reason=row["failure_reason"],
        output=json.loads(row["output"]),
        tags=json.loads(row["tags"]),
    )


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
